// Takes tensors out of a TensorMap by name, type and shape, and knows in the end which were not wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tensor.h"

namespace din {

// An I64 or I32 tensor of one dimension, read where it is. Borrowed: lives as long as the tensor's memory.
class IntegerList {
 public:
  IntegerList() = default;
  explicit IntegerList(const Tensor& tensor)  // kI64 or kI32
      : data_(tensor.data), size_(tensor.bytes / SizeOf(tensor.type)), is_i64_(tensor.type == DataType::kI64) {}

  size_t size() const { return size_; }
  int64_t operator[](size_t i) const {
    return is_i64_ ? reinterpret_cast<const int64_t*>(data_)[i] : reinterpret_cast<const int32_t*>(data_)[i];
  }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool is_i64_ = true;
};

// Byte strings side by side, cut at offsets; read where they are. Borrowed like IntegerList.
class StringList {
 public:
  StringList() = default;
  // `offsets` are ascending from 0 to the number of bytes, one more than there are strings.
  StringList(const std::byte* bytes, IntegerList offsets)
      : bytes_(reinterpret_cast<const char*>(bytes)), offsets_(offsets) {}

  size_t size() const { return offsets_.size() == 0 ? 0 : offsets_.size() - 1; }
  std::string_view operator[](size_t i) const {
    return {bytes_ + offsets_[i], static_cast<size_t>(offsets_[i + 1] - offsets_[i])};
  }

 private:
  const char* bytes_ = nullptr;
  IntegerList offsets_;
};

// One thread. Errors are INVALID_ARGUMENT and name the tensor, what it is and what was expected.
class TensorReader {
 public:
  explicit TensorReader(const TensorMap& tensors) : tensors_(tensors) {}

  bool Has(std::string_view name) const { return tensors_.contains(absl::string_view(name.data(), name.size())); }

  // A weight in F32, F16 or BF16 of exactly this shape, finite, as doubles.
  absl::StatusOr<std::vector<double>> Weights(std::string_view name, std::initializer_list<int64_t> shape);
  // A bias that is [units], or [1] and then repeated.
  absl::StatusOr<std::vector<double>> WeightsOrScalar(std::string_view name, int64_t units);
  // I64 or I32 of shape [count]; count -1: any.
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view name, int64_t count);
  absl::StatusOr<IntegerList> IntegersInPlace(std::string_view name, int64_t count);
  // The tensor itself, of one of these types; the caller checks the shape.
  absl::StatusOr<const Tensor*> Raw(std::string_view name, std::initializer_list<DataType> types);
  // The same for an embedding table, of which an overlay may replace rows. All others are without.
  absl::StatusOr<const Tensor*> Table(std::string_view name, std::initializer_list<DataType> types);
  // `<name>.bytes` U8 cut at `<name>.offsets` [count + 1]; count -1: any. The views live as long as the tensors.
  absl::StatusOr<std::vector<std::string_view>> Strings(const std::string& name, int64_t count);
  absl::StatusOr<StringList> StringsInPlace(const std::string& name, int64_t count);
  // `<name>` [count + 1] ascending from 0 to `end`; count -1: any.
  absl::StatusOr<IntegerList> Offsets(std::string_view name, int64_t count, int64_t end);

  // INVALID_ARGUMENT lists tensors that nobody asked for.
  absl::Status CheckAllUsed() const;

 private:
  const TensorMap& tensors_;
  absl::flat_hash_set<std::string> used_;
};

}  // namespace din
