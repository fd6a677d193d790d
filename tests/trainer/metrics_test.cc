#include "trainer/metrics.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "trainer/served_scores.h"

namespace din {
namespace {

Sample Of(int32_t user, float label) { return {.user = user, .label = label}; }

TEST(AucTest, CountsOrderedPairs) {
  // Positives .9 and .4, negatives .5 and .1: 3 of 4 pairs are right.
  const std::vector<float> labels = {1, 0, 1, 0};
  const std::vector<float> scores = {.9f, .5f, .4f, .1f};
  EXPECT_DOUBLE_EQ(Auc(labels, scores), 0.75);
}

TEST(AucTest, TieIsHalfAPair) {
  // Pairs of positives .5 .5 with negatives .5 .2: tie, right, tie, right.
  const std::vector<float> labels = {1, 1, 0, 0};
  const std::vector<float> scores = {.5f, .5f, .5f, .2f};
  EXPECT_DOUBLE_EQ(Auc(labels, scores), 0.75);
  EXPECT_DOUBLE_EQ(Auc(labels, std::vector<float>(4, .3f)), 0.5);
}

TEST(AucTest, OneClassHasNone) {
  EXPECT_TRUE(std::isnan(Auc(std::vector<float>{1, 1}, std::vector<float>{.1f, .2f})));
  EXPECT_TRUE(std::isnan(Auc({}, {})));
}

TEST(AucTest, ScoreThatIsNoNumberHasNone) {
  EXPECT_TRUE(std::isnan(Auc(std::vector<float>{1, 0, 1}, std::vector<float>{.1f, NAN, .2f})));
}

TEST(AucTest, EqualsThePairLoopOnRandomScoresWithTies) {
  constexpr uint64_t kSeed = 7;
  RecordProperty("seed", kSeed);
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> labels(40), scores(40);
    for (float& x : labels) x = static_cast<float>(random() % 2);
    for (float& x : scores) x = static_cast<float>(random() % 10) / 10;
    double right = 0, pairs = 0;
    for (size_t i = 0; i < 40; ++i) {
      for (size_t j = 0; j < 40; ++j) {
        if (labels[i] != 1 || labels[j] != 0) continue;
        ++pairs;
        right += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
      }
    }
    EXPECT_NEAR(Auc(labels, scores), right / pairs, 1e-12);
  }
}

TEST(MetricsTest, UserAucIsWeightedByImpressionsAndLeavesOutOneClass) {
  // User 0: 2 impressions, AUC 0. User 1: 4 impressions, AUC 0.75. User 2: only clicks.
  const std::vector<Sample> samples = {Of(1, 1), Of(0, 1), Of(1, 0), Of(2, 1), Of(1, 1), Of(0, 0), Of(1, 0)};
  const std::vector<float> scores = {.9f, .1f, .5f, .2f, .4f, .2f, .1f};
  const Metrics m = Evaluate(samples, scores);
  EXPECT_DOUBLE_EQ(m.user_auc, (2 * 0.0 + 4 * 0.75) / 6);
  EXPECT_EQ(m.users, 2u);
  EXPECT_EQ(m.one_class_users, 1u);
  EXPECT_EQ(m.samples, 7u);
  // All together: positives .9 .1 .2 .4 against .5 .2 .1: 3 + 0.5 + 1.5 + 2 of 12.
  EXPECT_NEAR(m.auc, 7.0 / 12, 1e-12);
}

TEST(MetricsTest, LogLossAndCalibrationByHand) {
  const std::vector<Sample> samples = {Of(0, 1), Of(0, 0)};
  const Metrics m = Evaluate(samples, std::vector<float>{.8f, .4f});
  EXPECT_NEAR(m.log_loss, -(std::log(0.8) + std::log(0.6)) / 2, 1e-7);
  EXPECT_NEAR(m.calibration, 1.2, 1e-6);
}

TEST(MetricsTest, CertainAndWrongIsAFiniteLoss) {
  const Metrics m = Evaluate(std::vector<Sample>{Of(0, 1), Of(0, 0)}, std::vector<float>{0, 1});
  EXPECT_TRUE(std::isfinite(m.log_loss));
  EXPECT_GT(m.log_loss, 20);
}

TEST(MetricsTest, DecilesAreOfEqualSizeByScore) {
  std::vector<Sample> samples;
  std::vector<float> scores;
  for (int i = 0; i < 40; ++i) {  // score i / 40, clicked in the upper half
    samples.push_back(Of(0, i >= 20 ? 1 : 0));
    scores.push_back(static_cast<float>(i) / 40);
  }
  std::swap(samples[3], samples[38]);
  std::swap(scores[3], scores[38]);
  const Metrics m = Evaluate(samples, scores);
  ASSERT_EQ(m.deciles.size(), 10u);
  for (size_t d = 0; d < 10; ++d) {
    EXPECT_NEAR(m.deciles[d].predicted, (4 * static_cast<double>(d) + 1.5) / 40, 1e-6);
    EXPECT_EQ(m.deciles[d].observed, d >= 5 ? 1 : 0);
  }
  EXPECT_TRUE(Evaluate(std::span(samples).first(9), std::span(scores).first(9)).deciles.empty());
}

TEST(MetricsTest, RelaImprIsThePapers) {
  EXPECT_NEAR(RelaImpr(0.6083, 0.5970), 11.65, 0.01);  // DIN, table 5
  EXPECT_NEAR(RelaImpr(0.5738, 0.5970), -23.92, 0.01);
}

TEST(MetricsTest, NothingGivesNoNumbers) {
  const Metrics m = Evaluate({}, {});
  EXPECT_TRUE(std::isnan(m.user_auc));
  EXPECT_TRUE(std::isnan(m.log_loss));
  EXPECT_TRUE(std::isnan(m.calibration));
}

TEST(CompareServedTest, RefusesADifferenceAScoreThatIsNoNumberAndAnotherAuc) {
  const std::vector<Sample> samples = {Of(1, 1), Of(1, 0), Of(2, 0), Of(2, 1)};
  const std::vector<float> trained = {.6f, .5f, .4f, .7f};
  std::vector<float> served = trained;
  EXPECT_TRUE(CompareServed(samples, trained, served, 0).ok());
  served[2] += 1e-4f;
  EXPECT_TRUE(CompareServed(samples, trained, served, 2e-4).ok());
  EXPECT_FALSE(CompareServed(samples, trained, served, 1e-5).ok());
  served[2] = NAN;
  EXPECT_FALSE(CompareServed(samples, trained, served, 1).ok());
  served = {.5f, .6f, .4f, .7f};  // within the tolerance, in another order
  EXPECT_FALSE(CompareServed(samples, trained, served, 1).ok());
}

}  // namespace
}  // namespace din
