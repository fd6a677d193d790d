// ApplyDelta on whatever tensors a file holds, over a base that has been changed before: what it takes lies inside the
// memory that there is, and with an overlay every row is what it is in a copy.
#include "model_loader/delta.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "model_loader/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr int64_t kRows = 130, kDim = 3;

// A table, two of whose rows lie elsewhere already, a list, a scalar and an empty tensor.
class Base {
 public:
  Base() : table_(kRows * kDim), list_(7), changed_(2 * kDim, 9), rows_{1, 64} {
    for (size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<float>(i);
    const din::TensorMap plain = {{"t", Floats(table_, {kRows, kDim})},
                                  {"list", Floats(list_, {7})},
                                  {"scalar", Floats({table_.data(), 1}, {})},
                                  {"empty", Floats({table_.data(), 0}, {0, 4})}};
    const din::TensorMap delta = {{"delta.rows.t",
                                   {.type = din::DataType::kI64,
                                    .shape = {2},
                                    .data = reinterpret_cast<const std::byte*>(rows_.data()),
                                    .bytes = rows_.size() * sizeof(int64_t)}},
                                  {"delta.values.t", Floats(changed_, {2, kDim})}};
    auto applied = din::ApplyDelta(plain, delta, {.tables = {"t"}, .most_overlaid = 1, .small_bytes = 0});
    FUZZ_CHECK(applied.ok());
    memory_ = std::move(applied->memory);
    tensors = std::move(applied->tensors);
    FUZZ_CHECK(tensors.at("t").overlay != nullptr);
  }

  din::TensorMap tensors;

 private:
  static din::Tensor Floats(std::span<const float> values, std::vector<int64_t> shape) {
    return {.type = din::DataType::kF32,
            .shape = std::move(shape),
            .data = reinterpret_cast<const std::byte*>(values.data()),
            .bytes = values.size_bytes()};
  }

  std::vector<float> table_, list_, changed_;
  std::vector<int64_t> rows_;
  din::TensorMemory memory_;
};

// Every byte of the tensor, its rows where they count.
std::string BytesOf(const din::Tensor& tensor) {
  std::string bytes(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
  if (tensor.overlay == nullptr) return bytes;
  const auto rows = static_cast<size_t>(tensor.shape[0]);
  const size_t row_bytes = tensor.bytes / rows;
  for (size_t row = 0; row < rows; ++row) {
    if (!tensor.overlay->Has(row)) continue;
    const char* const from = static_cast<const char*>(tensor.overlay->rows) + tensor.overlay->PlaceOf(row) * row_bytes;
    std::memcpy(bytes.data() + row * row_bytes, from, row_bytes);
  }
  return bytes;
}

void Apply(const Base& base, const din::TensorMap& delta) {
  auto overlaid = din::ApplyDelta(base.tensors, delta, {.tables = {"t"}, .most_overlaid = 1, .small_bytes = 0});
  const auto copied = din::ApplyDelta(base.tensors, delta, {});
  FUZZ_CHECK(overlaid.ok() == copied.ok());
  if (!overlaid.ok()) return;
  FUZZ_CHECK(overlaid->tensors.size() == copied->tensors.size());
  for (const auto& [name, tensor] : overlaid->tensors) {
    FUZZ_CHECK(!name.starts_with(din::kDeltaRows) && !name.starts_with(din::kDeltaValues));
    FUZZ_CHECK(static_cast<uint64_t>(tensor.elements()) * din::SizeOf(tensor.type) == tensor.bytes);
    FUZZ_CHECK(BytesOf(tensor) == BytesOf(copied->tensors.at(name)));
  }
  std::vector<std::shared_ptr<const din::TensorMemory>> memory = {
      std::make_shared<din::TensorMemory>(std::move(overlaid->memory))};
  din::TensorMap tidied = overlaid->tensors;
  FUZZ_CHECK(din::TidyMemory(tidied, memory).ok());
  for (const auto& [name, tensor] : tidied) FUZZ_CHECK(BytesOf(tensor) == BytesOf(copied->tensors.at(name)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const base = new Base;
  const std::string_view file = din::AsText(data, size);
  // The length in front is made right: the header's reader has a target of its own.
  const size_t end = file.rfind('}');
  if (size <= 8 || end == std::string_view::npos || end < 8) return 0;
  std::string bytes(file);
  const uint64_t length = end + 1 - 8;
  std::memcpy(bytes.data(), &length, 8);
  const auto header = din::ParseSafetensorsHeader(bytes, bytes.size(), {.header_bytes = 1 << 20, .tensors = 1000});
  if (!header.ok()) return 0;
  std::vector<uint64_t> memory((bytes.size() - header->data_begin) / 8 + 1);
  std::memcpy(memory.data(), bytes.data() + header->data_begin, bytes.size() - header->data_begin);
  din::TensorMap delta;
  for (const din::SafetensorsEntry& entry : header->entries) {
    delta[entry.name] = {.type = entry.type,
                         .shape = entry.shape,
                         .data = reinterpret_cast<const std::byte*>(memory.data()) + entry.begin,
                         .bytes = entry.end - entry.begin};
  }
  Apply(*base, delta);
  return 0;
}
