#include "bench/load/schedule.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::HasSubstr;

std::vector<double> Times(const Schedule& schedule, Arrivals arrivals, uint64_t seed = 1) {
  ArrivalStream stream(schedule, arrivals, seed);
  std::vector<double> times;
  while (const auto ns = stream.Next()) times.push_back(static_cast<double>(*ns) * 1e-9);
  return times;
}

TEST(ScheduleTest, ConstantArrivalsAreEvenlySpaced) {
  const std::vector<double> times = Times(*Schedule::Parse("100:2s"), Arrivals::kConstant);
  ASSERT_EQ(times.size(), 200u);
  for (size_t i = 0; i < times.size(); ++i) EXPECT_NEAR(times[i], i * 0.01, 1e-9);
}

TEST(ScheduleTest, PoissonGapsHaveMeanAndDeviationOfTheirRate) {
  const std::vector<double> times = Times(*Schedule::Parse("1000:100s"), Arrivals::kPoisson);
  const double n = static_cast<double>(times.size());
  EXPECT_NEAR(n, 100'000, 5 * std::sqrt(100'000));
  double sum = 0, squares = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    const double gap = times[i] - times[i - 1];
    ASSERT_GE(gap, 0);
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / n;
  EXPECT_NEAR(mean, 0.001, 0.00002);
  EXPECT_NEAR(std::sqrt(squares / n - mean * mean), 0.001, 0.00003);
}

TEST(ScheduleTest, TheSameSeedGivesTheSameArrivals) {
  const Schedule schedule = *Schedule::Parse("1000:1s");
  EXPECT_EQ(Times(schedule, Arrivals::kPoisson, 7), Times(schedule, Arrivals::kPoisson, 7));
  EXPECT_NE(Times(schedule, Arrivals::kPoisson, 7), Times(schedule, Arrivals::kPoisson, 8));
}

TEST(ScheduleTest, ARampsArrivalsFollowItsIntegral) {
  const Schedule schedule = *Schedule::Parse("0..1000:10s");
  EXPECT_DOUBLE_EQ(schedule.Requests(), 5000);
  EXPECT_DOUBLE_EQ(schedule.MeanRate(), 500);
  EXPECT_DOUBLE_EQ(schedule.RateAt(2.5), 250);
  // A quarter of the requests come in the first half.
  EXPECT_NEAR(*schedule.TimeOf(1250), 5, 1e-9);
  EXPECT_EQ(Times(schedule, Arrivals::kConstant).size(), 5000u);
}

TEST(ScheduleTest, ARampDownEndsWhereItShould) {
  const Schedule schedule = *Schedule::Parse("1000..0:10s");
  EXPECT_NEAR(*schedule.TimeOf(4999.999), 10, 0.02);
  EXPECT_FALSE(schedule.TimeOf(5000).has_value());
}

TEST(ScheduleTest, NothingIsDueInAPause) {
  const std::vector<double> times = Times(*Schedule::Parse("100:1s,0:5s,100:1s"), Arrivals::kConstant);
  ASSERT_EQ(times.size(), 200u);
  EXPECT_NEAR(times[99], 0.99, 1e-9);
  EXPECT_NEAR(times[100], 6.0, 1e-9);
}

TEST(ScheduleTest, WarmUpHoldsTheFirstRateInFront) {
  const Schedule schedule = Schedule::Parse("100..300:10s")->WithWarmUp(2);
  EXPECT_DOUBLE_EQ(schedule.Seconds(), 12);
  EXPECT_DOUBLE_EQ(schedule.RateAt(1), 100);
  EXPECT_DOUBLE_EQ(schedule.RateAt(7), 200);
}

TEST(ScheduleTest, BadProfilesAreRefusedByName) {
  for (const char* text : {"", "100", "100:", ":1s", "100:1", "a:1s", "1..2..3:1s", "-5:1s", "inf:1s", "nan:1s",
                           "5:-1s", "0:10s", "100:1s,,"}) {
    EXPECT_EQ(Schedule::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(std::string(Schedule::Parse("20..30").status().message()), HasSubstr("RATE..RATE:TIME"));
}

}  // namespace
}  // namespace din::load
