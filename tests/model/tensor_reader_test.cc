#include "model/tensor_reader.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/tensor_store.h"

namespace din {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(TensorTest, DescribesTypeAndShape) {
  EXPECT_EQ(Describe(Tensor{DataType::kBF16, {80, 128}}), "BF16 [80, 128]");
  EXPECT_EQ(Describe(Tensor{DataType::kI8, {}}), "I8 []");
}

TEST(TensorTest, SizesAreThoseOfSafetensors) {
  EXPECT_EQ(SizeOf(DataType::kI64), 8u);
  EXPECT_EQ(SizeOf(DataType::kF32), 4u);
  EXPECT_EQ(SizeOf(DataType::kI32), 4u);
  EXPECT_EQ(SizeOf(DataType::kF16), 2u);
  EXPECT_EQ(SizeOf(DataType::kBF16), 2u);
  EXPECT_EQ(SizeOf(DataType::kU8), 1u);
  EXPECT_EQ(SizeOf(DataType::kI8), 1u);
}

TEST(TensorReaderTest, F32IsReadAsIs) {
  TensorStore store;
  store.F32("w", {2, 2}, {1.5f, -0.25f, 1e-45f, 3.4028235e38f});
  TensorReader reader(store.map());
  EXPECT_THAT(*reader.Weights("w", {2, 2}), ElementsAre(1.5, -0.25, double{1e-45f}, double{3.4028235e38f}));
}

// IEEE 754-2008, binary16: the ends of the subnormal and normal ranges, and both zeros.
TEST(TensorReaderTest, F16IsExact) {
  TensorStore store;
  store.Add("w", DataType::kF16, {9},
            std::vector<uint16_t>{0x3c00, 0xc000, 0x3555, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x0000, 0x8000});
  TensorReader reader(store.map());
  const auto w = *reader.Weights("w", {9});
  EXPECT_THAT(w, ElementsAre(1.0, -2.0, 1365.0 / 4096, std::ldexp(1.0, -24), std::ldexp(1023.0, -24),
                             std::ldexp(1.0, -14), 65504.0, 0.0, 0.0));
  EXPECT_TRUE(std::signbit(w[8]));
}

TEST(TensorReaderTest, EveryFiniteF16AgreesWithItsDefinition) {
  std::vector<uint16_t> bits;
  for (uint32_t b = 0; b < 0x10000; ++b) {
    if (((b >> 10) & 0x1f) != 0x1f) bits.push_back(static_cast<uint16_t>(b));
  }
  TensorStore store;
  store.Add("w", DataType::kF16, {static_cast<int64_t>(bits.size())}, bits);
  TensorReader reader(store.map());
  const auto w = *reader.Weights("w", {static_cast<int64_t>(bits.size())});
  for (size_t i = 0; i < bits.size(); ++i) {
    const int exponent = (bits[i] >> 10) & 0x1f;
    const double fraction = (bits[i] & 0x3ff) / 1024.0;
    const double magnitude =
        exponent == 0 ? fraction * std::pow(2.0, -14) : (1.0 + fraction) * std::pow(2.0, exponent - 15);
    ASSERT_EQ(w[i], (bits[i] & 0x8000) != 0 ? -magnitude : magnitude) << bits[i];
  }
}

TEST(TensorReaderTest, Bf16IsTheUpperHalfOfAFloat) {
  TensorStore store;
  store.Add("w", DataType::kBF16, {4}, std::vector<uint16_t>{0x3f80, 0xc040, 0x0001, 0x7f7f});
  TensorReader reader(store.map());
  EXPECT_THAT(*reader.Weights("w", {4}), ElementsAre(1.0, -3.0, std::ldexp(1.0, -133), std::ldexp(255.0, 120)));
}

TEST(TensorReaderTest, ValueThatIsNotFiniteIsRefusedWithItsPlace) {
  const float inf = std::numeric_limits<float>::infinity();
  TensorStore store;
  store.F32("w", {2, 3}, {0, 1, 2, 3, 4, std::nanf("")});
  store.F32("v", {2}, {0, -inf});
  store.Add("h", DataType::kF16, {2}, std::vector<uint16_t>{0, 0x7c00});
  store.Add("b", DataType::kBF16, {1}, std::vector<uint16_t>{0x7fc0});
  TensorReader reader(store.map());
  EXPECT_EQ(Message(reader.Weights("w", {2, 3}).status()), "tensor w: nan at [1, 2], expected finite");
  EXPECT_EQ(Message(reader.Weights("v", {2}).status()), "tensor v: -inf at [1], expected finite");
  EXPECT_EQ(Message(reader.Weights("h", {2}).status()), "tensor h: inf at [1], expected finite");
  EXPECT_EQ(Message(reader.Weights("b", {1}).status()), "tensor b: nan at [0], expected finite");
}

TEST(TensorReaderTest, WrongShapeTypeAndAbsenceNameTensorAndExpectation) {
  TensorStore store;
  store.F32("att0.l0.w", {2, 3}, {0, 0, 0, 0, 0, 0});
  store.I64("ids", {1, 2});
  TensorReader reader(store.map());
  EXPECT_EQ(Message(reader.Weights("att0.l0.w", {3, 2}).status()),
            "tensor att0.l0.w: F32 [2, 3], expected F32/F16/BF16 [3, 2]");
  EXPECT_EQ(Message(reader.Weights("ids", {2}).status()), "tensor ids: I64 [2], expected F32/F16/BF16");
  EXPECT_EQ(Message(reader.Weights("att0.l0.b", {3}).status()), "tensor att0.l0.b: missing");
  EXPECT_EQ(Message(reader.WeightsOrScalar("att0.l0.b", 3).status()), "tensor att0.l0.b: missing");
  EXPECT_EQ(Message(reader.Integers("att0.l0.w", -1).status()), "tensor att0.l0.w: F32 [2, 3], expected I64/I32");
  EXPECT_EQ(Message(reader.Integers("ids", 3).status()), "tensor ids: I64 [2], expected I64/I32 [3]");
  EXPECT_EQ(Message(reader.Raw("ids", {DataType::kU8}).status()), "tensor ids: I64 [2], expected U8");
}

TEST(TensorReaderTest, ShapeThatItsBytesDoNotFillIsRefused) {
  TensorMap map;
  alignas(8) const float two[2] = {1, 2};
  const auto* bytes = reinterpret_cast<const std::byte*>(two);
  map["short"] = Tensor{DataType::kF32, {3}, bytes, sizeof(two)};
  map["overflow"] = Tensor{DataType::kI64, {int64_t{1} << 32, int64_t{1} << 32}, bytes, sizeof(two)};
  map["negative"] = Tensor{DataType::kI64, {-1}, bytes, sizeof(two)};
  TensorReader reader(map);
  EXPECT_EQ(Message(reader.Weights("short", {3}).status()), "tensor short: F32 [3] does not fit its 8 bytes");
  EXPECT_THAT(Message(reader.Raw("overflow", {DataType::kI64}).status()), HasSubstr("does not fit its 8 bytes"));
  EXPECT_THAT(Message(reader.Integers("negative", -1).status()), HasSubstr("does not fit its 8 bytes"));
}

TEST(TensorReaderTest, ScalarIsRepeatedForEveryUnit) {
  TensorStore store;
  store.F32("scalar", {1}, {0.5f});
  store.F32("vector", {3}, {1, 2, 3});
  TensorReader reader(store.map());
  EXPECT_THAT(*reader.WeightsOrScalar("scalar", 3), ElementsAre(0.5, 0.5, 0.5));
  EXPECT_THAT(*reader.WeightsOrScalar("vector", 3), ElementsAre(1, 2, 3));
  EXPECT_EQ(Message(reader.WeightsOrScalar("vector", 4).status()),
            "tensor vector: F32 [3], expected F32/F16/BF16 [4] or [1]");
}

TEST(TensorReaderTest, IntegersTakeBothWidths) {
  TensorStore store;
  store.I64("wide", {-1, int64_t{1} << 40});
  store.I32("narrow", {-1, 7});
  store.I64("none", {});
  TensorReader reader(store.map());
  EXPECT_THAT(*reader.Integers("wide", 2), ElementsAre(-1, int64_t{1} << 40));
  EXPECT_THAT(*reader.Integers("narrow", -1), ElementsAre(-1, 7));
  EXPECT_THAT(*reader.Integers("none", -1), ElementsAre());
}

TEST(TensorReaderTest, StringsAreCutAtOffsets) {
  TensorStore store;
  store.Strings("s", {"ab", "", std::string("\0c", 2)});
  TensorReader reader(store.map());
  EXPECT_THAT(*reader.Strings("s", 3), ElementsAre("ab", "", std::string("\0c", 2)));
  EXPECT_EQ(reader.StringsInPlace("s", -1)->size(), 3u);
  EXPECT_EQ(Message(reader.Strings("s", 2).status()), "tensor s.offsets: I64 [4], expected I64/I32 [3]");
}

TEST(TensorReaderTest, OffsetsThatDoNotCutTheBytesAreRefused) {
  struct Case {
    std::vector<int64_t> offsets;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {{}, "tensor s.offsets: empty, expected at least the offset 0"},
           {{1, 3}, "tensor s.offsets: starts at 1, expected 0"},
           {{0, 2, 1, 3}, "tensor s.offsets: 1 at position 2 < 2 before it"},
           {{0, 4}, "tensor s.offsets: ends at 4, expected 3"},
           {{0, 2}, "tensor s.offsets: ends at 2, expected 3"},
           {{0, std::numeric_limits<int64_t>::min(), 3}, "tensor s.offsets: -9223372036854775808 at position 1 < 0"},
       }) {
    TensorStore store;
    store.Add("s.bytes", DataType::kU8, {3}, std::vector<uint8_t>{'a', 'b', 'c'});
    store.I64("s.offsets", c.offsets);
    TensorReader reader(store.map());
    EXPECT_THAT(Message(reader.Strings("s", -1).status()), HasSubstr(c.message));
  }
}

TEST(TensorReaderTest, UnusedTensorsAreListedUpToTen) {
  TensorStore store;
  for (char c = 'a'; c <= 'm'; ++c) store.I64(std::string(1, c), {1});
  TensorReader reader(store.map());
  ASSERT_TRUE(reader.Integers("b", 1).ok());
  EXPECT_EQ(Message(reader.CheckAllUsed()),
            "tensors that the spec does not use: a, c, d, e, f, g, h, i, j, k and 2 more");
  for (char c = 'a'; c < 'm'; ++c) ASSERT_TRUE(reader.Integers(std::string(1, c), 1).ok());
  EXPECT_EQ(Message(reader.CheckAllUsed()), "tensors that the spec does not use: m");
  ASSERT_TRUE(reader.Raw("m", {DataType::kI64}).ok());
  EXPECT_TRUE(reader.CheckAllUsed().ok());
}

}  // namespace
}  // namespace din
