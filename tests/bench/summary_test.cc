#include "bench/load/summary.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kUs = 1'000;
constexpr int64_t kMs = 1'000'000;

// A thousand requests in one second.
RunOutcome Outcome(int64_t latency_ns, int64_t lag_ns) {
  Recorder recorder({.seconds = 1, .slice_seconds = 0.1});
  for (int i = 0; i < 1000; ++i) recorder.Add({.intended_ns = i * kMs, .lag_ns = lag_ns, .latency_ns = latency_ns});
  return {.measurements = recorder.measurements(), .seconds = 1};
}

TEST(SummaryTest, LagUnderAHundredMicrosecondsIsValid) {
  EXPECT_THAT(WhyInvalid(Outcome(200 * kUs, 99 * kUs)), IsEmpty());
}

TEST(SummaryTest, LagAboveFivePercentOfTheLatencyIsInvalid) {
  EXPECT_THAT(WhyInvalid(Outcome(10 * kMs, 450 * kUs)), IsEmpty());
  EXPECT_THAT(WhyInvalid(Outcome(10 * kMs, 550 * kUs)), ElementsAre(HasSubstr("send lag p99")));
  EXPECT_THAT(WhyInvalid(Outcome(200 * kUs, 150 * kUs)), ElementsAre(HasSubstr("send lag p99")));
}

// An idle machine wakes a sender late, and answers at once: of the objective that says enough.
TEST(SummaryTest, LagIsHeldToTheObjectiveWhereThatIsAllThatIsAsked) {
  const Objective objective{"p99<20ms", 0.99, 20 * kMs};
  EXPECT_THAT(WhyInvalid(Outcome(3 * kMs, 300 * kUs)), ElementsAre(HasSubstr("send lag p99 300 us > 150 us")));
  EXPECT_THAT(WhyInvalid(Outcome(3 * kMs, 300 * kUs), objective), IsEmpty());
  EXPECT_THAT(WhyInvalid(Outcome(3 * kMs, 1100 * kUs), objective), ElementsAre(HasSubstr("send lag p99")));
}

TEST(SummaryTest, ARunThatWasStoppedIsInvalid) {
  RunOutcome outcome = Outcome(kMs, 0);
  outcome.stopped = true;
  EXPECT_THAT(WhyInvalid(outcome), ElementsAre(HasSubstr("stopped")));
}

TEST(SummaryTest, ARunThatCouldNotSendIsInvalid) {
  RunOutcome outcome = Outcome(kMs, 0);
  outcome.measurements.outcomes[kNotSent] = 3;
  EXPECT_THAT(WhyInvalid(outcome), ElementsAre(HasSubstr("3 requests were not sent")));
}

// 2 % refused: p99 over those that were answered would be fine, and a lie.
TEST(SummaryTest, ErrorsCountAgainstTheObjective) {
  const Objective objective{"p99<5ms", 0.99, 5 * kMs};
  RunOutcome outcome = Outcome(kMs, 0);
  EXPECT_TRUE(Meets(Summarise(outcome, objective), objective));
  outcome.measurements.outcomes[8] = 21;
  EXPECT_FALSE(Meets(Summarise(outcome, objective), objective));
}

TEST(SummaryTest, TheLimitItselfIsNotBelowTheLimit) {
  const Objective objective{"p99<5ms", 0.99, 5 * kMs};
  EXPECT_FALSE(Meets(Summarise(Outcome(5 * kMs, 0), objective), objective));
}

TEST(SummaryTest, AStretchOfErrorsIsOneEvent) {
  Recorder recorder({.seconds = 1, .slice_seconds = 0.1});
  for (int i = 0; i < 1000; ++i) {
    const bool bad = i >= 300 && i < 500;
    recorder.Add({.intended_ns = i * kMs, .latency_ns = kMs, .outcome = bad ? 14 : 0, .version = i < 700 ? 1 : 2});
  }
  const RunSummary summary = Summarise({.measurements = recorder.measurements(), .seconds = 1}, std::nullopt);
  ASSERT_EQ(summary.events.size(), 2u);
  EXPECT_EQ(summary.events[0].kind, Event::Kind::kSwap);
  EXPECT_NEAR(summary.events[0].seconds, 0.7, 1e-9);
  EXPECT_EQ(summary.events[1].text, "200 errors in 0.2 s");
  EXPECT_NEAR(summary.events[1].seconds, 0.3, 1e-9);
  EXPECT_EQ(summary.errors.at("UNAVAILABLE"), 200u);
  EXPECT_DOUBLE_EQ(summary.goodput, 800);
}

}  // namespace
}  // namespace din::load
