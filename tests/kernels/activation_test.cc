#include "kernels/activation.h"

#include <cfloat>
#include <cmath>
#include <iostream>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/reference.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

class ActivationTest : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override { std::cout << "instruction set " << Name(GetParam()) << "\n"; }
};

INSTANTIATE_TEST_SUITE_P(AllInstructionSets, ActivationTest, testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(Name(info.param)); });

// The polynomial, the sum, the division and the rounding of x * log2(e) each cost at most half a unit in the last place
// of a number below 1 (3e-8), all of them damped by s (1 - s) <= 1/4 except the last: 1e-7, and a factor of two.
TEST_P(ActivationTest, SigmoidIsExactTo2em7) {
  std::vector<float> x;
  for (int i = -1'000'000; i <= 1'000'000; i += 17) x.push_back(static_cast<float>(i) * 1e-4f);
  for (float magnitude = FLT_MIN; magnitude < FLT_MAX / 2; magnitude *= 2) {
    x.push_back(magnitude);
    x.push_back(-magnitude);
  }
  std::vector<float> y = x;
  Sigmoid(GetParam(), y.data(), y.size());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(y[i] >= 0 && y[i] <= 1) << x[i] << " -> " << y[i];
    worst = std::max(worst, std::abs(y[i] - reference::Sigmoid<double>(x[i])));
  }
  std::cout << "largest error " << worst << "\n";
  EXPECT_LE(worst, 2e-7);
}

TEST_P(ActivationTest, SigmoidOfExtremesIsANumberInItsRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = {infinity, -infinity, FLT_MAX, -FLT_MAX, 0.0f, -0.0f, FLT_MIN, 1e-42f, -1e-42f};
  const std::vector<float> expected = {1, 0, 1, 0, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f};
  Sigmoid(GetParam(), x.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(x[i], expected[i], 1e-37) << i;
    EXPECT_GE(x[i], 0.0f);
    EXPECT_LE(x[i], 1.0f);
  }
}

// One unit in the last place of a value of up to 10 is 1e-6; the row's sums add up to 130 such terms, but divide them
// by a root of their squares. Dice' slope of 3 multiplies the sigmoid's argument, whose error stays below 1e-6.
TEST_P(ActivationTest, EveryKindIsTheReferenceOnEveryLengthAndLeavesItsSurroundings) {
  Random random(11);
  for (const ActivationKind kind : kAllActivations) {
    for (const size_t units : {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 36, 40, 63, 80, 130}) {
      const Activation a = random.OfKind(kind, units);
      const size_t rows = 3;
      const size_t stride = units + random.Below(6);
      GuardedFloats x(rows * stride, random.Below(16));
      std::vector<std::vector<double>> expected(rows);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t u = 0; u < units; ++u) expected[r].push_back(x[r * stride + u] = random.Uniform(-8, 8));
        reference::Activate<double>(a, expected[r]);
      }
      Activate(a, GetParam(), x.data(), rows, units, stride);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t u = 0; u < units; ++u) {
          ASSERT_NEAR(x[r * stride + u], expected[r][u], 4e-6)
              << "kind " << static_cast<int>(kind) << " units " << units << " row " << r << " unit " << u;
        }
        ASSERT_TRUE(r + 1 == rows || x.IsUntouched(r * stride + units, (r + 1) * stride));
      }
      ASSERT_TRUE(x.GuardsIntact());
    }
  }
}

TEST_P(ActivationTest, ARowIsTheSameAloneAndAmongOthers) {
  Random random(12);
  for (const ActivationKind kind : kAllActivations) {
    const size_t units = 37;
    const Activation a = random.OfKind(kind, units);
    const std::vector<float> input = random.Normal(5 * units, 3);
    std::vector<float> together = input;
    Activate(a, GetParam(), together.data(), 5, units, units);
    for (size_t r = 0; r < 5; ++r) {
      std::vector<float> alone(input.begin() + r * units, input.begin() + (r + 1) * units);
      Activate(a, GetParam(), alone.data(), 1, units, units);
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + r * units, units * sizeof(float)), 0);
    }
  }
}

TEST_P(ActivationTest, HugeAndEqualInputsStayFinite) {
  for (const ActivationKind kind : kAllActivations) {
    for (const float magnitude : {0.0f, 1e-42f, 1.0f, 1e15f, 1e30f}) {
      Activation a = Random(13).OfKind(kind, 20);
      a.scale.assign(a.scale.size(), 1e3f);
      a.eps = 0;
      std::vector<float> x(40, magnitude);
      for (size_t i = 20; i < 40; i += 2) x[i] = -magnitude;
      Activate(a, GetParam(), x.data(), 2, 20, 20);
      for (const float v : x) {
        EXPECT_TRUE(std::isfinite(v)) << "kind " << static_cast<int>(kind) << " magnitude " << magnitude;
      }
    }
  }
}

TEST_P(ActivationTest, NoRowsIsNoWork) {
  GuardedFloats x(0);
  Activate(Random(14).OfKind(ActivationKind::kDice, 8), GetParam(), x.data(), 0, 8, 8);
  Sigmoid(GetParam(), x.data(), 0);
  EXPECT_TRUE(x.GuardsIntact());
}

}  // namespace
}  // namespace din
