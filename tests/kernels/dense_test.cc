// Runs under whatever instructions DENSE_TEST_LIMIT leaves to oneDNN, whose choice is the process's: ctest runs it once
// for each.
#include "kernels/dense.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "gtest/gtest.h"
#include "kernels/reference.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

InstructionSet Limit() {
  const char* name = std::getenv("DENSE_TEST_LIMIT");
  return name == nullptr ? BestInstructionSet() : ParseInstructionSet(name).value();
}

class DenseTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::cout << "instruction set " << Name(Limit()) << "\n";
    ASSERT_TRUE(LimitDenseInstructionSet(Limit()));
  }
};

DenseLayerWeights RandomLayer(Random& random, size_t in, size_t out, ActivationKind kind) {
  return {in, out, random.Normal(in * out, 1 / std::sqrt(static_cast<float>(in))), random.Normal(out, 0.3f),
          random.OfKind(kind, out)};
}

std::unique_ptr<const DenseLayer> Create(const DenseLayerWeights& weights) {
  auto layer = DenseLayer::Create(weights, std::min(Limit(), BestInstructionSet()));
  EXPECT_TRUE(layer.ok()) << layer.status();
  return *std::move(layer);
}

// `rows` rows of x, the padding filled with `padding`; the first `rows` rows of the result.
std::vector<float> RunRows(const DenseLayer& layer, const float* x, size_t rows, float padding = 0.0f) {
  const size_t padded = DenseLayer::PaddedRows(rows);
  GuardedFloats in(padded * layer.in());
  GuardedFloats out(padded * layer.out());
  GuardedFloats scratch(layer.ScratchBytes() / sizeof(float) + 1);
  std::fill_n(std::copy_n(x, rows * layer.in(), in.data()), (padded - rows) * layer.in(), padding);
  layer.Run(in.data(), rows, out.data(), scratch.data());
  EXPECT_TRUE(in.GuardsIntact());
  EXPECT_TRUE(out.GuardsIntact());
  EXPECT_TRUE(scratch.GuardsIntact());
  return {out.data(), out.data() + rows * layer.out()};
}

// Sums of size 1 over n products err by about sqrt(n) 2^-24, 2e-6 for the widest; Dice triples it at most.
constexpr double kTolerance = 1e-5;

TEST_F(DenseTest, IsTheReferenceOnEveryShapeAndNumberOfRows) {
  Random random(51);
  for (const size_t in : {1, 3, 8, 12, 36, 40, 80, 131, 200, 384}) {
    for (const size_t out : {1, 2, 5, 8, 36, 40, 80}) {
      const auto weights = RandomLayer(random, in, out, kAllActivations[random.Below(6)]);
      const auto layer = Create(weights);
      ASSERT_EQ(layer->in(), in);
      ASSERT_EQ(layer->out(), out);
      for (const size_t rows : {0, 1, 2, 7, 37}) {
        const std::vector<float> x = random.Normal(rows * in, 1);
        const std::vector<float> y = RunRows(*layer, x.data(), rows);
        for (size_t r = 0; r < rows; ++r) {
          const auto expected = reference::Dense<double>(weights.weight, weights.bias, weights.activation,
                                                         {x.begin() + r * in, x.begin() + (r + 1) * in});
          for (size_t u = 0; u < out; ++u) {
            ASSERT_NEAR(y[r * out + u], expected[u], kTolerance) << in << " -> " << out << " row " << r;
          }
        }
      }
    }
  }
}

// More than 1 MiB of weights: oneDNN's.
TEST_F(DenseTest, IsTheReferenceOnLargeLayers) {
  Random random(57);
  for (const auto& [in, out] : {std::pair<size_t, size_t>{1030, 257}, {2100, 126}, {520, 1000}}) {
    const auto weights = RandomLayer(random, in, out, ActivationKind::kDice);
    const auto layer = Create(weights);
    const std::vector<float> x = random.Normal(7 * in, 1);
    const std::vector<float> y = RunRows(*layer, x.data(), 7);
    for (size_t r = 0; r < 7; ++r) {
      const auto expected = reference::Dense<double>(weights.weight, weights.bias, weights.activation,
                                                     {x.begin() + r * in, x.begin() + (r + 1) * in});
      for (size_t u = 0; u < out; ++u) ASSERT_NEAR(y[r * out + u], expected[u], kTolerance) << in << " -> " << out;
    }
  }
}

