#include "tests/model/allocation_counter.h"

#include <link.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DIN_SANITIZED_HEAP 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define DIN_SANITIZED_HEAP 1
#endif
#endif

namespace din {
namespace {

thread_local size_t allocations = 0;
thread_local size_t onednn_allocations = 0;

struct AddressRange {
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

// Where libdnnl's code is; empty until somebody counts.
AddressRange onednn;

int FindOneDnn(dl_phdr_info* library, size_t, void*) {
  if (std::strstr(library->dlpi_name, "libdnnl") == nullptr) return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    onednn = {library->dlpi_addr + segment.p_vaddr, library->dlpi_addr + segment.p_vaddr + segment.p_memsz};
  }
  return 1;
}

// `caller`: the return address of the allocation function.
[[maybe_unused]] void Count(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  ++(address >= onednn.begin && address < onednn.end ? onednn_allocations : allocations);
}

size_t FirstAllocations() {
  if (onednn.end == 0) dl_iterate_phdr(FindOneDnn, nullptr);
  return allocations;
}

}  // namespace

AllocationCounter::AllocationCounter() : count_before_(FirstAllocations()), in_onednn_before_(onednn_allocations) {}
size_t AllocationCounter::count() const { return allocations - count_before_; }
size_t AllocationCounter::in_onednn() const { return onednn_allocations - in_onednn_before_; }

#ifdef DIN_SANITIZED_HEAP
bool AllocationCounter::Works() { return false; }
#else
bool AllocationCounter::Works() { return true; }
#endif

}  // namespace din

#ifndef DIN_SANITIZED_HEAP

// glibc's own, under the names that it keeps for replacements.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t n, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  din::Count(__builtin_return_address(0));
  return __libc_malloc(size);
}

void* calloc(size_t n, size_t size) {
  din::Count(__builtin_return_address(0));
  return __libc_calloc(n, size);
}

void* realloc(void* memory, size_t size) {
  din::Count(__builtin_return_address(0));
  return __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) {
  din::Count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  din::Count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) {
  din::Count(__builtin_return_address(0));
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}

// Only to know the caller: the standard library's own, which the array and nothrow forms reach, calls malloc.
void* operator new(size_t size) {
  din::Count(__builtin_return_address(0));
  void* memory = __libc_malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

#endif
