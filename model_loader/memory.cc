#include "model_loader/memory.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace din {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallestPage = 4096;
// Unmapping holds the lock of the address space, and other threads' mmap and page faults wait for it, the longer when
// the thread that frees is of low priority and loses its core meanwhile. One page table's worth takes 10 us, or 130 in
// small pages; in pieces of 64 MiB another thread waited for 860 ms on a busy machine, in these for 7.
constexpr size_t kPiece = kHugePage;
// A region that may come back as spare memory has addresses for one part in so many more than it needs: without pages
// they cost next to nothing, and the next version of a model may have more rows.
constexpr size_t kGrowth = 8;
// Times the largest region in use. The models of a server take turns, so one spare region serves all that are about as
// large; twice the largest is enough for one of each size down to nothing, if each is half of the one before.
constexpr uint64_t kMostSpare = 2;

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

size_t WholePages(uint64_t bytes) { return RoundUp(bytes, static_cast<size_t>(sysconf(_SC_PAGESIZE))); }

absl::Status CheckMachineHas(uint64_t bytes) {
  if (const uint64_t limit = PhysicalMemory(); bytes > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat("need ", bytes, " bytes of memory > limit ", limit, " of this machine"));
  }
  return absl::OkStatus();
}

// That many bytes of addresses, zeroed and still without pages.
absl::StatusOr<std::byte*> Map(size_t size) {
  const bool huge = size >= kHugePage;
  const size_t raw_size = huge ? size + kHugePage : size;
  void* raw = mmap(nullptr, raw_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("need ", size, " bytes of memory: ", std::strerror(errno)));
  }
  std::byte* data = static_cast<std::byte*>(raw);
  if (huge) {
    data = TrimToHugePage(data, raw_size, size);
    // A wish: without it everything works, in small pages.
    madvise(data, size, MADV_HUGEPAGE);
  }
  return data;
}

enum class Addresses { kStay, kGo };

// The pages of [data, data + size) go back to the system.
void GivePagesBack(std::byte* data, size_t size, Addresses addresses) {
  for (size_t at = 0; at < size; at += kPiece) {
    const size_t piece = std::min(kPiece, size - at);
    addresses == Addresses::kStay ? madvise(data + at, piece, MADV_DONTNEED) : munmap(data + at, piece);
    sched_yield();
  }
}

// The pages of [data, data + size): a load that was given up has not touched all.
struct Pages {
  uint64_t bytes = 0;
  size_t end = 0;  // of the last one
};
Pages PagesOf(std::byte* data, size_t size) {
  const size_t page = WholePages(1);
  std::array<unsigned char, kHugePage / kSmallestPage> there;
  Pages pages;
  for (size_t at = 0; at < size; at += kHugePage) {
    const size_t piece = std::min(kHugePage, size - at);
    if (mincore(data + at, piece, there.data()) != 0) there.fill(1);
    for (size_t i = 0; i < piece / page; ++i) {
      if ((there[i] & 1) == 0) continue;
      pages.bytes += page;
      pages.end = at + (i + 1) * page;
    }
  }
  return pages;
}

}  // namespace

absl::StatusOr<MemoryRegion> MemoryRegion::Create(uint64_t bytes) {
  if (bytes == 0) return MemoryRegion();
  DIN_RETURN_IF_ERROR(CheckMachineHas(bytes));
  const size_t size = WholePages(bytes);
  DIN_ASSIGN_OR_RETURN(std::byte* const data, Map(size));
  return MemoryRegion(data, size, size);
}

MemoryRegion::~MemoryRegion() {
  if (home_ != nullptr) home_->Add(std::move(*this));
  GivePagesBack(data(), mapped_, Addresses::kGo);
}

// Within its addresses, which are whole huge pages. Those beyond the one that the end is in go back.
void MemoryRegion::Resize(size_t size) {
  const size_t end = RoundUp(size, kHugePage), old_end = RoundUp(this->size(), kHugePage);
  if (end < old_end) GivePagesBack(data() + end, old_end - end, Addresses::kStay);
  bytes_ = {data(), size};
}

