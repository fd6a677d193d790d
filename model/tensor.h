// Named tensors in memory that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace din {

struct RowOverlay;  // kernels/gather.h

enum class DataType { kF32, kF16, kBF16, kI64, kI32, kU8, kI8 };

// "F32", …: the spelling of safetensors.
std::string_view Name(DataType);
size_t SizeOf(DataType);

// Row-major, little-endian, aligned to its element size at least. Borrowed.
struct Tensor {
  DataType type = DataType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  // Rows that count instead of those in `data`; null: none. Only embedding tables have one, which Gather reads.
  const RowOverlay* overlay = nullptr;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// "F32 [80, 128]".
std::string Describe(const Tensor&);

// Ordered, and found by string_view without a copy.
using TensorMap = std::map<std::string, Tensor, std::less<>>;

}  // namespace din
