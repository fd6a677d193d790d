// A small snapshot to write, spoil and read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/snapshot.h"
#include "model_loader/snapshot_writer.h"
#include "tests/temp_directory.h"

namespace din {

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(out.flush()) << path;
}

inline std::vector<std::string> Entries(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Tensors whose memory this owns.
class OwnedTensors {
 public:
  template <typename T>
  void Add(const std::string& name, DataType type, std::vector<int64_t> shape, const std::vector<T>& values) {
    std::vector<std::byte>& bytes = memory_.emplace_back(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    map_[name] = {.type = type, .shape = std::move(shape), .data = bytes.data(), .bytes = bytes.size()};
  }
  const TensorMap& map() const { return map_; }

 private:
  std::deque<std::vector<std::byte>> memory_;
  TensorMap map_;
};

// One tensor of every type, of odd sizes, besides an empty one and a scalar.
inline OwnedTensors SmallTensors() {
  OwnedTensors t;
  t.Add<float>("table.item", DataType::kF32, {8, 4}, std::vector<float>(32, 0.25f));
  t.Add<float>("bias.global", DataType::kF32, {1}, {-0.0f});
  t.Add<float>("scalar", DataType::kF32, {}, {1.5f});
  t.Add<uint16_t>("table.half", DataType::kF16, {3}, {0x3C00, 0x7BFF, 0x8000});
  t.Add<uint16_t>("table.brain", DataType::kBF16, {1, 1}, {0x3F80});
  t.Add<int64_t>("vocab.item.keys", DataType::kI64, {3}, {-1, 0, INT64_MAX});
  t.Add<int32_t>("side.category.values", DataType::kI32, {2}, {7, -7});
  t.Add<uint8_t>("side.title.values.bytes", DataType::kU8, {5}, {0xFF, 0, 1, 2, 3});
  t.Add<int8_t>("rows", DataType::kI8, {3, 1}, {-128, 0, 127});
  t.Add<float>("empty", DataType::kF32, {0, 4}, {});
  return t;
}

inline v1::GoldenCase SmallGoldenCase() {
  v1::GoldenCase golden;
  golden.set_id("case 1");
  v1::Column* column = golden.add_candidates();
  column->set_name("item");
  column->add_ids(1);
  column->add_ids(INT64_MIN);
  golden.add_scores(0.1f);
  golden.add_scores(1.0f);
  golden.set_tolerance(1e-5);
  return golden;
}

// `tensors` must outlive the contents.
inline SnapshotContents SmallContents(const OwnedTensors& tensors) {
  SnapshotContents contents;
  contents.spec.set_format(1);
  contents.spec.set_description("small \u00e9");
  contents.tensors = tensors.map();
  contents.golden.push_back(SmallGoldenCase());
  return contents;
}

// Publishes the small snapshot and returns its directory.
inline std::string WriteSmallSnapshot(const TempDirectory& root, int64_t version = 1) {
  const OwnedTensors tensors = SmallTensors();
  const absl::Status status = WriteSnapshot(root / "model", version, SmallContents(tensors));
  EXPECT_TRUE(status.ok()) << status;
  return root / ("model/" + std::to_string(version));
}

// Has this code, and a message with all these parts.
inline void ExpectError(const absl::Status& status, absl::StatusCode code, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), code) << status;
  const std::string message(status.message().data(), status.message().size());
  for (const std::string& part : parts) EXPECT_THAT(message, ::testing::HasSubstr(part));
}

}  // namespace din
