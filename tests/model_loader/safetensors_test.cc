#include "model_loader/safetensors.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

constexpr SafetensorsLimits kLimits = {.header_bytes = 1 << 20, .tensors = 100};

std::string LengthBytes(uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

absl::StatusOr<SafetensorsHeader> Parse(const std::string& header, uint64_t data_bytes) {
  const std::string head = LengthBytes(header.size()) + header;
  return ParseSafetensorsHeader(head, head.size() + data_bytes, kLimits);
}

// One tensor "t" that the header describes so; 16 bytes of data.
absl::Status ParseOne(const std::string& description) { return Parse("{\"t\":" + description + "}", 16).status(); }

TEST(SafetensorsHeaderTest, ReadsWhatLibrariesWrite) {
  // As the Python package writes it: metadata first, padded to a multiple of 8.
  const auto header = Parse(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                            R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},)"
                            R"("e":{"dtype":"U8","shape":[0,3],"data_offsets":[8,8]}}   )",
                            16);
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->entries.size(), 3u);
  EXPECT_EQ(header->entries[0].name, "b");
  EXPECT_EQ(header->entries[1].name, "e");
  EXPECT_EQ(header->entries[2].name, "a");
  EXPECT_EQ(header->entries[2].type, DataType::kF32);
  EXPECT_EQ(header->entries[2].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(header->entries[2].begin, 8u);
  EXPECT_EQ(header->entries[2].end, 16u);
  EXPECT_TRUE(Parse("{}", 0).ok());
}

TEST(SafetensorsHeaderTest, LiesAboutItsLength) {
  const std::string header = "{}";
  const auto parse = [&](uint64_t length, uint64_t file_size) {
    return ParseSafetensorsHeader(LengthBytes(length) + header, file_size, kLimits).status();
  };
  EXPECT_TRUE(parse(2, 10).ok());
  ExpectError(parse(3, 10), StatusCode::kInvalidArgument, {"byte 0: header of 3 bytes, but 2 are left"});
  ExpectError(parse(1, 10), StatusCode::kInvalidArgument, {"header: byte 1"});
  ExpectError(parse(0, 10), StatusCode::kInvalidArgument, {"byte 8: the header does not begin with '{'"});
  ExpectError(parse(UINT64_MAX, 10), StatusCode::kInvalidArgument, {"header of 18446744073709551615 bytes"});
  ExpectError(parse(UINT64_MAX - 7, 10), StatusCode::kInvalidArgument, {"header of 18446744073709551608 bytes"});
  ExpectError(parse((1 << 20) + 1, 1 << 30), StatusCode::kInvalidArgument, {"header: 1048577 bytes > limit 1048576"});
  ExpectError(ParseSafetensorsHeader("1234567", 7, kLimits).status(), StatusCode::kInvalidArgument,
              {"7 bytes are too short"});
  ExpectError(ParseSafetensorsHeader("", 0, kLimits).status(), StatusCode::kInvalidArgument, {"0 bytes are too short"});
}

TEST(SafetensorsHeaderTest, ClaimedDataBeginNeverFails) {
  EXPECT_EQ(ClaimedDataBegin(LengthBytes(56)), 64u);
  EXPECT_EQ(ClaimedDataBegin(LengthBytes(UINT64_MAX)), 7u);
  EXPECT_EQ(ClaimedDataBegin("1234567"), 0u);
}

TEST(SafetensorsHeaderTest, EveryFaultOfATensorIsNamed) {
  const struct {
    std::string description;
    std::string message;
  } cases[] = {
      {R"([])", "not an object of exactly dtype, shape and data_offsets"},
      {R"({"dtype":"F32","shape":[4]})", "not an object of exactly"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[0,16],"more":1})", "not an object of exactly"},
      {R"({"dtype":"F32","shape":[4],"offsets":[0,16]})", "not an object of exactly"},
      {R"({"dtype":"F64","shape":[2],"data_offsets":[0,16]})",
       "dtype \"F64\": not one of F32, F16, BF16, I64, I32, U8, I8"},
      {R"({"dtype":"f32","shape":[4],"data_offsets":[0,16]})", "dtype \"f32\""},
      {R"({"dtype":4,"shape":[4],"data_offsets":[0,16]})", "dtype \"\""},
      {R"({"dtype":"F32","shape":4,"data_offsets":[0,16]})", "shape is not an array"},
      {R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})", "shape[0] is not an integer in [0, 2^63)"},
      {R"({"dtype":"F32","shape":[1,4.0],"data_offsets":[0,16]})", "shape[1] is not an integer in [0, 2^63)"},
      {R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,16]})",
       "shape[0] is not an integer in [0, 2^63)"},
      {R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]})", "rank: 9 > limit 8"},
      {R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]})", "more than 2^63 - 1 bytes"},
      {R"({"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]})",
       "more than 2^63 - 1 bytes"},
      {R"({"dtype":"F32","shape":[2305843009213693953],"data_offsets":[0,4]})", "more than 2^63 - 1 bytes"},
      {R"({"dtype":"F32","shape":[5],"data_offsets":[0,16]})", "F32 [5] is 20 bytes, data_offsets [0, 16] are 16"},
      {R"({"dtype":"F32","shape":[],"data_offsets":[0,16]})", "F32 [] is 4 bytes"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})", "data_offsets [16, 0]: begin > end"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[0]})", "data_offsets is not [begin, end]"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[0,16.0]})", "data_offsets is not [begin, end]"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[-16,0]})", "data_offsets is not [begin, end]"},
      {R"({"dtype":"F32","shape":[5],"data_offsets":[0,20]})", "data_offsets [0, 20], but the data has 16 bytes"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[4,16]})", "begins at 4, but no tensor has the bytes from 0"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[2,10]})", "begin at 2, not a multiple of the element's 4 bytes"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.description);
    ExpectError(ParseOne(c.description), StatusCode::kInvalidArgument, {"tensor \"t\": ", c.message});
  }
  ExpectError(ParseOne(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})"), StatusCode::kInvalidArgument,
              {"data: no tensor has the bytes [12, 16)"});
  ExpectError(ParseOne(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16],"shape":[4]})"),
              StatusCode::kInvalidArgument, {"header: byte ", "key \"shape\" twice"});
  ExpectError(ParseOne(R"({"dtype":"F32","shape":[[4]],"data_offsets":[0,16]})"), StatusCode::kInvalidArgument,
              {"depth: more than 3 levels"});
  EXPECT_TRUE(ParseOne(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})").ok());
}

