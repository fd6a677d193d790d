#include "model/tensor.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace din {

std::string_view Name(DataType type) {
  switch (type) {
    case DataType::kF32:
      return "F32";
    case DataType::kF16:
      return "F16";
    case DataType::kBF16:
      return "BF16";
    case DataType::kI64:
      return "I64";
    case DataType::kI32:
      return "I32";
    case DataType::kU8:
      return "U8";
    case DataType::kI8:
      return "I8";
  }
  return "?";
}

size_t SizeOf(DataType type) {
  switch (type) {
    case DataType::kI64:
      return 8;
    case DataType::kF32:
    case DataType::kI32:
      return 4;
    case DataType::kF16:
    case DataType::kBF16:
      return 2;
    case DataType::kU8:
    case DataType::kI8:
      return 1;
  }
  return 1;
}

std::string Describe(const Tensor& tensor) {
  return absl::StrCat(std::string(Name(tensor.type)), " [", absl::StrJoin(tensor.shape, ", "), "]");
}

}  // namespace din
