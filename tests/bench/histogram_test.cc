#include "bench/load/histogram.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace din::load {
namespace {

TEST(HistogramTest, EmptyHasNoQuantiles) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Quantile(0.5), 0);
  EXPECT_EQ(histogram.min(), 0);
  EXPECT_EQ(histogram.Mean(), 0);
}

TEST(HistogramTest, SmallValuesAreExact) {
  for (int64_t value = 0; value < 256; ++value) {
    Histogram histogram;
    histogram.Add(value);
    EXPECT_EQ(histogram.Quantile(1), value);
  }
}

// Against sorted values, over the whole range. A uniform logarithm visits every bucket size.
TEST(HistogramTest, QuantilesAreWithinOnePercentOfTheSortedValues) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 rng(kSeed);
  std::uniform_real_distribution<double> exponent(0, 12.6);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 100'000; ++i) {
    values.push_back(std::llround(std::pow(10, exponent(rng))));
    histogram.Add(values.back());
  }
  std::ranges::sort(values);
  for (const double q : {0.0001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999}) {
    const auto exact = static_cast<double>(values[static_cast<size_t>(std::ceil(q * 100'000)) - 1]);
    EXPECT_NEAR(static_cast<double>(histogram.Quantile(q)), exact, 0.004 * exact + 0.5) << q;
  }
  EXPECT_EQ(histogram.Quantile(1), values.back());
  EXPECT_EQ(histogram.max(), values.back());
  EXPECT_EQ(histogram.min(), values.front());
}

TEST(HistogramTest, AnyValueComesBackWithinOnePercent) {
  for (int64_t value = 1; value < Histogram::kLargest; value += value / 97 + 1) {
    Histogram histogram;
    histogram.Add(0);  // so that the quantile is not the exact minimum
    histogram.Add(value);
    histogram.Add(Histogram::kLargest);
    EXPECT_NEAR(static_cast<double>(histogram.Quantile(0.5)), static_cast<double>(value), 0.004 * value) << value;
  }
}

TEST(HistogramTest, ValuesBeyondTheRangeAreClampedToIt) {
  Histogram histogram;
  histogram.Add(-5);
  histogram.Add(INT64_MAX);
  EXPECT_EQ(histogram.min(), 0);
  EXPECT_EQ(histogram.max(), Histogram::kLargest);
}

TEST(HistogramTest, RanksAreNotShiftedByBinaryFractions) {
  Histogram histogram;
  for (int i = 1; i <= 100; ++i) histogram.Add(i);
  EXPECT_EQ(histogram.Quantile(0.99), 99);
  EXPECT_EQ(histogram.Quantile(0.9), 90);
  EXPECT_EQ(histogram.Quantile(0.07), 7);
}

TEST(HistogramTest, MissingValuesAreInfinitelyLarge) {
  Histogram histogram;
  for (int i = 1; i <= 98; ++i) histogram.Add(i);
  EXPECT_EQ(histogram.AtRank(0.98, 100), 98);
  EXPECT_EQ(histogram.AtRank(0.99, 100), Histogram::kInfinite);
}

TEST(HistogramTest, MergedIsTheSameAsAddedTogether) {
  Histogram all, even, odd;
  for (int64_t v = 0; v < 1'000'000; v += 7) {
    all.Add(v);
    (v % 2 == 0 ? even : odd).Add(v);
  }
  even.Merge(odd);
  EXPECT_EQ(even.count(), all.count());
  EXPECT_EQ(even.min(), all.min());
  EXPECT_EQ(even.max(), all.max());
  EXPECT_DOUBLE_EQ(even.Mean(), all.Mean());
  for (const double q : {0.01, 0.5, 0.99, 1.0}) EXPECT_EQ(even.Quantile(q), all.Quantile(q));
}

}  // namespace
}  // namespace din::load
