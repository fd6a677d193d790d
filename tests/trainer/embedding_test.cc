#include "trainer/embedding.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace din {
namespace {

constexpr size_t kRows = 7;
constexpr size_t kDim = 5;

// Plain Adam, one row after the other, in double: what RowOptimiser promises.
class PlainRowAdam {
 public:
  explicit PlainRowAdam(const TrainableTable& table)
      : w(table.weights.begin(), table.weights.end()), m(w.size()), v(w.size()) {}

  void Step(size_t row, const std::vector<double>& gradient, double rate) {
    const double t = ++steps[row];
    for (size_t d = 0; d < kDim; ++d) {
      const size_t i = row * kDim + d;
      m[i] = 0.9 * m[i] + (1 - 0.9) * gradient[d];
      v[i] = 0.999 * v[i] + (1 - 0.999) * gradient[d] * gradient[d];
      const double corrected_m = m[i] / (1 - std::pow(0.9, t));
      const double corrected_v = v[i] / (1 - std::pow(0.999, t));
      w[i] -= rate * corrected_m / (std::sqrt(corrected_v) + 1e-8);
    }
  }

  std::vector<double> w, m, v;
  double steps[kRows] = {};
};

TEST(RowOptimiserTest, EqualsAPlainLoopAndLeavesOtherRowsAlone) {
  constexpr uint64_t kSeed = 11;
  RecordProperty("seed", kSeed);
  std::mt19937_64 random(kSeed);
  std::normal_distribution<float> normal;
  TrainableTable table = RandomTable(kRows, kDim, kDim, 0.1, kSeed);
  const TrainableTable before = table;
  constexpr double kRate = 0.01;
  RowOptimiser adam(kRows, kDim, {});
  PlainRowAdam plain(table);
  for (int step = 0; step < 200; ++step) {
    std::vector<int64_t> rows;
    for (int64_t row = 0; row + 1 < static_cast<int64_t>(kRows); ++row) {  // the last row is never touched
      if (random() % 3 == 0) rows.push_back(row);
    }
    std::shuffle(rows.begin(), rows.end(), random);
    std::vector<float> gradients(rows.size() * kDim);
    for (float& g : gradients) g = normal(random);
    adam.Step(table.weights, rows, gradients, kRate);
    for (size_t i = 0; i < rows.size(); ++i) {
      plain.Step(rows[i], {gradients.begin() + i * kDim, gradients.begin() + (i + 1) * kDim}, kRate);
    }
  }
  for (size_t i = 0; i < table.weights.size(); ++i) EXPECT_NEAR(table.weights[i], plain.w[i], 1e-5) << i;
  for (size_t d = 0; d < kDim; ++d) EXPECT_EQ(table.Row(kRows - 1)[d], before.Row(kRows - 1)[d]);
}

TEST(RowOptimiserTest, FirstStepOfARareRowIsOfFullSize) {
  TrainableTable table = RandomTable(kRows, kDim, kDim, 0.1, 1);
  RowOptimiser adam(kRows, kDim, {});
  const std::vector<float> gradients(kDim, -3);
  for (int step = 0; step < 1000; ++step) adam.Step(table.weights, std::vector<int64_t>{0}, gradients, 0.01);
  const float before = table.Row(1)[0];
  adam.Step(table.weights, std::vector<int64_t>{1}, gradients, 0.01);
  EXPECT_NEAR(table.Row(1)[0] - before, 0.01, 1e-6);
}

TEST(RowOptimiserTest, SgdMovesAgainstTheGradientAndKeepsNothing) {
  TrainableTable table = RandomTable(kRows, kDim, kDim, 0.1, 1);
  const TrainableTable before = table;
  RowOptimiser sgd(kRows, kDim, {.kind = OptimiserKind::kSgd});
  const std::vector<float> gradients(kDim, 2);
  sgd.Step(table.weights, std::vector<int64_t>{3}, gradients, 0.5);
  for (size_t i = 0; i < table.weights.size(); ++i) {
    EXPECT_FLOAT_EQ(table.weights[i], before.weights[i] - (i / kDim == 3 ? 1.0f : 0.0f));
  }
  EXPECT_TRUE(sgd.state().first_moment.empty());
}

TEST(RowOptimiserTest, TheRowThatIsNoneReadsAsZerosAndIsNeverTrained) {
  TrainableTable table = RandomTable(kRows, kDim, kDim, 1, 4);
  const TrainableTable before = table;
  const std::vector<int64_t> rows = {static_cast<int64_t>(kRows)};
  std::vector<float> out(kDim, 7), gradients(kDim, 1);
  Gather(table, rows, out);
  for (float v : out) EXPECT_EQ(v, 0);
  AddMiniBatchAware(table, rows, std::vector<uint32_t>(kRows, 1), 1, gradients);
  AddTouchedL2(table, rows, 1, gradients);
  RowOptimiser adam(kRows, kDim, {});
  adam.Step(table.weights, rows, gradients, 1);
  EXPECT_EQ(gradients, std::vector<float>(kDim, 1));
  EXPECT_EQ(table.weights, before.weights);
}

TEST(TouchedL2Test, AddsLambdaTimesTheWeights) {
  const TrainableTable table = RandomTable(kRows, kDim, kDim, 1, 5);
  std::vector<float> gradients(2 * kDim, 1);
  AddTouchedL2(table, std::vector<int64_t>{5, 2}, 0.25, gradients);
  for (size_t d = 0; d < kDim; ++d) {
    EXPECT_FLOAT_EQ(gradients[d], 1 + 0.25f * table.Row(5)[d]);
    EXPECT_FLOAT_EQ(gradients[kDim + d], 1 + 0.25f * table.Row(2)[d]);
  }
}

TEST(MiniBatchAwareTest, EqualsThePaperFormulaForSgd) {
  // w_j <- w_j - eta [ (1/B) sum dL/dw_j + lambda alpha_mj / n_j w_j ], alpha_mj = 1 for rows in the batch.
  constexpr double kEta = 0.5;
  constexpr double kLambda = 0.3;
  TrainableTable table = RandomTable(kRows, kDim, kDim, 1, 2);
  const TrainableTable before = table;
  const std::vector<uint32_t> counts = {1, 2, 3, 4, 5, 6, 7};
  const std::vector<int64_t> rows = {4, 1};
  std::vector<float> gradients = {1, 2, 3, 4, 5, -1, -2, -3, -4, -5};
  const std::vector<float> mean_loss_gradients = gradients;

  AddMiniBatchAware(table, rows, counts, kLambda, gradients);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t d = 0; d < kDim; ++d) table.Row(rows[i])[d] -= static_cast<float>(kEta * gradients[i * kDim + d]);
  }

  for (size_t j = 0; j < kRows; ++j) {
    const auto place = std::find(rows.begin(), rows.end(), static_cast<int64_t>(j));
    const double alpha = place == rows.end() ? 0 : 1;
    for (size_t d = 0; d < kDim; ++d) {
      const double w = before.Row(j)[d];
      const double of_loss = alpha == 0 ? 0 : mean_loss_gradients[(place - rows.begin()) * kDim + d];
      EXPECT_NEAR(table.Row(j)[d], w - kEta * (of_loss + kLambda * alpha / counts[j] * w), 1e-6);
    }
  }
}

TEST(MiniBatchAwareTest, RowThatTheTrainingSetNeverHadCountsAsOne) {
  TrainableTable table = RandomTable(1, 1, 1, 1, 3);
  std::vector<float> gradient = {0};
  AddMiniBatchAware(table, std::vector<int64_t>{0}, std::vector<uint32_t>{0}, 0.5, gradient);
  EXPECT_FLOAT_EQ(gradient[0], 0.5f * table.weights[0]);
}

TEST(EmbeddingTableTest, GatherCopiesRowsInTheirOrder) {
  const TrainableTable table = RandomTable(kRows, kDim, kDim, 1, 4);
  std::vector<float> out(2 * kDim);
  Gather(table, std::vector<int64_t>{6, 2}, out);
  for (size_t d = 0; d < kDim; ++d) {
    EXPECT_EQ(out[d], table.Row(6)[d]);
    EXPECT_EQ(out[kDim + d], table.Row(2)[d]);
  }
}

}  // namespace
}  // namespace din
