// Memory for weights: anonymous, so that nobody else can change or truncate it, and in huge pages where the kernel
// gives them, so that a gather over a large table does not spend itself on TLB misses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

namespace din {

// Owns zeroed memory that starts at a page, or at a huge page when it is at least one long. Pages appear when they are
// first written. Move-only.
class MemoryRegion {
 public:
  MemoryRegion() = default;
  // RESOURCE_EXHAUSTED with need and limit when the machine has not that much, or the kernel refuses.
  static absl::StatusOr<MemoryRegion> Create(uint64_t bytes);
  ~MemoryRegion();
  MemoryRegion(MemoryRegion&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MemoryRegion& operator=(MemoryRegion&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }  // what was asked for, in whole pages

 private:
  explicit MemoryRegion(std::span<std::byte> bytes) : bytes_(bytes) {}

  std::span<std::byte> bytes_;
};

}  // namespace din
