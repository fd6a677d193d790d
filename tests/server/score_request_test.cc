#include "server/score_request.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<uint32_t> Ranked(const std::vector<float>& scores, uint32_t top_k) {
  std::vector<uint64_t> ranking;
  Rank(scores, top_k, ranking);
  std::vector<uint32_t> positions;
  for (const uint64_t entry : ranking) positions.push_back(RankedPosition(entry));
  return positions;
}

TEST(RankTest, BestFirstAndTiesInTheOrderOfTheRequest) {
  EXPECT_THAT(Ranked({0.25f, 1.0f, 0.25f, 0.0f, 0.5f, 0.25f}, 0), ElementsAre(1, 4, 0, 2, 5, 3));
}

TEST(RankTest, TopKCutsAmongTiesByTheOrderOfTheRequest) {
  EXPECT_THAT(Ranked({0.5f, 0.5f, 0.5f, 0.75f}, 2), ElementsAre(3, 0));
}

TEST(RankTest, TopKBeyondTheCandidatesIsAllOfThem) { EXPECT_THAT(Ranked({0.1f, 0.2f}, 9), ElementsAre(1, 0)); }

TEST(RankTest, NegativeZeroTiesWithZero) { EXPECT_THAT(Ranked({-0.0f, 0.0f, 0.5f}, 0), ElementsAre(2, 0, 1)); }

TEST(RankTest, AgreesWithAStableSortForEveryTopK) {
  constexpr unsigned kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (size_t n = 1; n <= 40; ++n) {
    std::vector<float> scores(n);
    for (float& score : scores) score = static_cast<float>(random() % 8) / 8;  // many ties
    std::vector<uint32_t> expected(n);
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(), [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    for (size_t k = 1; k <= n; ++k) {
      EXPECT_EQ(Ranked(scores, static_cast<uint32_t>(k)),
                std::vector(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(k)));
    }
  }
}

TEST(CheckScoresTest, WhatIsNotAProbabilityIsAnInternalError) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  v1::ScoreRequest ids_only = ShopScoreRequest();
  ids_only.mutable_features(1)->clear_values();
  ids_only.mutable_sequences(0)->mutable_columns(1)->clear_values();
  EXPECT_TRUE(CheckScores(ids_only, std::vector<float>{0.0f, 0.5f, 1.0f}).ok());
  EXPECT_EQ(CheckScores(ids_only, std::vector<float>{0.5f, nan}),
            absl::InternalError("score of candidate 1: nan is not in [0, 1]"));
  EXPECT_EQ(CheckScores(ShopScoreRequest(), std::vector<float>{1.5f}).code(), absl::StatusCode::kInternal);
}

TEST(CheckScoresTest, DenseValuesThatOverflowTheModelAreTheRequestsFault) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  v1::ScoreRequest request = ShopScoreRequest();
  request.mutable_sequences(0)->mutable_columns(1)->set_values(2, -3e38f);
  EXPECT_TRUE(CheckScores(request, std::vector<float>{0.5f}).ok());
  EXPECT_EQ(CheckScores(request, std::vector<float>{0.5f, nan}),
            absl::InvalidArgumentError("score of candidate 1: nan: the DENSE values sent overflow the model; the "
                                       "largest is -3e+38, of \"h_dwell\""));
}

// --- Which model -----------------------------------------------------------------------------------------------------

class ShopTest : public ::testing::Test {
 protected:
  TensorStore weights_ = ShopWeights();
  ModelHandle shop_ = ShopModel(3, weights_);
  ModelRegistry models_;
};

TEST_F(ShopTest, EmptyNameIsTheOnlyModelServed) {
  EXPECT_EQ(PinModel(models_, "", {.version = 0}).status(), absl::NotFoundError("model: no model is served"));
  models_.GetOrAdd("shop").Swap(shop_);
  models_.GetOrAdd("not-live");
  EXPECT_EQ(*PinModel(models_, "", {.version = 0}), shop_);
  EXPECT_EQ(*PinModel(models_, "", {.version = 3}), shop_);
  EXPECT_EQ(*PinModel(models_, "shop", {.version = 0}), shop_);
  models_.GetOrAdd("zoo").Swap(shop_);
  EXPECT_EQ(PinModel(models_, "", {.version = 0}).status(),
            absl::InvalidArgumentError("model: empty, but 2 are served; served: shop, zoo"));
}

