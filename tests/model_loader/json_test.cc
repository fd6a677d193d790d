#include "model_loader/json.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>

#include "google/protobuf/util/message_differencer.h"
#include "proto/model_spec.pb.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

TEST(CheckJsonTest, TakesWhatTheRfcTakes) {
  for (const std::string text : {"{}", "[]", " { \"a\" : [1, -2.5e3, true, false, null, \"x\\u00e9\\n\"] } \n", "1",
                                 "\"\"", "{\"a\":{\"a\":1},\"b\":{\"a\":2}}", "{\"\":1,\" \":2}", "\"\xC3\xA9\""}) {
    EXPECT_TRUE(CheckJson(text).ok()) << text << CheckJson(text);
  }
}

TEST(CheckJsonTest, RefusesTheRestWithOffset) {
  const struct {
    std::string text;
    std::string message;
  } cases[] = {
      {"", "byte 0"},
      {"{\"a\":1", "byte 6"},
      {"{} x", "byte 3"},
      {"{}{}", "byte 2"},
      {"{\"a\":1,}", "byte 7"},
      {"[1 2]", "byte 3"},
      {"{'a':1}", "byte 1"},
      {"[NaN]", "byte 1"},
      {"[01]", "byte 2"},
      {"[1e999]", "byte 5"},
      {"// x\n1", "byte 0"},
      {"[\"\xFF\"]", "byte 2"},
      {"[\"\xC0\xAF\"]", "byte 2"},
      {"[\"\\ud800\"]", "byte 8"},
      {"[\"a\nb\"]", "byte 3"},
      {"\xEF\xBB\xBF{}", "byte 0: a byte order mark"},
      {std::string("{}\0{}", 5), "byte 2: NUL"},
      {std::string("{}\0", 3), "byte 2: NUL"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    ExpectError(CheckJson(c.text), StatusCode::kInvalidArgument, {c.message});
  }
}

TEST(CheckJsonTest, DuplicateKeysAreRefusedAtEveryLevel) {
  ExpectError(CheckJson(R"({"a":1,"a":1})"), StatusCode::kInvalidArgument, {"byte 10: key \"a\" twice in one object"});
  ExpectError(CheckJson(R"({"x":[{"b":{"a":1,"\u0061":2}}]})"), StatusCode::kInvalidArgument, {"key \"a\" twice"});
  ExpectError(CheckJson(R"({"a":{"b":1},"a":{}})"), StatusCode::kInvalidArgument, {"key \"a\" twice"});
}

TEST(CheckJsonTest, HostileKeysAreEscapedAndCut) {
  const std::string key(5000, '\x7F');
  const absl::Status status = CheckJson("{\"" + key + "\":1,\"" + key + "\":1}");
  ExpectError(status, StatusCode::kInvalidArgument, {"\\x7f"});
  EXPECT_LT(status.message().size(), 600u);
  EXPECT_LT(CheckJson("[" + std::string(5000, 'x')).message().size(), 600u);
}

TEST(CheckJsonTest, DepthIsBounded) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(CheckJson(nested(32)).ok());
  ExpectError(CheckJson(nested(33)), StatusCode::kInvalidArgument, {"byte 33: depth: more than 32 levels"});
  EXPECT_TRUE(CheckJson(R"({"a":{"b":1}})", 2).ok());
  EXPECT_FALSE(CheckJson(R"({"a":{"b":[]}})", 2).ok());
  EXPECT_FALSE(CheckJson(nested(2'000'000)).ok());
}

TEST(CheckJsonTest, ObjectsAreBounded) {
  const auto objects = [](int n) {
    std::string text = "[{}";
    for (int i = 1; i < n; ++i) text += ",{}";
    return text + "]";
  };
  EXPECT_TRUE(CheckJson(objects(65'536)).ok());
  ExpectError(CheckJson(objects(65'537)), StatusCode::kInvalidArgument, {"objects: more than 65536"});
}

TEST(ParseJsonTest, NamesTheFileInEveryError) {
  v1::ModelSpec spec;
  ExpectError(ParseJson("{", "model.json", spec), StatusCode::kInvalidArgument, {"model.json: byte 1"});
  ExpectError(ParseJson(R"({"towr":{}})", "model.json", spec), StatusCode::kInvalidArgument, {"model.json: ", "towr"});
  ExpectError(ParseJson(R"({"format":"x"})", "model.json", spec), StatusCode::kInvalidArgument,
              {"model.json: ", "format"});
  ExpectError(ParseJson("[]", "model.json", spec), StatusCode::kInvalidArgument, {"model.json: "});
}

TEST(ParseJsonTest, BothSpellingsOfAFieldAreOneKey) {
  v1::ModelSpec spec;
  EXPECT_TRUE(ParseJson(R"({"id_maps":[{"name":"a"}]})", "model.json", spec).ok());
  EXPECT_TRUE(ParseJson(R"({"idMaps":[{"name":"a"}]})", "model.json", spec).ok());
  ExpectError(ParseJson(R"({"id_maps":[],"idMaps":[]})", "model.json", spec), StatusCode::kInvalidArgument,
              {"key \"idMaps\" twice"});
}

TEST(FormatJsonTest, UsesTheProtosNamesAndOneLine) {
  v1::ModelSpec spec;
  spec.add_id_maps()->set_name("item");
  EXPECT_EQ(FormatJson(spec), R"({"id_maps":[{"name":"item"}]})");
  EXPECT_EQ(FormatJsonPretty(spec), "{\n \"id_maps\": [\n  {\n   \"name\": \"item\"\n  }\n ]\n}\n");
}

TEST(FormatJsonTest, EveryFiniteNumberComesBackBitForBit) {
  constexpr uint32_t kSeed = 20240607;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 50; ++round) {
    v1::GoldenCase golden;
    v1::Column* column = golden.add_features();
    for (const float edge : {0.0f, 1e-45f, 3.4028235e38f, -1.17549435e-38f, 0.1f, 16777217.0f}) {
      column->add_values(edge);
    }
    while (column->values_size() < 400) {
      const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
      if (std::isfinite(value) && value != 0) column->add_values(value);
    }
    for (int i = 0; i < 20; ++i) column->add_ids(static_cast<int64_t>(random()));
    double tolerance = std::bit_cast<double>(random());
    golden.set_tolerance(std::isfinite(tolerance) ? tolerance : 5e-324);
    v1::GoldenCase back;
    const absl::Status status = ParseJson(FormatJson(golden), "case", back);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(back.SerializeAsString(), golden.SerializeAsString()) << FormatJson(golden);
  }
}

}  // namespace
}  // namespace din