TEST(SafetensorsHeaderTest, TensorsFillTheDataWithoutOverlapOrHole) {
  const auto two = [](const std::string& a, const std::string& b) {
    return Parse(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":)" + a +
                     R"(},"b":{"dtype":"U8","shape":[8],"data_offsets":)" + b + "}}",
                 16)
        .status();
  };
  EXPECT_TRUE(two("[0,8]", "[8,16]").ok());
  EXPECT_TRUE(two("[8,16]", "[0,8]").ok());
  ExpectError(two("[0,8]", "[4,12]"), StatusCode::kInvalidArgument,
              {"tensor \"b\": begins at 4, inside another that ends at 8"});
  ExpectError(two("[0,8]", "[0,8]"), StatusCode::kInvalidArgument, {"tensor \"b\": begins at 0, inside another"});
  ExpectError(two("[0,8]", "[9,17]"), StatusCode::kInvalidArgument,
              {"tensor \"b\": data_offsets [9, 17], but the data has 16"});
  ExpectError(two("[1,9]", "[9,17]"), StatusCode::kInvalidArgument,
              {"tensor \"a\": begins at 1, but no tensor has the bytes from 0"});
}

TEST(SafetensorsHeaderTest, NamesAreBoundedAndPrintable) {
  const auto named = [](const std::string& name) {
    return Parse("{\"" + name + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0).status();
  };
  EXPECT_TRUE(named("table.\u5546\u54c1/x:0 \u00e9").ok());
  EXPECT_TRUE(named(std::string(512, 'x')).ok());
  ExpectError(named(""), StatusCode::kInvalidArgument, {"tensor name \"\": 0 bytes, must be 1 to 512"});
  ExpectError(named(std::string(513, 'x')), StatusCode::kInvalidArgument, {"513 bytes, must be 1 to 512"});
  ExpectError(named("a\\u001b[31m"), StatusCode::kInvalidArgument, {"tensor name \"a\\x1b[31m\": control characters"});
  ExpectError(named("\\u0000"), StatusCode::kInvalidArgument, {"control characters"});
  ExpectError(named("\\u007f"), StatusCode::kInvalidArgument, {"control characters"});
  ExpectError(named("\\u009b"), StatusCode::kInvalidArgument, {"control characters"});
  ExpectError(named("\xFF"), StatusCode::kInvalidArgument, {"header: byte 2"});
}

TEST(SafetensorsHeaderTest, MetadataIsStringsOnly) {
  EXPECT_TRUE(Parse(R"({"__metadata__":{}})", 0).ok());
  for (const std::string bad : {"1", "[]", "\"x\"", R"({"a":1})", R"({"a":{}})"}) {
    ExpectError(Parse(R"({"__metadata__":)" + bad + "}", 0).status(), StatusCode::kInvalidArgument,
                {"__metadata__: not an object of strings"});
  }
}

TEST(SafetensorsHeaderTest, TensorsAreCounted) {
  std::string header = R"({"__metadata__":{})";
  for (int i = 0; i < 100; ++i) {
    header += ",\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  EXPECT_TRUE(Parse(header + "}", 0).ok());
  ExpectError(Parse(header + R"(,"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0).status(),
              StatusCode::kInvalidArgument, {"tensors: ", "limit 100"});
}

