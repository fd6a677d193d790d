#include "model_loader/delta.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model/tensor_reader.h"
#include "model_loader/quote.h"

namespace din {
namespace {

constexpr size_t kAlignment = 64;  // of a vector load, and a cache line
constexpr size_t kWordRows = 64;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename... Parts>
absl::Status Invalid(std::string_view name, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(name), ": ", parts...));
}

std::string Prefixed(std::string_view prefix, std::string_view name) { return std::string(prefix) + std::string(name); }

size_t RowsOf(const Tensor& tensor) { return static_cast<size_t>(tensor.shape[0]); }
size_t RowBytes(const Tensor& tensor) { return tensor.bytes / RowsOf(tensor); }

// Rows of one tensor that a delta changes.
struct Patch {
  std::string name;
  const Tensor* base = nullptr;
  IntegerList rows;  // ascending, below RowsOf(*base)
  const std::byte* values = nullptr;
  size_t overlaid = 0;  // rows that lie elsewhere afterwards; 0: the tensor is copied
  size_t at = 0;        // in the memory
};

absl::StatusOr<Patch> CheckPatch(const TensorMap& base, const TensorMap& delta, const std::string& name) {
  const std::string rows_name = Prefixed(kDeltaRows, name), values_name = Prefixed(kDeltaValues, name);
  const auto of_base = base.find(name), rows = delta.find(rows_name), values = delta.find(values_name);
  if (rows == delta.end()) return Invalid(values_name, "without ", rows_name);
  if (values == delta.end()) return Invalid(rows_name, "without ", values_name);
  if (of_base == base.end()) return Invalid(rows_name, "the base has no tensor of this name");
  if (delta.contains(name)) return Invalid(rows_name, "the delta has the whole tensor, too");
  const Tensor& tensor = of_base->second;
  if (tensor.shape.empty() || tensor.bytes == 0)
    return Invalid(rows_name, "the base's ", Describe(tensor), " has no rows");
  const Tensor& r = rows->second;
  if ((r.type != DataType::kI64 && r.type != DataType::kI32) || r.shape.size() != 1) {
    return Invalid(rows_name, Describe(r), ", expected I64/I32 [any]");
  }
  const IntegerList list(r);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] < 0 || list[i] >= tensor.shape[0]) {
      return Invalid(rows_name, "row ", list[i], " at position ", i, " is not in [0, ", tensor.shape[0], ")");
    }
    if (i > 0 && list[i] <= list[i - 1]) {
      return Invalid(rows_name, list[i], " at position ", i, " is not above ", list[i - 1], " before it");
    }
  }
  Tensor expected{.type = tensor.type, .shape = tensor.shape};
  expected.shape[0] = static_cast<int64_t>(list.size());
  const Tensor& v = values->second;
  if (v.type != expected.type || v.shape != expected.shape) {
    return Invalid(values_name, Describe(v), ", expected ", Describe(expected));
  }
  return Patch{.name = name, .base = &tensor, .rows = list, .values = v.data};
}

// Calls visit(row, place among the overlaid rows), ascending.
template <typename Visit>
void ForEachOverlaid(const RowOverlay& overlay, size_t rows, const Visit& visit) {
  size_t place = 0;
  for (size_t word = 0; word * kWordRows < rows; ++word) {
    for (uint64_t bits = overlay.replaced[word]; bits != 0; bits &= bits - 1) {
      visit(word * kWordRows + static_cast<size_t>(std::countr_zero(bits)), place++);
    }
  }
}

size_t OverlaidRows(const Tensor& tensor) {
  size_t rows = 0;
  if (tensor.overlay != nullptr) ForEachOverlaid(*tensor.overlay, RowsOf(tensor), [&](size_t, size_t) { ++rows; });
  return rows;
}

// Rows that lie elsewhere when the patch is on top of what the base has there already.
size_t MergedRows(const Patch& patch) {
  size_t merged = OverlaidRows(*patch.base);
  const RowOverlay* const old = patch.base->overlay;
  for (size_t i = 0; i < patch.rows.size(); ++i)
    merged += old == nullptr || !old->Has(static_cast<size_t>(patch.rows[i]));
  return merged;
}

// Of an overlay: bits, ranks and rows, each aligned.
struct OverlayLayout {
  size_t ranks = 0, rows = 0, bytes = 0;
  OverlayLayout(const Tensor& tensor, size_t overlaid) {
    const size_t words = (RowsOf(tensor) + kWordRows - 1) / kWordRows;
    ranks = Aligned(words * sizeof(uint64_t));
    rows = ranks + Aligned(words * sizeof(uint32_t));
    bytes = rows + Aligned(overlaid * RowBytes(tensor));
  }
};