TEST_F(ShopTest, UnknownModelAndVersionSayWhatThereIs) {
  models_.GetOrAdd("shop").Swap(shop_);
  EXPECT_EQ(PinModel(models_, "ship\n", {.version = 0}).status(),
            absl::NotFoundError("model: \"ship\\n\" is not served; served: shop"));
  EXPECT_EQ(PinModel(models_, "shop", {.version = 2}).status(),
            absl::NotFoundError("version: 2 of model \"shop\" is not served; live: 3"));
  ModelStatus bad;
  bad.name = "bad";
  bad.refused_version = 5;
  bad.refused = absl::DataLossError("weights.safetensors: cut");
  models_.GetOrAdd("bad").SetStatus(bad);
  EXPECT_EQ(PinModel(models_, "bad", {.version = 0}).status(),
            absl::NotFoundError("model: \"bad\" is not live: version 5 was refused: weights.safetensors: cut"));
  bad.loading_version = 6;
  models_.GetOrAdd("bad").SetStatus(bad);
  EXPECT_EQ(PinModel(models_, "bad", {.version = 0}).status(),
            absl::NotFoundError("model: \"bad\" is not live: version 6 is loading"));
  EXPECT_EQ(PinModel(models_, "shop", {.version = -1}).status().code(), absl::StatusCode::kInvalidArgument);
}

// --- Decode, encode --------------------------------------------------------------------------------------------------

TEST_F(ShopTest, CandidateNamesMustBeOneKindAndOneEach) {
  ScoringInput input;
  v1::ScoreRequest request = ShopScoreRequest();
  EXPECT_TRUE(DecodeScoreRequest(request, *shop_->model, {}, input).ok());
  request.add_candidate_ids(1);
  EXPECT_EQ(DecodeScoreRequest(request, *shop_->model, {}, input).message(),
            "candidate_ids: 1 sent, expected 4, one for each candidate, or none");
  request.add_candidate_keys("a");
  EXPECT_EQ(DecodeScoreRequest(request, *shop_->model, {}, input).message(),
            "candidate_keys: 1 sent beside candidate_ids, expected at most one of the two");
  request.clear_candidate_ids();
  EXPECT_EQ(DecodeScoreRequest(request, *shop_->model, {}, input).message(),
            "candidate_keys: 1 sent, expected 4, one for each candidate, or none");
}

TEST_F(ShopTest, LimitsAreThoseOfTheServer) {
  ScoringInput input;
  const RequestLimits limits{.input = {.candidates = 3, .behaviours = 16, .list_ids = 16}};
  EXPECT_EQ(DecodeScoreRequest(ShopScoreRequest(), *shop_->model, limits, input).message(), "candidates: 4 > limit 3");
}

TEST_F(ShopTest, ResponseIsColumnsByRank) {
  v1::ScoreRequest request = ShopScoreRequest();  // candidates 20, 50, 10, 60; the category of 50 is unknown
  for (const int64_t id : {200, 500, 100, 600}) request.add_candidate_ids(id);
  request.set_labels(true);
  ScoringInput input;
  ASSERT_TRUE(DecodeScoreRequest(request, *shop_->model, {}, input).ok());
  const std::vector<float> scores = {0.25f, 0.75f, 0.5f, 0.25f};
  std::vector<uint64_t> ranking;
  Rank(scores, 3, ranking);
  v1::ScoreResponse response;
  EncodeScoreResponse({request, *shop_, input, scores, ranking}, response);
  EXPECT_EQ(response.model(), "shop");
  EXPECT_EQ(response.version(), 3);
  EXPECT_THAT(response.index(), ElementsAre(1, 2, 0));
  EXPECT_THAT(response.scores(), ElementsAre(0.75f, 0.5f, 0.25f));
  EXPECT_THAT(response.candidate_ids(), ElementsAre(500, 100, 200));
  EXPECT_THAT(response.candidate_keys(), IsEmpty());
  EXPECT_THAT(response.labels(), ElementsAre("", "Anvil", "Bucket"));
  EXPECT_THAT(response.out_of_vocabulary(), ElementsAre(0));
}

TEST_F(ShopTest, ResponseHoldsOnlyWhatWasAskedFor) {
  v1::ScoreRequest request = ShopScoreRequest();
  for (const char* key : {"a", "b", "c", "d"}) request.add_candidate_keys(key);
  ScoringInput input;
  ASSERT_TRUE(DecodeScoreRequest(request, *shop_->model, {}, input).ok());
  const std::vector<float> scores = {0.1f, 0.2f, 0.3f, 0.4f};
  std::vector<uint64_t> ranking;
  Rank(scores, 0, ranking);
  v1::ScoreResponse response;
  EncodeScoreResponse({request, *shop_, input, scores, ranking}, response);
  EXPECT_THAT(response.candidate_keys(), ElementsAre("d", "c", "b", "a"));
  EXPECT_THAT(response.candidate_ids(), IsEmpty());
  EXPECT_THAT(response.labels(), IsEmpty());
}

}  // namespace
}  // namespace din
