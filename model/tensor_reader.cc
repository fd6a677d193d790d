#include "model/tensor_reader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"

namespace din {
namespace {

constexpr size_t kNamesInError = 10;
constexpr std::initializer_list<DataType> kWeightTypes = {DataType::kF32, DataType::kF16, DataType::kBF16};

std::string Spell(std::initializer_list<DataType> types) {
  return absl::StrJoin(types, "/", [](std::string* out, DataType t) { out->append(Name(t)); });
}

template <typename... Parts>
absl::Status Error(std::string_view name, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", std::string(name), ": ", parts...));
}

absl::Status Unexpected(std::string_view name, const Tensor& tensor, const std::string& expected) {
  return Error(name, Describe(tensor), ", expected ", expected);
}

// The number of elements where it agrees with the bytes; a shape that overflows does not.
std::optional<int64_t> CheckedElements(const Tensor& tensor) {
  const int64_t held = static_cast<int64_t>(tensor.bytes / SizeOf(tensor.type));
  int64_t n = 1;
  bool overflow = false;
  for (int64_t d : tensor.shape) {
    if (d < 0) return std::nullopt;
    overflow |= __builtin_mul_overflow(n, d, &n);
  }
  if (overflow || n != held || tensor.bytes % SizeOf(tensor.type) != 0) return std::nullopt;
  return n;
}

double Bf16ToDouble(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// IEEE 754 binary16: 1 sign, 5 exponent and 10 fraction bits. Every value is exact in a double.
double F16ToDouble(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  double magnitude;
  if (exponent == 0x1f) {
    magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(0x400 + fraction, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

double ElementToDouble(const Tensor& tensor, size_t i) {
  switch (tensor.type) {
    case DataType::kF16:
      return F16ToDouble(reinterpret_cast<const uint16_t*>(tensor.data)[i]);
    case DataType::kBF16:
      return Bf16ToDouble(reinterpret_cast<const uint16_t*>(tensor.data)[i]);
    default:
      return reinterpret_cast<const float*>(tensor.data)[i];
  }
}

std::string IndexOf(size_t element, const std::vector<int64_t>& shape) {
  std::vector<size_t> index(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    index[d] = element % static_cast<size_t>(shape[d]);
    element /= static_cast<size_t>(shape[d]);
  }
  return absl::StrCat("[", absl::StrJoin(index, ", "), "]");
}

}  // namespace

absl::StatusOr<const Tensor*> TensorReader::Raw(std::string_view name, std::initializer_list<DataType> types) {
  absl::StatusOr<const Tensor*> tensor = Table(name, types);
  if (tensor.ok() && (*tensor)->overlay != nullptr) return Error(name, "some of its rows lie elsewhere");
  return tensor;
}

absl::StatusOr<const Tensor*> TensorReader::Table(std::string_view name, std::initializer_list<DataType> types) {
  const auto it = tensors_.find(absl::string_view(name.data(), name.size()));
  if (it == tensors_.end()) return Error(name, "missing");
  const Tensor& tensor = it->second;
  if (std::find(types.begin(), types.end(), tensor.type) == types.end()) {
    return Unexpected(name, tensor, Spell(types));
  }
  if (!CheckedElements(tensor)) return Error(name, Describe(tensor), " does not fit its ", tensor.bytes, " bytes");
  used_.insert(it->first);
  return &tensor;
}

absl::StatusOr<std::vector<double>> TensorReader::Weights(std::string_view name, std::initializer_list<int64_t> shape) {
  const auto it = tensors_.find(absl::string_view(name.data(), name.size()));
  if (it != tensors_.end() && it->second.shape != std::vector<int64_t>(shape)) {
    return Unexpected(name, it->second, absl::StrCat(Spell(kWeightTypes), " [", absl::StrJoin(shape, ", "), "]"));
  }
  DIN_ASSIGN_OR_RETURN(const Tensor* tensor, Raw(name, kWeightTypes));
  std::vector<double> out(static_cast<size_t>(tensor->elements()));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = ElementToDouble(*tensor, i);
    if (!std::isfinite(out[i])) return Error(name, out[i], " at ", IndexOf(i, tensor->shape), ", expected finite");
  }
  return out;
}

absl::StatusOr<std::vector<double>> TensorReader::WeightsOrScalar(std::string_view name, int64_t units) {
  const auto it = tensors_.find(absl::string_view(name.data(), name.size()));
  if (it == tensors_.end()) return Error(name, "missing");
  if (it->second.shape == std::vector<int64_t>{units}) return Weights(name, {units});
  if (it->second.shape != std::vector<int64_t>{1}) {
    return Unexpected(name, it->second, absl::StrCat(Spell(kWeightTypes), " [", units, "] or [1]"));
  }
  DIN_ASSIGN_OR_RETURN(const std::vector<double> scalar, Weights(name, {1}));
  return std::vector<double>(static_cast<size_t>(units), scalar.front());
}

absl::StatusOr<IntegerList> TensorReader::IntegersInPlace(std::string_view name, int64_t count) {
  DIN_ASSIGN_OR_RETURN(const Tensor* tensor, Raw(name, {DataType::kI64, DataType::kI32}));
  if (tensor->shape.size() != 1 || (count >= 0 && tensor->shape[0] != count)) {
    return Unexpected(name, *tensor, count < 0 ? "I64/I32 [any]" : absl::StrCat("I64/I32 [", count, "]"));
  }
  return IntegerList(*tensor);
}

absl::StatusOr<std::vector<int64_t>> TensorReader::Integers(std::string_view name, int64_t count) {
  DIN_ASSIGN_OR_RETURN(const IntegerList list, IntegersInPlace(name, count));
  std::vector<int64_t> out(list.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = list[i];
  return out;
}

absl::StatusOr<IntegerList> TensorReader::Offsets(std::string_view name, int64_t count, int64_t end) {
  DIN_ASSIGN_OR_RETURN(const IntegerList offsets, IntegersInPlace(name, count < 0 ? -1 : count + 1));
  const size_t n = offsets.size();
  if (n == 0) return Error(name, "empty, expected at least the offset 0");
  if (offsets[0] != 0) return Error(name, "starts at ", offsets[0], ", expected 0");
  for (size_t i = 1; i < n; ++i) {
    if (offsets[i] < offsets[i - 1]) {
      return Error(name, offsets[i], " at position ", i, " < ", offsets[i - 1], " before it");
    }
  }
  if (offsets[n - 1] != end) return Error(name, "ends at ", offsets[n - 1], ", expected ", end);
  return offsets;
}

absl::StatusOr<StringList> TensorReader::StringsInPlace(const std::string& name, int64_t count) {
  const std::string bytes_name = name + ".bytes";
  DIN_ASSIGN_OR_RETURN(const Tensor* bytes, Raw(bytes_name, {DataType::kU8}));
  if (bytes->shape.size() != 1) return Unexpected(bytes_name, *bytes, "U8 [any]");
  DIN_ASSIGN_OR_RETURN(const IntegerList offsets,
                       Offsets(name + ".offsets", count, static_cast<int64_t>(bytes->bytes)));
  return StringList(bytes->data, offsets);
}

absl::StatusOr<std::vector<std::string_view>> TensorReader::Strings(const std::string& name, int64_t count) {
  DIN_ASSIGN_OR_RETURN(const StringList list, StringsInPlace(name, count));
  std::vector<std::string_view> out(list.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = list[i];
  return out;
}

absl::Status TensorReader::CheckAllUsed() const {
  std::vector<std::string> unused;
  for (const auto& [name, tensor] : tensors_) {
    if (!used_.contains(name)) unused.push_back(name);
  }
  if (unused.empty()) return absl::OkStatus();
  std::sort(unused.begin(), unused.end());
  const size_t shown = std::min(unused.size(), kNamesInError);
  const std::string names = absl::StrJoin(unused.begin(), unused.begin() + shown, ", ");
  return absl::InvalidArgumentError(
      absl::StrCat("tensors that the spec does not use: ", names,
                   unused.size() > shown ? absl::StrCat(" and ", unused.size() - shown, " more") : ""));
}

}  // namespace din