// Decides where every patched tensor goes; the bytes that takes.
size_t Place(std::vector<Patch>& patches, const DeltaOptions& options) {
  size_t bytes = 0;
  for (Patch& patch : patches) {
    const size_t rows = RowsOf(*patch.base), merged = MergedRows(patch);
    const bool overlay = patch.base->bytes > options.small_bytes && options.tables.contains(patch.name) && merged > 0 &&
                         static_cast<double>(merged) <= options.most_overlaid * static_cast<double>(rows);
    patch.overlaid = overlay ? merged : 0;
    patch.at = bytes;
    bytes += overlay ? OverlayLayout(*patch.base, merged).bytes : Aligned(patch.base->bytes);
  }
  return bytes;
}

// The whole tensor with all its changes in place.
Tensor Copy(const Patch& patch, std::byte* out) {
  const Tensor& base = *patch.base;
  const size_t row_bytes = RowBytes(base);
  std::memcpy(out, base.data, base.bytes);
  if (base.overlay != nullptr) {
    const auto* const rows = static_cast<const std::byte*>(base.overlay->rows);
    ForEachOverlaid(*base.overlay, RowsOf(base), [&](size_t row, size_t place) {
      std::memcpy(out + row * row_bytes, rows + place * row_bytes, row_bytes);
    });
  }
  for (size_t i = 0; i < patch.rows.size(); ++i) {
    std::memcpy(out + static_cast<size_t>(patch.rows[i]) * row_bytes, patch.values + i * row_bytes, row_bytes);
  }
  return {.type = base.type, .shape = base.shape, .data = out, .bytes = base.bytes};
}

// The base's rows that lie elsewhere already and those of the patch, which win, in one overlay: gathering costs the
// same however many deltas there were. `memory` is zeroed.
Tensor Overlay(const Patch& patch, std::byte* memory, RowOverlay& overlay) {
  const Tensor& base = *patch.base;
  const size_t rows = RowsOf(base), row_bytes = RowBytes(base);
  const OverlayLayout layout(base, patch.overlaid);
  auto* const bits = reinterpret_cast<uint64_t*>(memory);
  auto* const ranks = reinterpret_cast<uint32_t*>(memory + layout.ranks);
  if (base.overlay != nullptr)
    std::memcpy(bits, base.overlay->replaced, (rows + kWordRows - 1) / kWordRows * sizeof(uint64_t));
  for (size_t i = 0; i < patch.rows.size(); ++i) {
    const auto row = static_cast<size_t>(patch.rows[i]);
    bits[row / kWordRows] |= uint64_t{1} << row % kWordRows;
  }
  uint32_t rank = 0;
  for (size_t word = 0; word * kWordRows < rows; ++word) {
    ranks[word] = rank;
    rank += static_cast<uint32_t>(std::popcount(bits[word]));
  }
  std::byte* const to = memory + layout.rows;
  overlay = {.replaced = bits, .ranks = ranks, .rows = to};
  if (base.overlay != nullptr) {
    const auto* const from = static_cast<const std::byte*>(base.overlay->rows);
    ForEachOverlaid(*base.overlay, rows, [&](size_t row, size_t place) {
      std::memcpy(to + overlay.PlaceOf(row) * row_bytes, from + place * row_bytes, row_bytes);
    });
  }
  for (size_t i = 0; i < patch.rows.size(); ++i) {
    std::memcpy(to + overlay.PlaceOf(static_cast<size_t>(patch.rows[i])) * row_bytes, patch.values + i * row_bytes,
                row_bytes);
  }
  Tensor result = base;
  result.overlay = &overlay;
  return result;
}

absl::StatusOr<std::vector<Patch>> FindPatches(const TensorMap& base, const TensorMap& delta) {
  std::vector<Patch> patches;
  for (const auto& [name, tensor] : delta) {
    const bool rows = name.starts_with(kDeltaRows), values = name.starts_with(kDeltaValues);
    if (!rows && !values) continue;
    const std::string of = name.substr(rows ? kDeltaRows.size() : kDeltaValues.size());
    if (values && delta.contains(Prefixed(kDeltaRows, of))) continue;  // seen with its rows
    DIN_ASSIGN_OR_RETURN(patches.emplace_back(), CheckPatch(base, delta, of));
  }
  return patches;
}

bool SameLayout(const Tensor& a, const Tensor& b) {
  return a.type == b.type && a.shape == b.shape && a.bytes == b.bytes;
}

// Rows that differ; none when the tensors cannot be compared row by row, or when so many differ that the whole is less.
std::optional<std::vector<int64_t>> ChangedRows(const Tensor& base, const Tensor& next) {
  if (!SameLayout(base, next) || base.shape.empty() || base.bytes == 0) return std::nullopt;
  const size_t row_bytes = RowBytes(base);
  std::vector<int64_t> rows;
  for (size_t row = 0; row < RowsOf(base); ++row) {
    if (std::memcmp(base.data + row * row_bytes, next.data + row * row_bytes, row_bytes) != 0) {
      rows.push_back(static_cast<int64_t>(row));
    }
  }
  if (rows.size() * (row_bytes + sizeof(int64_t)) >= base.bytes) return std::nullopt;
  return rows;
}

}  // namespace

