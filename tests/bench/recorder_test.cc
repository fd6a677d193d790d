#include "bench/load/recorder.h"

#include "gtest/gtest.h"

namespace din::load {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kS = 1'000 * kMs;

TEST(RecorderTest, WarmUpLeavesNoTrace) {
  Recorder recorder({.begin_ns = kS, .seconds = 1, .slice_seconds = 0.5});
  recorder.Add({.intended_ns = kS - 1, .latency_ns = 900 * kMs});
  recorder.Add({.intended_ns = kS, .latency_ns = kMs});
  EXPECT_EQ(recorder.measurements().sent(), 1u);
  EXPECT_EQ(recorder.measurements().latency.max(), kMs);
  EXPECT_EQ(recorder.measurements().slices[0].sent, 1u);
}

// A stall belongs to the time at which requests were due, not to the time at which their answers came.
TEST(RecorderTest, SlicesGoByTheIntendedTime) {
  Recorder recorder({.begin_ns = 0, .seconds = 2, .slice_seconds = 0.5});
  recorder.Add({.intended_ns = 600 * kMs, .latency_ns = 5 * kS});
  EXPECT_EQ(recorder.measurements().slices[1].latency.max(), 5 * kS);
  EXPECT_EQ(recorder.measurements().slices.size(), 4u);
}

TEST(RecorderTest, ALateAnswerIsRightButNotGood) {
  Recorder recorder({.seconds = 1, .slice_seconds = 1, .deadline_ns = 10 * kMs});
  recorder.Add({.latency_ns = 10 * kMs});
  recorder.Add({.latency_ns = 11 * kMs});
  EXPECT_EQ(recorder.measurements().ok(), 2u);
  EXPECT_EQ(recorder.measurements().slices[0].good, 1u);
}

TEST(RecorderTest, RefusalsStayOutOfTheLatencies) {
  Recorder recorder({.seconds = 1, .slice_seconds = 1});
  recorder.Add({.latency_ns = kMs, .outcome = 8});
  recorder.Add({.outcome = kNotSent});
  const Measurements& m = recorder.measurements();
  EXPECT_EQ(m.latency.count(), 0u);
  EXPECT_EQ(m.refusal.count(), 1u);
  EXPECT_EQ(m.lag.count(), 1u);
  EXPECT_EQ(m.slices[0].errors, 2u);
  EXPECT_EQ(m.sent(), 2u);
}

TEST(RecorderTest, MergedThreadsAreOneRun) {
  const Recorder::Options options{.seconds = 1, .slice_seconds = 0.5};
  Recorder a(options), b(options);
  a.Add({.intended_ns = 100 * kMs, .latency_ns = kMs, .version = 2});
  b.Add({.intended_ns = 50 * kMs, .latency_ns = 2 * kMs, .version = 2});
  b.Add({.intended_ns = 700 * kMs, .latency_ns = 3 * kMs, .version = 3});
  b.AddWrong("why");
  Measurements all(1, 0.5);
  all.Merge(a.measurements());
  all.Merge(b.measurements());
  EXPECT_EQ(all.ok(), 3u);
  EXPECT_EQ(all.versions.at(2).answers, 2u);
  EXPECT_EQ(all.versions.at(2).first_ns, 50 * kMs);
  EXPECT_EQ(all.versions.at(3).last_ns, 700 * kMs);
  EXPECT_EQ(all.slices[0].sent, 2u);
  EXPECT_EQ(all.wrong.size(), 1u);
}

TEST(RecorderTest, TheRecentSliceStartsAnewEachTime) {
  Recorder recorder({.begin_ns = kS, .seconds = 1, .slice_seconds = 1});
  recorder.Add({.intended_ns = 0});
  EXPECT_EQ(recorder.TakeRecent().sent, 1u);
  EXPECT_EQ(recorder.TakeRecent().sent, 0u);
}

TEST(RecorderTest, OutcomesHaveTheNamesOfGrpc) {
  EXPECT_EQ(Name(0), "OK");
  EXPECT_EQ(Name(4), "DEADLINE_EXCEEDED");
  EXPECT_EQ(Name(8), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(Name(14), "UNAVAILABLE");
  EXPECT_EQ(Name(kNotSent), "NOT_SENT");
  EXPECT_EQ(Name(-1), "UNKNOWN");
}

}  // namespace
}  // namespace din::load
