#include "bench/load/verifier.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::HasSubstr;

class VerifierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    request_.set_model("ads");
    for (const int64_t id : {70, 71, 72}) request_.add_candidate_ids(id);
    response_.set_model("ads");
    response_.set_version(4);
    for (const uint32_t index : {2, 0, 1}) {
      response_.add_index(index);
      response_.add_candidate_ids(70 + index);
    }
    for (const float score : {0.9f, 0.5f, 0.5f}) response_.add_scores(score);
  }

  absl::Status Check(std::set<int64_t> versions = {}) {
    RequestSetBuilder builder("test");
    builder.Add(request_);
    const RequestSet set = *std::move(builder).Build();
    return Verifier(set, std::move(versions)).Check(0, response_);
  }
  std::string Fault(std::set<int64_t> versions = {}) {
    const absl::Status status = Check(std::move(versions));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  }

  v1::ScoreRequest request_;
  v1::ScoreResponse response_;
};

TEST_F(VerifierTest, ARightAnswerPasses) { EXPECT_TRUE(Check({4, 5}).ok()) << Check(); }

TEST_F(VerifierTest, AnotherModelIsWrong) {
  response_.set_model("news");
  EXPECT_THAT(Fault(), HasSubstr("\"news\" answered for \"ads\""));
}

TEST_F(VerifierTest, AVersionThatMayNotAnswerIsWrong) { EXPECT_THAT(Fault({3}), HasSubstr("version: 4")); }

TEST_F(VerifierTest, NoVersionIsWrong) {
  response_.set_version(0);
  EXPECT_THAT(Fault(), HasSubstr("version: 0"));
}

TEST_F(VerifierTest, AMissingCandidateIsWrong) {
  response_.mutable_index()->RemoveLast();
  EXPECT_THAT(Fault(), HasSubstr("2 indices and 3 scores, asked for 3"));
}

TEST_F(VerifierTest, OnlyTopKAreExpectedWhenAskedFor) {
  request_.set_top_k(2);
  EXPECT_THAT(Fault(), HasSubstr("asked for 2"));
  response_.mutable_index()->RemoveLast();
  response_.mutable_scores()->RemoveLast();
  response_.mutable_candidate_ids()->RemoveLast();
  EXPECT_TRUE(Check().ok()) << Check();
}

TEST_F(VerifierTest, TheSameCandidateTwiceIsWrong) {
  response_.set_index(1, 2);
  EXPECT_THAT(Fault(), HasSubstr("index: 2 came twice"));
}

TEST_F(VerifierTest, ACandidateThatWasNotSentIsWrong) {
  response_.set_index(1, 3);
  EXPECT_THAT(Fault(), HasSubstr("index: 3 is not a candidate"));
}

TEST_F(VerifierTest, NotANumberIsWrong) {
  response_.set_scores(1, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(Fault(), HasSubstr("not in [0, 1]"));
}

TEST_F(VerifierTest, WorseBeforeBetterIsWrong) {
  response_.set_scores(2, 0.6f);
  EXPECT_THAT(Fault(), HasSubstr("comes after the smaller"));
}

TEST_F(VerifierTest, SwappedNamesAreWrong) {
  response_.set_candidate_ids(0, 70);
  response_.set_candidate_ids(1, 72);
  EXPECT_THAT(Fault(), HasSubstr("candidate_ids"));
}

TEST_F(VerifierTest, ScoresAreHeldToTheExpectedOnes) {
  v1::GoldenCase golden;
  for (const float score : {0.5f, 0.5f, 0.9f}) golden.add_scores(score);
  golden.set_tolerance(1e-5);
  RequestSetBuilder builder("test");
  ASSERT_TRUE(builder.AddExpecting(request_, golden).ok());
  const RequestSet set = *std::move(builder).Build();
  EXPECT_TRUE(Verifier(set, {}).Check(0, response_).ok());
  response_.set_scores(0, 0.90002f);
  EXPECT_THAT(std::string(Verifier(set, {}).Check(0, response_).message()), HasSubstr("for candidate 2, expected 0.9"));
}

TEST_F(VerifierTest, ExpectedScoresMustBeOnePerCandidate) {
  v1::GoldenCase golden;
  golden.add_scores(0.5f);
  golden.set_tolerance(1e-5);
  RequestSetBuilder builder("test");
  EXPECT_THAT(std::string(builder.AddExpecting(request_, golden).message()),
              HasSubstr("1 expected scores for 3 candidates"));
}

TEST_F(VerifierTest, BytesThatAreNoResponseAreWrong) {
  RequestSetBuilder builder("test");
  builder.Add(request_);
  const RequestSet set = *std::move(builder).Build();
  const grpc::Slice slice("\xff\xff\xff");
  grpc::ByteBuffer bytes(&slice, 1);
  EXPECT_EQ(Verifier(set, {}).Check(0, bytes).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace din::load
