// One safetensors file: 8 bytes of header length, a JSON header, the data. FORMAT.md has the details.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tensor.h"

namespace din {

struct SafetensorsEntry {
  std::string name;
  DataType type = DataType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // in the data
  uint64_t end = 0;
};

struct SafetensorsHeader {
  uint64_t data_begin = 0;                // in the file
  std::vector<SafetensorsEntry> entries;  // ascending by place in the data, which they fill without gap or overlap
};

struct SafetensorsLimits {
  size_t header_bytes = 0;
  size_t tensors = 0;
};

// Where the data begins in a file with these first bytes, as they claim: nothing is checked. 0 for less than 8 bytes.
uint64_t ClaimedDataBegin(std::string_view first_bytes);

// `head`: the file's beginning, at least until the end of the header (or all of the file when it is shorter).
// Everything that follows from the header is checked: sizes, shapes, offsets, names. INVALID_ARGUMENT with the tensor
// and the reason.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view head, uint64_t file_size,
                                                         const SafetensorsLimits& limits);

// A tensor's place in a file that is to be written.
struct NamedTensor {
  std::string name;
  const Tensor* tensor = nullptr;
};

// The order in which they are best written: larger powers of two (64 at most) that divide the size in bytes come first,
// then names ascend. The format allows no gaps, so in this order every tensor is aligned to its element size, and those
// whose size is a multiple of 64 bytes, which all large tables are, to a cache line.
void SortForWriting(std::vector<NamedTensor>& tensors);

// The 8 bytes and the header of a file that holds these tensors in this order, padded with spaces to a multiple of 64.
std::string FormatSafetensorsHeader(const std::vector<NamedTensor>& tensors);

// INVALID_ARGUMENT for the first element of [begin, end) that is NaN or infinite: its coordinates and its value.
// Tensors of integers are always fine.
absl::Status CheckFinite(const Tensor& tensor, size_t begin, size_t end);

}  // namespace din
