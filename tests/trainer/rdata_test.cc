#include "trainer/rdata.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/r_writer.h"

namespace din::rdata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ValuePtr ParseOrDie(const std::string& value) {
  const auto parsed = Parse(RHead() + value);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : std::make_shared<const Value>();
}

// A data frame with every kind of column that one has, and a symbol that is referred to twice.
std::string SmallFrame() {
  const std::string again = RWord(255 | (1u << 8));  // the first symbol: "names", at the first factor's attributes
  return RWord(19 | kRAttributes) + RWord(3) + RFactor({1, 2, INT32_MIN}, {"Action", "Drama"}) + RReals({2.5, 4, 5}) +
         RStrings({"a", "b", "c"}) + RWord(2 | kRTag) + RSymbol("names") + RStrings({"genre", "rating", "title"}) +
         RWord(2 | kRTag) + again + RInts({7}) + RNull();
}

TEST(RDataTest, LiteralBytesOfAnIntegerVectorGiveItsValues) {
  // serialize(c(1L, -2L), NULL, version = 2), written out by hand from "R Internals" section 1.8.
  const unsigned char bytes[] = {'X', '\n', 0, 0,  0,    2,    0,    4,
                                 1,   2,    0, 2,  3,    0,  // head: version 2, no encoding
                                 0,   0,    0, 13,           // INTSXP, no attributes
                                 0,   0,    0, 2,            // length
                                 0,   0,    0, 1,  0xFF, 0xFF, 0xFF, 0xFE};
  const auto value = Parse({reinterpret_cast<const char*>(bytes), sizeof bytes});
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ((*value)->type, Type::kInteger);
  EXPECT_THAT((*value)->integers, ElementsAre(1, -2));
}

TEST(RDataTest, DataFrameGivesColumnsLevelsAndReferences) {
  const ValuePtr frame = ParseOrDie(SmallFrame());
  ASSERT_NE(frame->Member("genre"), nullptr);
  EXPECT_THAT(frame->Member("genre")->integers, ElementsAre(1, 2, kMissingInteger));
  EXPECT_THAT(frame->Member("genre")->Attribute("levels")->strings, ElementsAre("Action", "Drama"));
  EXPECT_THAT(frame->Member("rating")->reals, ElementsAre(2.5, 4, 5));
  EXPECT_THAT(frame->Member("title")->strings, ElementsAre("a", "b", "c"));
  EXPECT_EQ(frame->Member("year"), nullptr);
  // The reference stands for the first symbol read.
  EXPECT_THAT(frame->Attribute("levels")->integers, ElementsAre(7));
}

TEST(RDataTest, MissingAndLatin1StringsAreTold) {
  const ValuePtr value = ParseOrDie(RWord(16) + RWord(2) + RWord(9) + RWord(0xFFFFFFFF) + RChars("caf\xE9", 1u << 14));
  EXPECT_EQ(value->strings[0], std::nullopt);
  EXPECT_EQ(value->strings[1], "caf\xC3\xA9");
}

TEST(RDataTest, NamespaceTakesAReferenceNumber) {
  const std::string space = RWord(249) + RWord(0) + RWord(2) + RChars("base") + RChars("4.0");
  const ValuePtr list = ParseOrDie(RWord(19) + RWord(2) + space + RWord(255) + RWord(1));
  EXPECT_EQ(list->items[0]->type, Type::kNamespace);
  EXPECT_EQ(list->items[1], list->items[0]);
}

TEST(RDataTest, CompactSequenceIsWrittenOut) {
  const std::string info =
      RWord(2) + RSymbol("compact_intseq") + RWord(2) + RSymbol("base") + RWord(2) + RInts({13}) + RNull();
  const ValuePtr value = ParseOrDie(RWord(238) + info + RReals({4, 10, -1}) + RNull());
  EXPECT_THAT(value->integers, ElementsAre(10, 9, 8, 7));
}

TEST(RDataTest, HugeCompactSequenceIsRefusedBeforeAllocation) {
  const std::string info = RWord(2) + RSymbol("compact_intseq") + RNull();
  const auto value = Parse(RHead() + RWord(238) + info + RReals({1e15, 1, 1}) + RNull());
  EXPECT_EQ(value.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(value.status().message()), HasSubstr("limit"));
}

TEST(RDataTest, EveryTruncationIsDataLoss) {
  const std::string whole = RHead() + SmallFrame();
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(Parse(whole.substr(0, length)).status().code(), absl::StatusCode::kDataLoss) << length << " bytes";
  }
  EXPECT_EQ(Parse(whole + "x").status().code(), absl::StatusCode::kDataLoss);
}

