#include "bench/load/find_max.h"

#include <map>

#include "gtest/gtest.h"

namespace din::load {
namespace {

// A service that keeps its objective up to `capacity`.
auto UpTo(double capacity, int* probes = nullptr) {
  return [=](double rate) -> absl::StatusOr<Verdict> {
    if (probes != nullptr) ++*probes;
    return rate <= capacity ? Verdict::kMet : Verdict::kMissed;
  };
}

TEST(FindMaxTest, FindsTheCapacityFromAnyStart) {
  for (const double capacity : {3.0, 140.0, 1000.0, 7321.0, 900'000.0}) {
    for (const double start : {1.0, 1000.0, 100'000.0}) {
      const auto found = FindMax({.start = start}, UpTo(capacity));
      ASSERT_TRUE(found.ok());
      EXPECT_LE(found->rate, capacity);
      EXPECT_GE(found->rate * 1.0301, capacity) << capacity << " from " << start;
      EXPECT_EQ(found->bounded_by, "the objective");
    }
  }
}

TEST(FindMaxTest, TakesFewProbes) {
  int probes = 0;
  ASSERT_TRUE(FindMax({.start = 1000}, UpTo(5000, &probes)).ok());
  EXPECT_LE(probes, 2 * 11);
}

// On a shared machine a single try says little: one bad second must not halve the answer.
TEST(FindMaxTest, OneBadTryInThreeDoesNotDecide) {
  std::map<double, int> tries;
  const auto probe = [&](double rate) -> absl::StatusOr<Verdict> {
    const bool hiccup = ++tries[rate] == 1;
    return rate <= 5000 && !hiccup ? Verdict::kMet : Verdict::kMissed;
  };
  const auto found = FindMax({.start = 1000}, probe);
  ASSERT_TRUE(found.ok());
  EXPECT_GE(found->rate * 1.0301, 5000);
}

// Nor must a bad minute, in which whole rates fail, be the last word.
TEST(FindMaxTest, ABadSpellDoesNotBoundTheAnswer) {
  int probes = 0;
  const auto probe = [&](double rate) -> absl::StatusOr<Verdict> {
    const bool spell = ++probes >= 3 && probes <= 8;
    return rate <= 5000 && !spell ? Verdict::kMet : Verdict::kMissed;
  };
  const auto found = FindMax({.start = 1000}, probe);
  ASSERT_TRUE(found.ok());
  EXPECT_LE(found->rate, 5000);
  EXPECT_GE(found->rate * 1.0301, 5000);
}

TEST(FindMaxTest, AGeneratorThatCannotKeepUpBoundsTheAnswer) {
  const auto probe = [](double rate) -> absl::StatusOr<Verdict> {
    return rate <= 2000 ? Verdict::kMet : Verdict::kUnproven;
  };
  const auto found = FindMax({.start = 1000}, probe);
  ASSERT_TRUE(found.ok());
  EXPECT_NEAR(found->rate, 2000, 60);
  EXPECT_EQ(found->bounded_by, "the generator");
}

TEST(FindMaxTest, StopsAtTheHighestRateAllowed) {
  const auto found = FindMax({.start = 1000, .most = 5000}, UpTo(1e9));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->rate, 5000);
  EXPECT_EQ(found->bounded_by, "--max-rate");
}

TEST(FindMaxTest, ZeroWhenNothingPasses) {
  const auto found = FindMax({.start = 1000}, UpTo(0));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->rate, 0);
}

TEST(FindMaxTest, AProbesErrorEndsTheSearch) {
  const auto found = FindMax({}, [](double) { return absl::UnavailableError("gone"); });
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace din::load
