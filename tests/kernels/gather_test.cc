#include "kernels/gather.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iostream>

#include "gtest/gtest.h"
#include "kernels/flush_denormals.h"
#include "kernels/int8_rows.h"
#include "kernels/reference.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

constexpr RowType kAllTypes[] = {RowType::kF32, RowType::kF16, RowType::kBF16, RowType::kI8};

class GatherTest : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override { std::cout << "instruction set " << Name(GetParam()) << "\n"; }
};

INSTANTIATE_TEST_SUITE_P(AllInstructionSets, GatherTest, testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(Name(info.param)); });

// A table of its own memory, exactly as long as its rows, so that a sanitizer sees any read past the last.
struct TestTable {
  TestTable(Random& random, RowType type, size_t rows, size_t dim) {
    if (type == RowType::kF32) {
      floats = random.Normal(rows * dim, 1);
    } else if (type == RowType::kI8) {
      for (size_t i = 0; i < rows * dim; ++i) bytes.push_back(static_cast<int8_t>(random.Below(256)));
      scales = random.Normal(rows, 0.02f);
    } else {
      for (size_t i = 0; i < rows * dim; ++i) {
        const float v = random.Uniform(-2, 2);
        // The upper half of a float is a bfloat16; with the lowest exponent bits of a half any pattern is a number.
        halves.push_back(type == RowType::kBF16 ? static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16)
                                                : static_cast<uint16_t>(random.Below(0x7C00) | random.Below(2) << 15));
      }
    }
    const void* data = halves.data();
    if (type == RowType::kF32) data = floats.data();
    if (type == RowType::kI8) data = bytes.data();
    table = {data, type, rows, dim, scales.data()};
  }
  std::vector<float> floats, scales;
  std::vector<int8_t> bytes;
  std::vector<uint16_t> halves;
  EmbeddingTable table;
};

std::vector<uint32_t> RandomRows(Random& random, size_t count, size_t table_rows) {
  std::vector<uint32_t> rows;
  for (size_t i = 0; i < count; ++i) {
    rows.push_back(random.Below(10) == 0 ? kZeroRow : static_cast<uint32_t>(random.Below(table_rows)));
  }
  return rows;
}

constexpr size_t kDims[] = {1, 2, 3, 7, 8, 12, 15, 16, 17, 36, 64, 130, 300};

TEST_P(GatherTest, RowsAreWidenedExactlyAndNothingElseIsTouched) {
  Random random(21);
  for (const RowType type : kAllTypes) {
    for (const size_t dim : kDims) {
      const TestTable t(random, type, 23, dim);
      for (const size_t count : {0, 1, 7, 50}) {
        const auto rows = RandomRows(random, count, 23);
        const size_t stride = dim + random.Below(5);
        GuardedFloats out(count * stride, random.Below(16));
        Gather(t.table, rows, out.data(), stride, GetParam());
        for (size_t i = 0; i < count; ++i) {
          const auto expected = reference::Row(t.table, rows[i]);
          ASSERT_EQ(std::memcmp(out.data() + i * stride, expected.data(), dim * sizeof(float)), 0)
              << "type " << static_cast<int>(type) << " dim " << dim << " row " << rows[i];
          ASSERT_TRUE(out.IsUntouched(i * stride + dim, (i + 1) * stride));
        }
        ASSERT_TRUE(out.GuardsIntact());
      }
    }
  }
}

// All 65,536 patterns: zeros, subnormals, infinities and NaNs among them.
void ExpectEveryPatternToWiden(InstructionSet isa, RowType type, float (*widen)(uint16_t)) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  const uint32_t row = 0;
  std::vector<float> out(patterns.size());
  Gather({patterns.data(), type, 1, patterns.size()}, {&row, 1}, out.data(), out.size(), isa);
  for (size_t i = 0; i < patterns.size(); ++i) {
    const float expected = widen(patterns[i]);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(out[i])) << i;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(expected)) << i;
    }
  }
}

TEST_P(GatherTest, EveryHalfIsExact) {
  ExpectEveryPatternToWiden(GetParam(), RowType::kF16, reference::FromHalf);
}

TEST_P(GatherTest, EveryBFloat16IsExact) {
  ExpectEveryPatternToWiden(GetParam(), RowType::kBF16, FromBf16);
}

