#include "kernels/matrix_unit.h"

#include <iostream>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/precision.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

// Operands of one call, those of a and b with what rounding left of them behind.
struct Operands {
  Operands(Random& random, size_t tiles, size_t depth)
      : tiles(tiles), depth(depth), columns(tiles * kMatrixColumns), a(16 * 2 * depth), b(depth * columns), bias(256) {
    left = random.Normal(16 * depth, 1);
    right = random.Normal(depth * columns, 1);
    for (size_t m = 0; m < 16; ++m) {
      for (size_t k = 0; k < depth; ++k) {
        const float x = left[m * depth + k];
        a[m * 2 * depth + k] = ToBf16(x);
        a[m * 2 * depth + depth + k] = ToBf16(x - FromBf16(ToBf16(x)));
      }
    }
    const auto low = [](float x) { return x - FromBf16(ToBf16(x)); };
    for (size_t k = 0; k < depth; k += 2) {
      for (size_t n = 0; n < columns; ++n) {
        const float x = right[k * columns + n];
        const float y = right[(k + 1) * columns + n];
        b[k * columns + n] = Bf16Pair(x, y);
        b[(k + 1) * columns + n] = Bf16Pair(low(x), low(y));
      }
    }
    const std::vector<float> biases = random.Normal(16, 1);
    for (size_t m = 0; m < 16; ++m) std::fill_n(&bias[m * 16], 16, biases[m]);
  }

  std::vector<float> Multiply(const MatrixUnit& unit, bool split) const {
    GuardedFloats c(16 * columns);
    unit.begin();
    (split ? unit.split : unit.bf16)[tiles - 1]({.a = a.data(),
                                                 .a_step = 2 * depth,
                                                 .b = b.data(),
                                                 .b_step = 2 * columns,
                                                 .depth = depth,
                                                 .bias = bias.data(),
                                                 .c = c.data(),
                                                 .c_step = columns,
                                                 .a_low = depth,
                                                 .b_low = columns});
    unit.end();
    EXPECT_TRUE(c.GuardsIntact());
    return {c.data(), c.data() + 16 * columns};
  }

  // Of the factors as they are, or rounded.
  double Exact(size_t m, size_t n, bool rounded) const {
    double sum = bias[m * 16];
    for (size_t k = 0; k < depth; ++k) {
      const float x = left[m * depth + k];
      const float y = right[k * columns + n];
      sum += rounded ? static_cast<double>(FromBf16(ToBf16(x))) * FromBf16(ToBf16(y)) : static_cast<double>(x) * y;
    }
    return sum;
  }

  size_t tiles, depth, columns;
  std::vector<float> left, right;
  std::vector<uint16_t> a;
  std::vector<float> b;
  std::vector<float> bias;
};

class MatrixUnitTest : public testing::TestWithParam<const MatrixUnit*> {};
INSTANTIATE_TEST_SUITE_P(Emulated, MatrixUnitTest, testing::Values(&EmulatedMatrixUnit()));
INSTANTIATE_TEST_SUITE_P(OfCpu, MatrixUnitTest,
                         testing::ValuesIn(MatrixUnitOfCpu() == nullptr ? std::vector<const MatrixUnit*>{}
                                                                        : std::vector{MatrixUnitOfCpu()}));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MatrixUnitTest);

TEST_P(MatrixUnitTest, MultipliesTilesOfEveryNumberAndDepth) {
  Random random(71);
  for (const size_t tiles : {1, 2, 3}) {
    for (const size_t depth : {32, 64, 96, 128, 160, 512}) {
      const Operands operands(random, tiles, depth);
      for (const bool split : {false, true}) {
        const std::vector<float> c = operands.Multiply(*GetParam(), split);
        // Sums of `depth` products of size 1: floats err by 2^-24 of that, split factors by 2^-18 of each product.
        const double tolerance = std::sqrt(static_cast<double>(depth)) * (split ? 4e-5 : 2e-6);
        for (size_t m = 0; m < 16; ++m) {
          for (size_t n = 0; n < operands.columns; ++n) {
            ASSERT_NEAR(c[m * operands.columns + n], operands.Exact(m, n, !split), tolerance)
                << (split ? "split " : "bf16 ") << tiles << " tiles, depth " << depth << ": " << m << ", " << n;
          }
        }
      }
    }
  }
}

TEST_P(MatrixUnitTest, AnElementDependsOnItsRowAndColumnAlone) {
  Random random(72);
  const Operands three(random, 3, 96);
  for (const bool split : {false, true}) {
    const std::vector<float> c = three.Multiply(*GetParam(), split);
    for (size_t tile = 0; tile < 3; ++tile) {
      std::vector<float> one(256);
      GetParam()->begin();
      (split ? GetParam()->split : GetParam()->bf16)[0]({.a = three.a.data(),
                                                         .a_step = 192,
                                                         .b = three.b.data() + tile * 16,
                                                         .b_step = 96,
                                                         .depth = 96,
                                                         .bias = three.bias.data(),
                                                         .c = one.data(),
                                                         .c_step = 16,
                                                         .a_low = 96,
                                                         .b_low = 48});
      GetParam()->end();
      for (size_t m = 0; m < 16; ++m) {
        ASSERT_TRUE(std::equal(&one[m * 16], &one[m * 16 + 16], &c[m * 48 + tile * 16])) << m;
      }
    }
  }
}

TEST(MatrixUnitOfCpuTest, IsWhatThePrecisionsStandOn) {
  const bool amx = BestInstructionSet() == InstructionSet::kAvx512 && MatrixUnitOfCpu() != nullptr;
  std::cout << "matrix unit of this CPU: " << (amx ? "AMX" : "none") << "\n";
  EXPECT_EQ(CurrentMatrixUnit(), MatrixUnitOfCpu());
  EXPECT_EQ(Supports(BestInstructionSet(), Precision::kFp32Split), amx);
  if (BestInstructionSet() != InstructionSet::kAvx512) GTEST_SKIP() << "no AVX-512";
  const ScopedMatrixUnit scoped(&EmulatedMatrixUnit());
  EXPECT_TRUE(Supports(BestInstructionSet(), Precision::kFp32Split));
  EXPECT_EQ(NearestSupported(BestInstructionSet(), Precision::kBf16), Precision::kBf16);
  EXPECT_EQ(NearestSupported(InstructionSet::kAvx2, Precision::kBf16), Precision::kFp32);
}

}  // namespace
}  // namespace din