TEST(RDataTest, EveryFlippedByteGivesAValueOrAnError) {
  const std::string whole = RHead() + SmallFrame();
  size_t refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit : {0, 3, 7}) {
      std::string damaged = whole;
      damaged[at] ^= static_cast<char>(1 << bit);
      refused += !Parse(damaged).ok();
    }
  }
  EXPECT_GT(refused, whole.size() / 2);
}

TEST(RDataTest, LengthBeyondTheBytesIsRefusedBeforeAllocation) {
  const auto value = Parse(RHead() + RWord(14) + RWord(0x7FFFFFFF) + "few");
  EXPECT_EQ(value.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(value.status().message()), HasSubstr("2147483647 elements of 8 bytes wanted, 3 bytes left"));
}

TEST(RDataTest, DeepNestingIsRefused) {
  std::string nested;
  for (int i = 0; i < 100'000; ++i) nested += RWord(19) + RWord(1);
  const auto value = Parse(RHead() + nested + RNull());
  EXPECT_THAT(std::string(value.status().message()), HasSubstr("nested deeper than 64"));
}

TEST(RDataTest, LongPairlistIsNoNesting) {
  std::string list;
  for (int i = 0; i < 10'000; ++i) list += RWord(2) + RNull();
  EXPECT_EQ(ParseOrDie(list + RNull())->size(), 10'000u);
}

TEST(RDataTest, ClosureAndUnknownReferenceAreRefusedByName) {
  EXPECT_EQ(Parse(RHead() + RWord(3)).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Parse(RHead() + RWord(255 | (9u << 8))).status().message()),
              HasSubstr("reference 9, but 0 are known"));
  EXPECT_EQ(Parse("A\n3").status().code(), absl::StatusCode::kUnimplemented);
}

TEST(InflateTest, BombAndTruncationAreDataLoss) {
  const std::string packed = ZlibOf(std::string(1 << 20, 'x'));
  EXPECT_EQ(Inflate(packed, 1 << 20)->size(), size_t{1} << 20);
  EXPECT_EQ(Inflate(packed, (1 << 20) - 1).status().code(), absl::StatusCode::kDataLoss);
  for (size_t length = 0; length < packed.size(); length += 7) {
    EXPECT_EQ(Inflate(packed.substr(0, length), 1 << 20).status().code(), absl::StatusCode::kDataLoss) << length;
  }
}

class LazyLoadTest : public ::testing::Test {
 protected:
  LazyLoadTest() : stem_(::testing::TempDir() + "rdata_test_" + std::to_string(::getpid())) {}
  ~LazyLoadTest() override {
    std::filesystem::remove(stem_ + ".rdx");
    std::filesystem::remove(stem_ + ".rdb");
  }
  void Write(const RLazyLoad& db) const {
    std::ofstream(stem_ + ".rdx", std::ios::binary) << db.index;
    std::ofstream(stem_ + ".rdb", std::ios::binary) << db.data;
  }
  const std::string stem_;
};

TEST_F(LazyLoadTest, VariableIsFoundByName) {
  Write(MakeLazyLoad("films", RInts({42})));
  const auto value = ReadLazyLoad(stem_, "films");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_THAT((*value)->integers, ElementsAre(42));
  EXPECT_THAT(std::string(ReadLazyLoad(stem_, "books").status().message()), HasSubstr("there are: films"));
}

TEST_F(LazyLoadTest, TruncatedFilesAreDataLoss) {
  const RLazyLoad whole = MakeLazyLoad("films", RInts({42}));
  for (size_t length = 0; length < whole.data.size(); ++length) {
    Write({whole.index, whole.data.substr(0, length)});
    EXPECT_EQ(ReadLazyLoad(stem_, "films").status().code(), absl::StatusCode::kDataLoss) << length << " bytes of .rdb";
  }
  for (size_t length = 0; length < whole.index.size(); ++length) {
    Write({whole.index.substr(0, length), whole.data});
    EXPECT_EQ(ReadLazyLoad(stem_, "films").status().code(), absl::StatusCode::kDataLoss) << length << " bytes of .rdx";
  }
}

TEST_F(LazyLoadTest, MissingFileIsNotFound) {
  EXPECT_EQ(ReadLazyLoad(stem_, "films").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace din::rdata
