#include "model_loader/golden.h"

#include <string>

#include "model_loader/json.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

constexpr GoldenLimits kLimits = {.line_bytes = 1000, .memory_bytes = 1 << 20};
constexpr char kCase[] = R"({"id":"a","candidates":[{"name":"item","ids":["1"]}],"scores":[0.5],"tolerance":1e-05})";

TEST(GoldenFileTest, OneCaseALine) {
  for (const std::string end : {"", "\n"}) {
    const auto cases = ParseGolden(std::string(kCase) + "\n" + FormatJson(SmallGoldenCase()) + end, kLimits);
    ASSERT_TRUE(cases.ok()) << cases.status();
    ASSERT_EQ(cases->size(), 2u);
    EXPECT_EQ((*cases)[0].scores(0), 0.5f);
    EXPECT_EQ((*cases)[1].SerializeAsString(), SmallGoldenCase().SerializeAsString());
  }
  const auto none = ParseGolden("", kLimits);
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(GoldenFileTest, ErrorsNameTheLine) {
  const std::string good = std::string(kCase) + "\n";
  const struct {
    std::string line;
    std::string message;
  } cases[] = {
      {"", "golden.jsonl:2: an empty line"},
      {"{", "golden.jsonl:2: byte 1"},
      {"{} {}", "golden.jsonl:2: byte 3"},
      {R"({"id":"a","id":"b"})", "golden.jsonl:2: byte 14: key \"id\" twice"},
      {R"({"scoress":[]})", "golden.jsonl:2: "},
      {R"({"tolerance":1e-5})", "golden.jsonl:2: scores: none"},
      {R"({"scores":[0.5,1.5],"tolerance":1e-5})", "golden.jsonl:2: scores[1]: 1.5 is not in [0, 1]"},
      {R"({"scores":[-1e-9],"tolerance":1e-5})", "golden.jsonl:2: scores[0]: -1e-09 is not in [0, 1]"},
      {R"({"scores":["NaN"],"tolerance":1e-5})", "golden.jsonl:2: scores[0]: nan is not in [0, 1]"},
      {R"({"scores":["Infinity"],"tolerance":1e-5})", "golden.jsonl:2: scores[0]: inf is not in [0, 1]"},
      {R"({"scores":[0.5]})", "golden.jsonl:2: tolerance: 0 is not in (0, 0.01]"},
      {R"({"scores":[0.5],"tolerance":0.011})", "golden.jsonl:2: tolerance: 0.011 is not in (0, 0.01]"},
      {R"({"scores":[0.5],"tolerance":-1})", "golden.jsonl:2: tolerance: -1 is not in (0, 0.01]"},
      {R"({"scores":[0.5],"tolerance":"NaN"})", "golden.jsonl:2: tolerance: nan is not in (0, 0.01]"},
      {"{\"id\":\"" + std::string(1000, 'a') + "\"}", "golden.jsonl:2: line: 1009 bytes > limit 1000"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    ExpectError(ParseGolden(good + c.line + "\n" + good, kLimits).status(), StatusCode::kInvalidArgument, {c.message});
  }
}

TEST(GoldenFileTest, FewBytesThatTakeMuchMemoryAreBounded) {
  std::string objects = "{}";
  for (int i = 0; i < 300; ++i) objects += ",{}";
  const std::string line = R"({"scores":[0.5],"tolerance":1e-5,"candidates":[)" + objects + "]}\n";
  std::string text;
  for (int i = 0; i < 30; ++i) text += line;
  ExpectError(ParseGolden(text, kLimits).status(), StatusCode::kInvalidArgument, {"memory: ", "limit 1048576"});
}

}  // namespace
}  // namespace din
