// A model in memory: what a snapshot holds, without the files. For tests and benches; misuse ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"

namespace din::testing {

// Says why on stderr.
[[noreturn]] void Die(const std::string& why);

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) Die(value.status().ToString());
  return std::move(value).value();
}

// Moves keep the tensors where they are.
struct RawModel {
  v1::ModelSpec spec;
  TensorMap tensors;  // into `memory`
  std::vector<std::unique_ptr<std::byte[]>> memory;

  // Numbers are rounded to `type`, which is F32, F16 or BF16; or I8 of two dimensions, with `<name>.scale` beside it.
  void AddWeights(const std::string& name, std::initializer_list<int64_t> shape, std::span<const double> values,
                  DataType type = DataType::kF32);
  // I64 or I32 of one dimension.
  void AddIntegers(const std::string& name, std::span<const int64_t> values, DataType type = DataType::kI64);
  // `<name>.bytes` and `<name>.offsets`.
  void AddStrings(const std::string& name, std::span<const std::string> values);
  // Of an F32 tensor, to change.
  std::span<float> Floats(std::string_view name);

 private:
  std::byte* Add(const std::string& name, DataType type, std::vector<int64_t> shape);
};

}  // namespace din::testing
