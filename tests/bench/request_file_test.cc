#include "bench/load/request_file.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::HasSubstr;

class RequestFileTest : public ::testing::Test {
 protected:
  ~RequestFileTest() override {
    for (const char* ending : {".jsonl", ".json", ".binpb"}) std::remove(Path(ending).c_str());
  }
  std::string Path(const std::string& ending) const {
    return ::testing::TempDir() + "requests-" + std::to_string(getpid()) + ending;
  }
  void Write(const std::string& ending, const std::string& text) const {
    std::ofstream(Path(ending), std::ios::binary) << text;
  }
};

std::vector<v1::ScoreRequest> ThreeRequests() {
  std::vector<v1::ScoreRequest> requests(3);
  for (int i = 0; i < 3; ++i) {
    requests[i].set_model(i == 2 ? "" : "ads");
    v1::Column& column = *requests[i].add_candidates();
    column.set_name("item");
    column.add_ids(int64_t{1} << 60 | i);
    column.add_values(0.1f);
  }
  return requests;
}

TEST_F(RequestFileTest, WhatIsWrittenComesBackInEitherForm) {
  const auto written = ThreeRequests();
  for (const char* ending : {".jsonl", ".binpb"}) {
    ASSERT_TRUE(WriteRequests(Path(ending), written).ok());
    const auto read = ReadRequests(Path(ending));
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), 3u) << ending;
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals((*read)[i], written[i])) << ending << i;
    }
  }
}

TEST_F(RequestFileTest, AJsonFileHoldsOneRequestOverSeveralLines) {
  Write(".json", "{\n \"model\": \"ads\"\n}\n");
  const auto read = ReadRequests(Path(".json"));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 1u);
  EXPECT_EQ((*read)[0].model(), "ads");
}

TEST_F(RequestFileTest, ABadLineIsNamed) {
  Write(".jsonl", "{\"model\": \"ads\"}\n\n{\"modle\": 1}\n");
  EXPECT_THAT(std::string(ReadRequests(Path(".jsonl")).status().message()), HasSubstr(".jsonl:3: "));
}

TEST_F(RequestFileTest, ATruncatedBinaryFileIsNamedByItsOffset) {
  ASSERT_TRUE(WriteRequests(Path(".binpb"), ThreeRequests()).ok());
  std::ifstream whole(Path(".binpb"), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(whole)), {});
  Write(".binpb", bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(std::string(ReadRequests(Path(".binpb")).status().message()), HasSubstr("no ScoreRequest at byte"));
}

TEST_F(RequestFileTest, AMissingFileIsNotFound) {
  EXPECT_EQ(ReadRequests(Path(".nowhere.jsonl")).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace din::load