absl::StatusOr<MemoryRegion> SpareMemory::Take(uint64_t bytes) {
  if (bytes < kHugePage) return MemoryRegion::Create(bytes);
  DIN_RETURN_IF_ERROR(CheckMachineHas(bytes));
  const size_t size = WholePages(bytes);
  MemoryRegion region = Find(size);
  if (region.data() == nullptr) {
    GiveBack(size);
    DIN_ASSIGN_OR_RETURN(region, New(size));
  }
  region.Resize(size);
  const std::lock_guard lock(mutex_);
  in_use_.insert(size);
  region.home_ = this;
  return region;
}

absl::StatusOr<MemoryRegion> SpareMemory::New(size_t size) {
  size_t mapped = RoundUp(size + size / kGrowth, kHugePage);
  absl::StatusOr<std::byte*> data = Map(mapped);
  if (!data.ok()) {  // a limit of addresses: then no more than it takes
    GiveBack(UINT64_MAX);
    mapped = RoundUp(size, kHugePage);
    data = Map(mapped);
  }
  DIN_RETURN_IF_ERROR(data.status());
  return MemoryRegion(*data, size, mapped);
}

void SpareMemory::KeepOnlyFor(uint64_t bytes) {
  uint64_t surplus = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!spares_.empty()) surplus = Sum() - std::min(bytes, spares_.back().resident);
  }
  GiveBack(surplus);
}

uint64_t SpareMemory::bytes() const {
  const std::lock_guard lock(mutex_);
  return Sum();
}

void SpareMemory::Add(MemoryRegion region) noexcept try {
  region.home_ = nullptr;
  const size_t size = region.size();
  const Pages pages = PagesOf(region.data(), RoundUp(size, kHugePage));
  region.Resize(pages.end);
  uint64_t surplus = 0;
  {
    const std::lock_guard lock(mutex_);
    in_use_.erase(in_use_.find(size));
    Insert({std::move(region), pages.bytes});
    const uint64_t most = in_use_.empty() ? 0 : kMostSpare * *in_use_.rbegin();
    surplus = Sum() - std::min(Sum(), most);
  }
  GiveBack(surplus);
} catch (const std::bad_alloc&) {
  // Then it has gone back to the system.
}

// The one with most pages that has addresses for `size` bytes and few pages more; empty when there is none.
MemoryRegion SpareMemory::Find(size_t size) {
  const size_t end = RoundUp(size, kHugePage);
  const std::lock_guard lock(mutex_);
  for (auto spare = spares_.end(); spare != spares_.begin();) {
    --spare;
    if (spare->region.mapped_ < size || spare->resident > end + end / kGrowth) continue;
    MemoryRegion region = std::move(spare->region);
    spares_.erase(spare);
    return region;
  }
  return MemoryRegion();
}

SpareMemory::Spare SpareMemory::Smallest() {
  const std::lock_guard lock(mutex_);
  if (spares_.empty()) return {};
  Spare spare = std::move(spares_.front());
  spares_.erase(spares_.begin());
  return spare;
}

// With the mutex held.
void SpareMemory::Insert(Spare spare) {
  const auto larger = std::ranges::upper_bound(spares_, spare.resident, {}, &Spare::resident);
  spares_.insert(larger, std::move(spare));
}

// At least so many bytes, or all that is here. Without the mutex: it takes time.
void SpareMemory::GiveBack(uint64_t bytes) {
  while (bytes > 0) {
    Spare spare = Smallest();
    if (spare.region.data() == nullptr) return;
    if (spare.resident <= bytes) {
      bytes -= spare.resident;
      continue;
    }
    spare.region.Resize(spare.region.size() - std::min(spare.region.size(), RoundUp(bytes, kHugePage)));
    const Pages left = PagesOf(spare.region.data(), RoundUp(spare.region.size(), kHugePage));
    bytes -= std::min(bytes, spare.resident - left.bytes);
    spare.resident = left.bytes;
    const std::lock_guard lock(mutex_);
    Insert(std::move(spare));
  }
}

// With the mutex held.
uint64_t SpareMemory::Sum() const {
  uint64_t sum = 0;
  for (const Spare& spare : spares_) sum += spare.resident;
  return sum;
}

}  // namespace din