TEST(SafetensorsWriteTest, WhatIsFormattedIsReadBackAligned) {
  OwnedTensors owned = SmallTensors();
  owned.Add<float>("\"quoted\" \u00e9", DataType::kF32, {16}, std::vector<float>(16));
  owned.Add<float>("wide", DataType::kF32, {4, 16}, std::vector<float>(64));
  std::vector<NamedTensor> tensors;
  uint64_t data_bytes = 0;
  for (const auto& [name, tensor] : owned.map()) {
    tensors.push_back({name, &tensor});
    data_bytes += tensor.bytes;
  }
  SortForWriting(tensors);
  const std::string head = FormatSafetensorsHeader(tensors);
  EXPECT_EQ(head.size() % 64, 0u);
  const auto header = ParseSafetensorsHeader(head, head.size() + data_bytes, kLimits);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->data_begin, head.size());
  ASSERT_EQ(header->entries.size(), owned.map().size());
  for (const SafetensorsEntry& entry : header->entries) {
    const auto at = owned.map().find(entry.name);
    ASSERT_NE(at, owned.map().end()) << entry.name;
    EXPECT_EQ(entry.type, at->second.type);
    EXPECT_EQ(entry.shape, at->second.shape);
    EXPECT_TRUE(at->second.bytes % 64 != 0 || entry.begin % 64 == 0) << entry.name;
  }
}

template <typename Word>
absl::Status CheckOne(DataType type, Word word, size_t count, size_t at) {
  std::vector<Word> values(count, Word{1});
  values[at] = word;
  const Tensor tensor{.type = type,
                      .shape = {static_cast<int64_t>(count)},
                      .data = reinterpret_cast<const std::byte*>(values.data()),
                      .bytes = count * sizeof(Word)};
  return CheckFinite(tensor, 0, count);
}

TEST(CheckFiniteTest, FindsTheElementAtEveryPosition) {
  for (const size_t count : {size_t{1}, size_t{15}, size_t{1024}, size_t{1025}, size_t{2100}}) {
    for (size_t at = 0; at < count; ++at) {
      ASSERT_EQ(CheckOne<uint32_t>(DataType::kF32, 0x7F800000u, count, at),
                absl::InvalidArgumentError("element [" + std::to_string(at) + "] is inf"));
      ASSERT_FALSE(CheckOne<uint16_t>(DataType::kBF16, 0x7FC0, count, at).ok());
    }
  }
}

TEST(CheckFiniteTest, TellsNanFromInfinityInEveryType) {
  const auto expect = [](const absl::Status& status, const std::string& value) {
    EXPECT_EQ(status, absl::InvalidArgumentError("element [1] is " + value));
  };
  expect(CheckOne<uint32_t>(DataType::kF32, 0xFF800000u, 3, 1), "-inf");
  expect(CheckOne<uint32_t>(DataType::kF32, 0x7F800001u, 3, 1), "nan");
  expect(CheckOne<uint32_t>(DataType::kF32, 0xFFFFFFFFu, 3, 1), "nan");
  expect(CheckOne<uint16_t>(DataType::kF16, 0x7C00, 3, 1), "inf");
  expect(CheckOne<uint16_t>(DataType::kF16, 0xFC00, 3, 1), "-inf");
  expect(CheckOne<uint16_t>(DataType::kF16, 0x7C01, 3, 1), "nan");
  expect(CheckOne<uint16_t>(DataType::kBF16, 0x7F80, 3, 1), "inf");
  expect(CheckOne<uint16_t>(DataType::kBF16, 0xFF80, 3, 1), "-inf");
  expect(CheckOne<uint16_t>(DataType::kBF16, 0xFFC0, 3, 1), "nan");
}

TEST(CheckFiniteTest, TheLargestFiniteNumbersAndAllIntegersPass) {
  EXPECT_TRUE(CheckOne<uint32_t>(DataType::kF32, 0xFF7FFFFFu, 3, 1).ok());
  EXPECT_TRUE(CheckOne<uint16_t>(DataType::kF16, 0x7BFF, 3, 1).ok());
  EXPECT_TRUE(CheckOne<uint16_t>(DataType::kBF16, 0x7F7F, 3, 1).ok());
  EXPECT_TRUE(CheckOne<uint16_t>(DataType::kF16, 0x7BFF, 3, 1).ok());
  EXPECT_TRUE(CheckOne<uint32_t>(DataType::kI32, 0x7F800000u, 3, 1).ok());
  EXPECT_TRUE(CheckOne<uint64_t>(DataType::kI64, 0x7FF0000000000000u, 3, 1).ok());
}

TEST(CheckFiniteTest, LooksOnlyWhereItIsTold) {
  std::vector<float> values(10, 1.0f);
  values[4] = std::numeric_limits<float>::infinity();
  const Tensor tensor{
      .type = DataType::kF32, .shape = {5, 2}, .data = reinterpret_cast<const std::byte*>(values.data()), .bytes = 40};
  EXPECT_TRUE(CheckFinite(tensor, 0, 4).ok());
  EXPECT_TRUE(CheckFinite(tensor, 5, 10).ok());
  EXPECT_EQ(CheckFinite(tensor, 4, 5), absl::InvalidArgumentError("element [2, 0] is inf"));
}

TEST(CheckFiniteTest, AScalarHasNoCoordinates) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor tensor{
      .type = DataType::kF32, .shape = {}, .data = reinterpret_cast<const std::byte*>(&nan), .bytes = 4};
  EXPECT_EQ(CheckFinite(tensor, 0, 1), absl::InvalidArgumentError("element [] is nan"));
}

}  // namespace
}  // namespace din
