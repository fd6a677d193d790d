#include "kernels/interaction.h"

#include <cmath>
#include <iostream>

#include "gtest/gtest.h"
#include "kernels/reference.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

class InteractionTest : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override { std::cout << "instruction set " << Name(GetParam()) << "\n"; }
};

INSTANTIATE_TEST_SUITE_P(AllInstructionSets, InteractionTest, testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(Name(info.param)); });

constexpr size_t kWidths[] = {1, 2, 3, 7, 8, 12, 15, 16, 17, 36, 130};

// Vectors of their own memory, exactly as long as they are, so that a sanitizer sees any read past the end.
struct TestVectors {
  // `shared` of them are for all rows.
  TestVectors(Random& random, size_t n, size_t shared, size_t width, size_t rows) {
    for (size_t i = 0; i < n; ++i) {
      const bool one = (i * 7 + 3) % n < shared;  // some before and some behind the others
      memory.push_back(random.Normal((one ? 1 : rows) * width, 1));
      vectors.push_back({memory.back().data(), one ? 0 : width});
    }
  }
  std::vector<std::vector<float>> memory;
  std::vector<RowVectors> vectors;
};

// A sum of at most 130 products, or of 7 * 6 / 2, each below 20.
constexpr double kTolerance = 130 * 20 * 0x1p-24;

TEST_P(InteractionTest, BothAreTheReferenceAndNothingElseIsTouched) {
  Random random(41);
  for (const size_t width : kWidths) {
    for (const size_t n : {1, 2, 3, 7}) {
      for (size_t shared = 0; shared <= n; ++shared) {
        const size_t rows = 1 + random.Below(6);
        const TestVectors t(random, n, shared, width, rows);
        for (const bool inner : {true, false}) {
          const size_t out_width = inner ? n * (n - 1) / 2 : width;
          const size_t stride = out_width + 1 + random.Below(4);
          GuardedFloats out(rows * stride, random.Below(16));
          const InteractionArgs args{t.vectors, width, rows, out.data(), stride};
          inner ? InnerProducts(args, GetParam()) : BiInteraction(args, GetParam());
          for (size_t r = 0; r < rows; ++r) {
            const auto expected =
                inner ? reference::InnerProducts<double>(args, r) : reference::BiInteraction<double>(args, r);
            for (size_t i = 0; i < out_width; ++i) {
              ASSERT_NEAR(out[r * stride + i], expected[i], kTolerance)
                  << (inner ? "inner products" : "bi-interaction") << ", width " << width << ", " << n << " vectors, "
                  << shared << " shared, row " << r;
            }
            ASSERT_TRUE(out.IsUntouched(r * stride + out_width, (r + 1) * stride));
          }
          ASSERT_TRUE(out.GuardsIntact());
        }
      }
    }
  }
}

TEST_P(InteractionTest, RowDoesNotDependOnTheOthers) {
  Random random(42);
  constexpr size_t kRows = 9;
  for (const size_t width : kWidths) {
    const TestVectors t(random, 5, 2, width, kRows);
    for (const auto interact : {InnerProducts, BiInteraction}) {
      const size_t stride = std::max<size_t>(width, 10);
      std::vector<float> whole(kRows * stride), alone(stride);
      interact({t.vectors, width, kRows, whole.data(), stride}, GetParam());
      for (size_t r = 0; r < kRows; ++r) {
        std::vector<RowVectors> row = t.vectors;
        for (RowVectors& v : row) v.data += r * v.stride;
        interact({row, width, 1, alone.data(), stride}, GetParam());
        ASSERT_EQ(std::memcmp(alone.data(), &whole[r * stride], stride * sizeof(float)), 0) << "width " << width;
      }
    }
  }
}

// The squares of the first vector would swallow what the others say.
TEST_P(InteractionTest, OneLargeVectorDoesNotDrownTheOthers) {
  const std::vector<float> large = {1e4f}, small = {1e-3f}, other = {-2e-3f};
  const std::vector<RowVectors> vectors = {{large.data(), 0}, {small.data(), 0}, {other.data(), 0}};
  float out = 0;
  BiInteraction({vectors, 1, 1, &out, 1}, GetParam());
  EXPECT_NEAR(out, 1e4 * 1e-3 - 1e4 * 2e-3 - 2e-6, 1e-5);
}

}  // namespace
}  // namespace din