bool TensorMemory::Holds(const Tensor& tensor) const {
  const auto inside = [&](const void* p) {
    const std::less<const void*> before;
    return region.size() > 0 && !before(p, region.data()) && before(p, region.data() + region.size());
  };
  if (inside(tensor.data)) return true;
  return tensor.overlay != nullptr && inside(tensor.overlay->rows);
}

absl::StatusOr<AppliedDelta> ApplyDelta(const TensorMap& base, const TensorMap& delta, const DeltaOptions& options) {
  DIN_ASSIGN_OR_RETURN(std::vector<Patch> patches, FindPatches(base, delta));
  AppliedDelta result;
  result.tensors = base;
  for (const auto& [name, tensor] : delta) {
    if (!name.starts_with(kDeltaRows) && !name.starts_with(kDeltaValues)) result.tensors[name] = tensor;
  }
  const size_t bytes = Place(patches, options);
  if (options.room_for && bytes > 0) DIN_RETURN_IF_ERROR(options.room_for(bytes));
  DIN_ASSIGN_OR_RETURN(result.memory.region, MemoryRegion::Create(bytes));
  for (const Patch& patch : patches) {
    std::byte* const at = result.memory.region.data() + patch.at;
    result.tensors[patch.name] =
        patch.overlaid == 0 ? Copy(patch, at) : Overlay(patch, at, result.memory.overlays.emplace_back());
  }
  return result;
}

absl::Status TidyMemory(TensorMap& tensors, std::vector<std::shared_ptr<const TensorMemory>>& memory) {
  std::vector<Tensor*> moved;
  size_t bytes = 0;
  const std::vector<std::shared_ptr<const TensorMemory>> until_moved = memory;
  std::erase_if(memory, [&](const std::shared_ptr<const TensorMemory>& one) {
    std::vector<Tensor*> inside;
    size_t used = 0;
    bool movable = true;
    for (auto& [name, tensor] : tensors) {
      if (!one->Holds(tensor)) continue;
      inside.push_back(&tensor);
      used += Aligned(tensor.bytes);
      movable &= tensor.overlay == nullptr;
    }
    // What is moved is there twice until the base is gone, so it should be little.
    if (!movable || used > one->region.size() / 4) return false;
    moved.insert(moved.end(), inside.begin(), inside.end());
    bytes += used;
    return true;
  });
  if (moved.empty()) return absl::OkStatus();
  auto rest = std::make_shared<TensorMemory>();
  DIN_ASSIGN_OR_RETURN(rest->region, MemoryRegion::Create(bytes));
  std::byte* at = rest->region.data();
  for (Tensor* tensor : moved) {
    std::copy(tensor->data, tensor->data + tensor->bytes, at);
    tensor->data = at;
    at += Aligned(tensor->bytes);
  }
  memory.push_back(std::move(rest));
  return absl::OkStatus();
}

absl::StatusOr<TensorDifference> DiffTensors(const TensorMap& base, const TensorMap& next) {
  TensorDifference difference;
  for (const auto& [name, tensor] : base) {
    if (!next.contains(name))
      return Invalid(name, "the base has it, the new version does not; publish that one in full");
  }
  for (const auto& [name, tensor] : next) {
    const auto old = base.find(name);
    const std::optional<std::vector<int64_t>> rows =
        old == base.end() ? std::nullopt : ChangedRows(old->second, tensor);
    if (!rows) {
      if (old != base.end() && SameLayout(old->second, tensor) &&
          std::equal(tensor.data, tensor.data + tensor.bytes, old->second.data)) {
        ++difference.unchanged;
      } else {
        difference.tensors[name] = tensor;
      }
      continue;
    }
    if (rows->empty()) {
      ++difference.unchanged;
      continue;
    }
    const size_t row_bytes = RowBytes(tensor);
    std::vector<std::byte>& numbers = difference.memory.emplace_back(rows->size() * sizeof(int64_t));
    std::memcpy(numbers.data(), rows->data(), numbers.size());
    std::vector<std::byte>& values = difference.memory.emplace_back(rows->size() * row_bytes);
    for (size_t i = 0; i < rows->size(); ++i) {
      std::memcpy(values.data() + i * row_bytes, tensor.data + static_cast<size_t>((*rows)[i]) * row_bytes, row_bytes);
    }
    Tensor picked = tensor;
    picked.shape[0] = static_cast<int64_t>(rows->size());
    picked.data = values.data();
    picked.bytes = values.size();
    difference.tensors[Prefixed(kDeltaValues, name)] = picked;
    difference.tensors[Prefixed(kDeltaRows, name)] = {.type = DataType::kI64,
                                                      .shape = {static_cast<int64_t>(rows->size())},
                                                      .data = numbers.data(),
                                                      .bytes = numbers.size()};
    difference.changed_rows.emplace_back(name, rows->size());
  }
  return difference;
}

}  // namespace din