// Each of the 256 bytes, under scales that round, and that lose bits.
TEST_P(GatherTest, EveryByteIsScaledWithOneRounding) {
  std::vector<int8_t> bytes(256);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<int8_t>(i);
  for (const float scale : {0.0f, 1.0f, 0.1f, -3.3333333f, 1e-30f, 0x1p-149f, 2e36f}) {
    const uint32_t row = 0;
    std::vector<float> out(bytes.size());
    Gather({bytes.data(), RowType::kI8, 1, bytes.size(), &scale}, {&row, 1}, out.data(), out.size(), GetParam());
    for (size_t i = 0; i < bytes.size(); ++i) {
      const auto exact = static_cast<float>(double{scale} * bytes[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(exact)) << i << " * " << scale;
    }
  }
}

TEST(QuantizeRowTest, AnElementMovesByHalfAStepAtMost) {
  Random random(23);
  for (const float magnitude : {0.0f, 1e-40f, 1e-6f, 1.0f, 1e30f}) {
    const std::vector<float> row = random.Normal(100, magnitude);
    std::vector<int8_t> bytes(row.size());
    const float scale = QuantizeRow(row, bytes.data());
    for (size_t d = 0; d < row.size(); ++d) {
      const double step = double{scale} * bytes[d];
      ASSERT_LE(std::abs(step - double{row[d]}), 0.5001 * double{scale} + 0x1p-149 * 127) << row[d];
    }
    if (magnitude > 1e-30f) {  // the largest takes the whole range
      EXPECT_TRUE(std::any_of(bytes.begin(), bytes.end(), [](int8_t b) { return b == 127 || b == -127; }));
    }
  }
}

TEST_P(GatherTest, SubnormalHalvesSurviveAThreadThatFlushesDenormals) {
  const uint16_t smallest = 1;
  const uint32_t row = 0;
  float out = 0;
  {
    const ScopedFlushDenormals flush;
    Gather({&smallest, RowType::kF16, 1, 1}, {&row, 1}, &out, 1, GetParam());
  }
  EXPECT_EQ(out, 0x1p-24f);
}

// Sums of up to 50 values of size 1: each addition rounds to within 2^-24 of a sum below 32.
TEST_P(GatherTest, PoolsAreTheReferenceForEveryKindAndCount) {
  Random random(22);
  for (const RowType type : kAllTypes) {
    for (const size_t dim : {1, 3, 12, 17, 64, 130}) {
      const TestTable t(random, type, 23, dim);
      for (const size_t count : {0, 1, 2, 3, 16, 50}) {
        const auto rows = RandomRows(random, count, 23);
        for (const PoolKind kind : {PoolKind::kMean, PoolKind::kSum, PoolKind::kMax}) {
          GuardedFloats out(dim, random.Below(16));
          GatherPool(t.table, rows, kind, 1e-3f, -7.5f, out.data(), GetParam());
          const auto expected = reference::GatherPool<double>(t.table, rows, kind, 1e-3f, -7.5f);
          for (size_t d = 0; d < dim; ++d) {
            const double largest = type == RowType::kF16 ? 65504.0 : 8.0;  // random patterns against random numbers
            const double tolerance = kind == PoolKind::kMax ? 0.0 : 50 * 50 * largest * 0x1p-24;
            ASSERT_NEAR(out[d], expected[d], tolerance) << "kind " << static_cast<int>(kind) << " count " << count;
          }
          ASSERT_TRUE(out.GuardsIntact());
        }
      }
    }
  }
}

TEST_P(GatherTest, MeanDividesByCountPlusEpsilon) {
  const std::vector<float> table = {2, 4};
  const std::vector<uint32_t> rows = {0, 1, kZeroRow};
  float out = 0;
  GatherPool({table.data(), RowType::kF32, 2, 1}, rows, PoolKind::kMean, 1.0f, 0, &out, GetParam());
  EXPECT_EQ(out, 1.5f);
}

TEST_P(GatherTest, MaxCountsTheZeroRowAsZeros) {
  const std::vector<float> table = {-2, -4};
  const std::vector<uint32_t> with_zero = {0, kZeroRow, 1};
  const std::vector<uint32_t> without = {1, 0};
  float out = 1;
  GatherPool({table.data(), RowType::kF32, 2, 1}, with_zero, PoolKind::kMax, 0, 0, &out, GetParam());
  EXPECT_EQ(out, 0.0f);
  GatherPool({table.data(), RowType::kF32, 2, 1}, without, PoolKind::kMax, 0, 0, &out, GetParam());
  EXPECT_EQ(out, -2.0f);
}

}  // namespace
}  // namespace din