TEST_F(DenseTest, AddsToAStartInsteadOfTheBias) {
  Random random(58);
  for (const auto& [in, out] : {std::pair<size_t, size_t>{36, 37}, {80, 200}, {1030, 257}}) {
    auto weights = RandomLayer(random, in, out, ActivationKind::kDice);
    const auto layer = Create(weights);
    const std::vector<float> start = random.Normal(out, 1);
    GuardedFloats aligned((out + 15) / 16 * 16), y(DenseLayer::PaddedRows(5) * out), x(DenseLayer::PaddedRows(5) * in),
        scratch(layer->ScratchBytes() / sizeof(float) + 1);
    std::copy(start.begin(), start.end(), aligned.data());
    const std::vector<float> input = random.Normal(5 * in, 1);
    std::copy(input.begin(), input.end(), x.data());
    layer->RunFrom(aligned.data(), x.data(), 5, y.data(), scratch.data());
    weights.bias = start;
    EXPECT_EQ(std::vector<float>(y.data(), y.data() + 5 * out), RunRows(*Create(weights), input.data(), 5))
        << in << " -> " << out;
  }
}

TEST_F(DenseTest, EveryActivationIsTheReference) {
  Random random(52);
  for (const ActivationKind kind : kAllActivations) {
    const auto weights = RandomLayer(random, 40, 37, kind);
    const std::vector<float> x = random.Normal(3 * 40, 1);
    const std::vector<float> y = RunRows(*Create(weights), x.data(), 3);
    for (size_t r = 0; r < 3; ++r) {
      const auto expected = reference::Dense<double>(weights.weight, weights.bias, weights.activation,
                                                     {x.begin() + r * 40, x.begin() + (r + 1) * 40});
      for (size_t u = 0; u < 37; ++u) ASSERT_NEAR(y[r * 37 + u], expected[u], kTolerance);
    }
  }
}

// The promise that a score does not depend on its neighbours: the same row at every place among 1 to 150 others.
TEST_F(DenseTest, ARowIsTheSameBitForBitWhereverAndWithWhomeverItIsComputed) {
  Random random(53);
  for (const auto& [in, out] : {std::pair<size_t, size_t>{384, 80},
                                {80, 40},
                                {40, 1},
                                {200, 80},
                                {131, 37},
                                {36, 1},
                                {1, 1},
                                {2, 1},
                                {3, 5},
                                {512, 16},
                                {1000, 8},
                                {1030, 257},
                                {2100, 126}}) {
    const auto layer = Create(RandomLayer(random, in, out, ActivationKind::kDice));
    const size_t rows = 150;
    const std::vector<float> x = random.Normal(rows * in, 1);
    std::vector<float> alone;
    for (size_t r = 0; r < rows; ++r) {
      const auto y = RunRows(*layer, x.data() + r * in, 1);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const size_t first : {0, 1, 5, 30}) {
      for (const size_t count : {1, 2, 3, 4, 5, 8, 15, 16, 17, 32, 63, 64, 65, 80, 119, 120}) {
        const auto y = RunRows(*layer, x.data() + first * in, count, 1e6f);
        ASSERT_EQ(std::memcmp(y.data(), alone.data() + first * out, y.size() * sizeof(float)), 0)
            << in << " -> " << out << ", rows " << first << " to " << first + count;
      }
    }
  }
}

TEST_F(DenseTest, ThreadsShareALayerAndGetTheSameBits) {
  Random random(54);
  const auto layer = Create(RandomLayer(random, 384, 80, ActivationKind::kSlope));
  const std::vector<float> x = random.Normal(70 * 384, 1);
  const std::vector<float> expected = RunRows(*layer, x.data(), 70);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) wrong[t] += RunRows(*layer, x.data(), 70) != expected;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(DenseTest, ALayerOutlivesTheThreadThatMadeIt) {
  Random random(55);
  const auto weights = RandomLayer(random, 80, 40, ActivationKind::kSigmoid);
  const std::vector<float> x = random.Normal(5 * 80, 1);
  const std::vector<float> expected = RunRows(*Create(weights), x.data(), 5);
  std::unique_ptr<const DenseLayer> layer;
  std::thread([&] { layer = Create(weights); }).join();
  EXPECT_EQ(RunRows(*layer, x.data(), 5), expected);
}

TEST_F(DenseTest, PaddedRowsCoverTheRowsAndWasteLessThanABlock) {
  EXPECT_EQ(DenseLayer::PaddedRows(0), 0u);
  for (size_t rows = 1; rows < 200; ++rows) {
    EXPECT_GE(DenseLayer::PaddedRows(rows), rows);
    EXPECT_LT(DenseLayer::PaddedRows(rows), rows + 4);
  }
}

TEST_F(DenseTest, TheLimitComesTooLateOnceALayerExists) {
#if !defined(__x86_64__)
  GTEST_SKIP() << "nothing to limit";
#endif
  Random random(56);
  Create(RandomLayer(random, 4, 4, ActivationKind::kNone));
  EXPECT_FALSE(LimitDenseInstructionSet(InstructionSet::kBaseline));
}

}  // namespace
}  // namespace din
