// Tensors for tests: owns their bytes, hands out the TensorMap.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "model/tensor.h"

namespace din {

class TensorStore {
 public:
  template <typename T>
  void Add(const std::string& name, DataType type, std::vector<int64_t> shape, const std::vector<T>& elements) {
    // 64-bit words, so that every type is aligned.
    const size_t bytes = elements.size() * sizeof(T);
    std::vector<uint64_t>& memory = memory_.emplace_back(bytes / sizeof(uint64_t) + 1);
    if (bytes > 0) std::memcpy(memory.data(), elements.data(), bytes);
    map_[name] = Tensor{type, std::move(shape), reinterpret_cast<const std::byte*>(memory.data()), bytes};
  }
  void I64(const std::string& name, const std::vector<int64_t>& elements) {
    Add(name, DataType::kI64, {static_cast<int64_t>(elements.size())}, elements);
  }
  void I32(const std::string& name, const std::vector<int32_t>& elements) {
    Add(name, DataType::kI32, {static_cast<int64_t>(elements.size())}, elements);
  }
  void F32(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& elements) {
    Add(name, DataType::kF32, std::move(shape), elements);
  }
  // `<name>.bytes` and `<name>.offsets`.
  void Strings(const std::string& name, const std::vector<std::string>& strings) {
    std::vector<uint8_t> bytes;
    std::vector<int64_t> offsets = {0};
    for (const std::string& s : strings) {
      bytes.insert(bytes.end(), s.begin(), s.end());
      offsets.push_back(static_cast<int64_t>(bytes.size()));
    }
    Add(name + ".bytes", DataType::kU8, {static_cast<int64_t>(bytes.size())}, bytes);
    I64(name + ".offsets", offsets);
  }
  void Remove(const std::string& name) { map_.erase(name); }

  const TensorMap& map() const { return map_; }

 private:
  std::deque<std::vector<uint64_t>> memory_;
  TensorMap map_;
};

}  // namespace din
