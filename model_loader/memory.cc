#include "model_loader/memory.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Unmapping holds the lock of the address space, and other threads' mmap and page faults wait for it, the longer when
// the thread that frees is of low priority and loses its core meanwhile. One page table's worth takes 10 us, or 130 in
// small pages; in pieces of 64 MiB another thread waited for 860 ms on a busy machine, in these for 7.
constexpr size_t kUnmapPiece = kHugePage;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

uint64_t PhysicalMemory() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// [p, p + size) inside [raw, raw + raw_size), starting at a huge page; the rest is given back.
std::byte* TrimToHugePage(std::byte* raw, size_t raw_size, size_t size) {
  const size_t before = RoundUp(reinterpret_cast<uintptr_t>(raw), kHugePage) - reinterpret_cast<uintptr_t>(raw);
  if (before > 0) munmap(raw, before);
  if (const size_t after = raw_size - before - size; after > 0) munmap(raw + before + size, after);
  return raw + before;
}

}  // namespace

absl::StatusOr<MemoryRegion> MemoryRegion::Create(uint64_t bytes) {
  if (bytes == 0) return MemoryRegion();
  if (const uint64_t limit = PhysicalMemory(); bytes > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat("need ", bytes, " bytes of memory > limit ", limit, " of this machine"));
  }
  const bool huge = bytes >= kHugePage;
  const size_t size = RoundUp(bytes, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  const size_t raw_size = huge ? size + kHugePage : size;
  void* raw = mmap(nullptr, raw_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("need ", bytes, " bytes of memory: ", std::strerror(errno)));
  }
  std::byte* data = static_cast<std::byte*>(raw);
  if (huge) {
    data = TrimToHugePage(data, raw_size, size);
    // A wish: without it everything works, in small pages.
    madvise(data, size, MADV_HUGEPAGE);
  }
  return MemoryRegion(std::span(data, size));
}

MemoryRegion::~MemoryRegion() {
  for (size_t at = 0; at < bytes_.size(); at += kUnmapPiece) {
    munmap(bytes_.data() + at, std::min(kUnmapPiece, bytes_.size() - at));
    sched_yield();
  }
}

}  // namespace din
