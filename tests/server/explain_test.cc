#include "server/explain.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::FloatNear;
using ::testing::IsEmpty;

class ExplainTest : public ::testing::Test {
 protected:
  void Score() {
    ASSERT_TRUE(DecodeScoreRequest(request_.request(), *shop_->model, {}, input_).ok());
    scores_.resize(input_.candidates);
    shop_->model->Score(input_, workspace_, scores_);
    Rank(scores_, 0, ranking_);
  }
  ScoredRequest Scored() const { return {request_.request(), *shop_, input_, scores_, ranking_}; }

  TensorStore weights_ = ShopWeights();
  ModelHandle shop_ = ShopModel(1, weights_);
  v1::ExplainRequest request_ = [] {
    v1::ExplainRequest request;
    *request.mutable_request() = ShopScoreRequest();
    return request;
  }();
  ScoringInput input_;
  Workspace workspace_;
  std::vector<float> scores_;
  std::vector<uint64_t> ranking_;
};

TEST_F(ExplainTest, WithoutCandidatesTheBestOneIsExplained) {
  Score();
  const auto candidates = CandidatesToExplain(request_, Scored(), {});
  ASSERT_TRUE(candidates.ok());
  EXPECT_THAT(*candidates, ElementsAre(std::max_element(scores_.begin(), scores_.end()) - scores_.begin()));
}

TEST_F(ExplainTest, CandidatesBeyondTheRequestTwiceOrTooManyAreRefused) {
  Score();
  request_.add_candidates(1);
  request_.add_candidates(4);
  EXPECT_EQ(CandidatesToExplain(request_, Scored(), {}).status().message(), "candidates[1]: 4, but the request has 4");
  request_.set_candidates(1, 1);
  EXPECT_EQ(CandidatesToExplain(request_, Scored(), {}).status().message(), "candidates[1]: 1 is asked for twice");
  request_.set_candidates(1, 0);
  EXPECT_THAT(*CandidatesToExplain(request_, Scored(), {}), ElementsAre(1, 0));
  EXPECT_EQ(CandidatesToExplain(request_, Scored(), {.explained = 1}).status().message(),
            "candidates: 2 to explain > limit 1");
}

// Five behaviours are sent; four are kept (the oldest is cut), of which one is padding.
TEST_F(ExplainTest, WeightsStandAtThePositionsOfTheRequest) {
  Score();
  v1::ExplainResponse response;
  ExplainCandidate(Scored(), 2, workspace_, response);
  ASSERT_EQ(response.candidates_size(), 1);
  const v1::ExplainResponse::Candidate& candidate = response.candidates(0);
  EXPECT_EQ(candidate.index(), 2u);
  EXPECT_EQ(candidate.label(), "Anvil");
  EXPECT_EQ(candidate.score(), scores_[2]);
  ASSERT_EQ(candidate.attentions_size(), 1);
  const v1::ExplainResponse::Weights& weights = candidate.attentions(0);
  EXPECT_EQ(weights.attention(), "att");
  EXPECT_EQ(weights.sequence(), "hist");
  ASSERT_EQ(weights.weights_size(), 5);
  EXPECT_THAT(weights.not_attended(), ElementsAre(0, 2));
  EXPECT_EQ(weights.weights(0), 0);
  EXPECT_EQ(weights.weights(2), 0);
  EXPECT_GT(weights.weights(3), 0);
  EXPECT_NE(weights.weights(1), weights.weights(3));  // items of different categories
  EXPECT_THAT(weights.weights(1) + weights.weights(3) + weights.weights(4), FloatNear(1, 1e-6f));  // a softmax
  EXPECT_THAT(weights.padding_weight(), FloatEq(0));
}

TEST_F(ExplainTest, EmptySequenceHasNoWeights) {
  for (v1::Column& column : *request_.mutable_request()->mutable_sequences(0)->mutable_columns()) {
    column.clear_ids();
    column.clear_values();
  }
  Score();
  v1::ExplainResponse response;
  ExplainCandidate(Scored(), 0, workspace_, response);
  EXPECT_THAT(response.candidates(0).attentions(0).weights(), IsEmpty());
  EXPECT_THAT(response.candidates(0).attentions(0).not_attended(), IsEmpty());
}

TEST_F(ExplainTest, BehaviourLabelsComeOnlyWhereThereAreSome) {
  Score();
  v1::ExplainResponse response;
  EncodeBehaviourLabels(Scored(), response);
  ASSERT_EQ(response.labels_size(), 1);
  EXPECT_EQ(response.labels(0).sequence(), "hist");
  EXPECT_THAT(response.labels(0).labels(), ElementsAre("Anvil", "Bucket", "", "", ""));
}

}  // namespace
}  // namespace din
