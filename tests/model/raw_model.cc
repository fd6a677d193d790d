#include "tests/model/raw_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "kernels/int8_rows.h"

namespace din::testing {
namespace {

// Rounded to nearest, ties to even.
uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The same, of |value| < 65504.
uint16_t ToF16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  exponent = std::max(exponent, -13);  // below: subnormal, in steps of 2^-24
  const auto fraction = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));
  // A fraction in [1024, 2048) counts 1024 towards the exponent field, which is exponent + 14.
  return static_cast<uint16_t>(sign | ((exponent + 13) * 1024 + fraction));
}

}  // namespace

void Die(const std::string& why) {
  std::cerr << why << std::endl;
  std::abort();
}

std::byte* RawModel::Add(const std::string& name, DataType type, std::vector<int64_t> shape) {
  Tensor tensor;
  tensor.type = type;
  tensor.shape = std::move(shape);
  tensor.bytes = static_cast<size_t>(tensor.elements()) * SizeOf(type);
  memory.push_back(std::make_unique<std::byte[]>(tensor.bytes));
  tensor.data = memory.back().get();
  if (!tensors.emplace(name, tensor).second) Die(name + " is there twice");
  return memory.back().get();
}

void RawModel::AddWeights(const std::string& name, std::initializer_list<int64_t> shape, std::span<const double> values,
                          DataType type) {
  std::byte* out = Add(name, type, shape);
  if (tensors.at(name).elements() != static_cast<int64_t>(values.size())) Die(name + ": shape and values differ");
  if (type == DataType::kI8) {
    const std::vector<float> numbers(values.begin(), values.end());
    const auto rows = static_cast<size_t>(*shape.begin()), dim = numbers.size() / rows;
    auto* scales = reinterpret_cast<float*>(Add(name + ".scale", DataType::kF32, {*shape.begin()}));
    for (size_t r = 0; r < rows; ++r) {
      scales[r] = QuantizeRow(std::span(numbers).subspan(r * dim, dim), reinterpret_cast<int8_t*>(out) + r * dim);
    }
    return;
  }
  for (double value : values) {
    const auto number = static_cast<float>(value);
    if (type == DataType::kF32) {
      std::memcpy(out, &number, sizeof number);
    } else {
      const uint16_t half = type == DataType::kF16 ? ToF16(number) : ToBf16(number);
      std::memcpy(out, &half, sizeof half);
    }
    out += SizeOf(type);
  }
}

void RawModel::AddIntegers(const std::string& name, std::span<const int64_t> values, DataType type) {
  std::byte* out = Add(name, type, {static_cast<int64_t>(values.size())});
  for (int64_t value : values) {
    std::memcpy(out, &value, SizeOf(type));  // little-endian: an int32 is the lower half
    out += SizeOf(type);
  }
}

void RawModel::AddStrings(const std::string& name, std::span<const std::string> values) {
  std::string bytes;
  std::vector<int64_t> offsets = {0};
  for (const std::string& value : values) {
    bytes += value;
    offsets.push_back(static_cast<int64_t>(bytes.size()));
  }
  std::byte* out = Add(name + ".bytes", DataType::kU8, {static_cast<int64_t>(bytes.size())});
  std::memcpy(out, bytes.data(), bytes.size());
  AddIntegers(name + ".offsets", offsets);
}

std::span<float> RawModel::Floats(std::string_view name) {
  const auto it = tensors.find(name);
  if (it == tensors.end() || it->second.type != DataType::kF32) Die(std::string(name) + ": no such F32 tensor");
  // Tensors are borrowed as const; these bytes are ours.
  auto* data = reinterpret_cast<float*>(const_cast<std::byte*>(it->second.data));
  return {data, it->second.bytes / sizeof(float)};
}

}  // namespace din::testing
