// Memory for weights: anonymous, so that nobody else can change or truncate it, and in huge pages where the kernel
// gives them, so that a gather over a large table does not spend itself on TLB misses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace din {

class SpareMemory;

// Owns memory that starts at a page, or at a huge page when it is at least one long. Pages appear when they are first
// written. Move-only.
class MemoryRegion {
 public:
  MemoryRegion() = default;
  // Zeroed. RESOURCE_EXHAUSTED with need and limit when the machine has not that much, or the kernel refuses.
  static absl::StatusOr<MemoryRegion> Create(uint64_t bytes);
  ~MemoryRegion();
  MemoryRegion(MemoryRegion&& other) noexcept { *this = std::move(other); }
  MemoryRegion& operator=(MemoryRegion&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
    std::swap(home_, other.home_);
    return *this;
  }

  std::byte* data() const { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }  // what was asked for, in whole pages

 private:
  friend class SpareMemory;
  MemoryRegion(std::byte* data, size_t size, size_t mapped) : bytes_(data, size), mapped_(mapped) {}
  void Resize(size_t size);

  std::span<std::byte> bytes_;
  size_t mapped_ = 0;            // addresses from data() on, some perhaps beyond size()
  SpareMemory* home_ = nullptr;  // where it goes in the end; null: back to the system
};

// What regions leave when they go, for the next ones: the pages are there already, so that whoever fills them costs the
// machine neither page faults nor the zeroing of a gigabyte, nor a virtual machine the wait for its host to give them.
// Keeps at most twice what the largest region in use takes, and nothing when none is in use. A region for which nothing
// here fits is made from new memory, and as much is given back first. Outlives the regions that come from it. Any
// thread.
class SpareMemory {
 public:
  SpareMemory() = default;
  SpareMemory(const SpareMemory&) = delete;
  SpareMemory& operator=(const SpareMemory&) = delete;

  // As MemoryRegion::Create, but not zeroed: there may be anything in it.
  absl::StatusOr<MemoryRegion> Take(uint64_t bytes);
  // Gives back all that does not serve one region of so many bytes: where memory is scarce, before Take.
  void KeepOnlyFor(uint64_t bytes);
  // That are here.
  uint64_t bytes() const;

 private:
  friend class MemoryRegion;
  struct Spare {
    MemoryRegion region;
    uint64_t resident = 0;
  };

  void Add(MemoryRegion region) noexcept;
  MemoryRegion Find(size_t size);
  absl::StatusOr<MemoryRegion> New(size_t size);
  Spare Smallest();
  void Insert(Spare spare);
  void GiveBack(uint64_t bytes);
  uint64_t Sum() const;  // with the mutex held

  mutable std::mutex mutex_;
  std::vector<Spare> spares_;     // the smallest first
  std::multiset<size_t> in_use_;  // sizes
};

}  // namespace din
