// Counts what a stretch of code takes from the heap, through operator new as well as malloc and its relatives: add
// allocation_counter.cc to the sources of a test binary, whose allocation functions it replaces.
#pragma once

#include <cstddef>

namespace din {

// Allocations of this thread while it lives.
class AllocationCounter {
 public:
  // False under a sanitizer, which has an allocator of its own.
  static bool Works();

  AllocationCounter();

  // All but those that oneDNN makes for itself.
  size_t count() const;
  // oneDNN's own: executing a primitive fills a hash map of its arguments, whatever the caller prepares.
  size_t in_onednn() const;

 private:
  const size_t count_before_;
  const size_t in_onednn_before_;
};

}  // namespace din
