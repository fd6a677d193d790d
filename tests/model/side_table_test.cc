#include "model/side_table.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/model/tensor_store.h"

namespace din {
namespace {

using testing::ElementsAre;

v1::SideTable Spec(const std::string& text) {
  v1::SideTable spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

SideTable Create(const v1::SideTable& spec, const TensorStore& store) {
  TensorReader reader(store.map());
  auto table = SideTable::Create(spec, reader);
  EXPECT_TRUE(table.ok()) << table.status();
  EXPECT_TRUE(reader.CheckAllUsed().ok());
  return std::move(table).value();
}

std::string Error(const v1::SideTable& spec, const TensorStore& store) {
  TensorReader reader(store.map());
  return std::string(SideTable::Create(spec, reader).status().message());
}

IdMap Identity(int64_t size, v1::IdMap::OutOfVocabulary rule) {
  v1::IdMap spec;
  spec.set_name("m");
  spec.set_id_type(v1::INT64);
  spec.mutable_identity()->set_size(size);
  spec.set_out_of_vocabulary(rule);
  const TensorMap none;
  TensorReader reader(none);
  return IdMap::Create(spec, reader).value();
}

PaddingId PaddingOf(int64_t id) {
  v1::Feature::Padding padding;
  padding.set_id(id);
  return PaddingId(padding);
}

TEST(SideTableTest, WithoutKeysTheyAreZeroToRows) {
  const auto spec = Spec("name: 't' key_type: INT64 rows: 3 kind: ID value_type: INT64");
  TensorStore store;
  store.I32("side.t.values", {7, 8, 9});
  const SideTable table = Create(spec, store);
  EXPECT_EQ(table.Find(0), 0u);
  EXPECT_EQ(table.Find(2), 2u);
  for (const int64_t key : {int64_t{-1}, int64_t{3}, int64_t{1} << 32}) {
    EXPECT_EQ(table.Find(key), SideTable::kMissing) << key;
  }
  EXPECT_EQ(table.ids()[table.Values(1).begin], 8);
  EXPECT_EQ(table.SpellKey(2), "2");
}

TEST(SideTableTest, IntegerKeys) {
  const auto spec = Spec("name: 't' key_type: INT64 rows: 2 kind: ID value_type: STRING");
  TensorStore store;
  store.I64("side.t.keys", {-4, 100});
  store.Strings("side.t.values", {"four", "hundred"});
  const SideTable table = Create(spec, store);
  EXPECT_EQ(table.strings()[table.Find(100)], "hundred");
  EXPECT_EQ(table.strings()[table.Find(-4)], "four");
  EXPECT_EQ(table.Find(0), SideTable::kMissing);
  EXPECT_EQ(table.SpellKey(0), "-4");
}

TEST(SideTableTest, StringKeysAndLists) {
  const auto spec = Spec("name: 't' key_type: STRING rows: 3 kind: ID_LIST value_type: INT64");
  TensorStore store;
  store.Strings("side.t.keys", {"a", "b", "c"});
  store.I64("side.t.values", {1, 2, 3});
  store.I32("side.t.offsets", {0, 2, 2, 3});
  const SideTable table = Create(spec, store);
  const auto list = [&](std::string_view key) {
    std::vector<int64_t> out;
    const SideTable::Range range = table.Values(table.Find(key));
    for (size_t v = range.begin; v < range.end; ++v) out.push_back(table.ids()[v]);
    return out;
  };
  EXPECT_THAT(list("a"), ElementsAre(1, 2));
  EXPECT_THAT(list("b"), ElementsAre());
  EXPECT_THAT(list("c"), ElementsAre(3));
  EXPECT_EQ(table.Find(std::string_view("d")), SideTable::kMissing);
  EXPECT_EQ(table.SpellKey(1), "\"b\"");
}

TEST(SideTableTest, DenseRows) {
  const auto spec = Spec("name: 't' key_type: INT64 rows: 2 kind: DENSE width: 3");
  TensorStore store;
  store.F32("side.t.values", {2, 3}, {1, 2, 3, 4, 5, 6});
  const SideTable table = Create(spec, store);
  EXPECT_THAT(table.Dense(1), ElementsAre(4, 5, 6));
}

TEST(SideTableTest, BadTensorsAreRefusedByName) {
  const auto ids = Spec("name: 't' key_type: INT64 rows: 3 kind: ID value_type: INT64");
  TensorStore store;
  EXPECT_EQ(Error(ids, store), "tensor side.t.values: missing");
  store.I64("side.t.values", {1, 2});
  EXPECT_EQ(Error(ids, store), "tensor side.t.values: I64 [2], expected I64/I32 [3]");
  store.I64("side.t.keys", {5, 6, 5});
  EXPECT_EQ(Error(ids, store), "side table \"t\": key 5 is there twice, at positions 0 and 2");
  store.I64("side.t.keys", {5, 6});
  EXPECT_EQ(Error(ids, store), "tensor side.t.keys: I64 [2], expected I64/I32 [3]");

  const auto list = Spec("name: 'l' key_type: INT64 rows: 2 kind: ID_LIST value_type: INT64");
  store.I64("side.l.values", {1, 2, 3});
  store.I64("side.l.offsets", {0, 2, 4});
  EXPECT_EQ(Error(list, store), "tensor side.l.offsets: ends at 4, expected 3");

  const auto dense = Spec("name: 'd' key_type: INT64 rows: 2 kind: DENSE width: 2");
  store.F32("side.d.values", {4}, {1, 2, 3, 4});
  EXPECT_EQ(Error(dense, store), "tensor side.d.values: F32 [4], expected F32 [2, 2]");
  store.F32("side.d.values", {2, 2}, {1, 2, 3, std::nanf("")});
  EXPECT_EQ(Error(dense, store), "tensor side.d.values: nan at [1, 1], expected finite");
}

TEST(SideRowsTest, MarksUnknownAndPaddingValues) {
  const auto spec = Spec("name: 't' key_type: INT64 rows: 4 kind: ID value_type: INT64");
  TensorStore store;
  store.I64("side.t.values", {3, 9, 0, 4});
  const SideTable table = Create(spec, store);
  const SideRows rows = SideRows::Create(table, Identity(5, v1::IdMap::ZERO), PaddingOf(0)).value();
  EXPECT_EQ(rows.row(0), 3u);
  EXPECT_EQ(rows.row(1), kZeroRow);
  EXPECT_EQ(rows.row(2), 0u);
  EXPECT_FALSE(rows.out_of_vocabulary(0));
  EXPECT_TRUE(rows.out_of_vocabulary(1));
  EXPECT_FALSE(rows.is_padding(1));
  EXPECT_TRUE(rows.is_padding(2));
  EXPECT_FALSE(rows.out_of_vocabulary(2));
  EXPECT_FALSE(rows.is_padding(3));
}

TEST(SideRowsTest, ValueThatTheMapRefusesNamesTableKeyAndValue) {
  const auto spec = Spec("name: 't' key_type: STRING rows: 2 kind: ID_LIST value_type: INT64");
  TensorStore store;
  store.Strings("side.t.keys", {"a", "b"});
  store.I64("side.t.values", {1, 2, 77});
  store.I64("side.t.offsets", {0, 2, 3});
  const SideTable table = Create(spec, store);
  EXPECT_EQ(SideRows::Create(table, Identity(5, v1::IdMap::ERROR), PaddingId()).status().message(),
            "side table \"t\": key \"b\": value 77 is out of vocabulary");
}

}  // namespace
}  // namespace din
