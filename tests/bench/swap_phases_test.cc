// Which requests swap_bench counts to which part of a swap.
#include "bench/swap/phases.h"

#include "bench/swap/picture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din::swap {
namespace {

using ::testing::HasSubstr;
using Kind = ModelEvent::Kind;

constexpr int64_t kMs = 1'000'000;

ModelEvent Event(Kind kind, int64_t ms, int64_t version, const std::string& model = "ads") {
  return {.kind = kind, .at_ns = ms * kMs, .model = model, .version = version};
}
Request At(int64_t due_ms, int64_t latency_ms, int64_t version = 1, bool ok = true) {
  return {.due_ns = due_ms * kMs, .latency_ns = latency_ms * kMs, .ok = ok, .version = version};
}

const std::vector<ModelEvent> kSwap = {Event(Kind::kLoading, 1000, 2), Event(Kind::kLive, 2000, 2),
                                       Event(Kind::kRetired, 2200, 1)};

TEST(PhasesTest, ASwapHasThreeStretches) {
  const auto windows = FindWindows(kSwap, "ads");
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].phase, Phase::kLoading);
  EXPECT_EQ(windows[0].begin_ns, 1000 * kMs);
  EXPECT_EQ(windows[0].end_ns, 2000 * kMs);
  EXPECT_EQ(windows[1].phase, Phase::kSwapping);
  EXPECT_EQ(windows[2].phase, Phase::kUnloading);
  EXPECT_EQ(windows[2].begin_ns, 2000 * kMs);
}

TEST(PhasesTest, AnotherModelsSwapIsTold) {
  const auto windows = FindWindows(kSwap, "news");
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].phase, Phase::kOtherLoading);
  EXPECT_EQ(windows[2].phase, Phase::kOtherUnloading);
}

TEST(PhasesTest, ARefusedLoadIsNoSwap) {
  const auto windows = FindWindows({Event(Kind::kLoading, 1000, 2), Event(Kind::kRefused, 2000, 2)}, "ads");
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].phase, Phase::kRefusing);
}

TEST(PhasesTest, GoingLiveWithoutALoadIsARollback) {
  std::vector<ModelEvent> events = kSwap;
  events.push_back(Event(Kind::kLive, 4000, 1));
  const auto windows = FindWindows(events, "ads");
  ASSERT_EQ(windows.size(), 4u);
  EXPECT_EQ(windows[3].phase, Phase::kRollingBack);
  EXPECT_EQ(FindWindows(events, "news")[3].phase, Phase::kOtherSwapping);
}

TEST(PhasesTest, FaultsAreThoseBetweenTwoSamples) {
  const std::vector<Strain> samples = {{0, 10, 1, 100},
                                       {900 * kMs, 12, 1, 103},
                                       {1500 * kMs, 20, 2, 150},
                                       {5000 * kMs, 21, 2, 151},
                                       {6000 * kMs, 23, 2, 155}};
  const StrainByPhase sums = SumStrain(samples, FindWindows(kSwap, "ads"));
  EXPECT_EQ(sums.steady.minor_faults, 2u + 2u);
  EXPECT_EQ(sums.steady.major_faults, 0u);
  EXPECT_EQ(sums.steady.shootdowns, 3u + 4u);
  EXPECT_DOUBLE_EQ(sums.steady.seconds, 1.9);
  EXPECT_EQ(sums.any.minor_faults, 9u);
  EXPECT_EQ(sums.any.major_faults, 1u);
  EXPECT_EQ(sums.any.shootdowns, 48u);
}

TEST(PhasesTest, ARequestCountsInEveryStretchThatItTouches) {
  // The second is sent before the load and answered in it; the last is sent after everything has settled.
  const auto phases = LatencyByPhase({At(500, 1), At(990, 20), At(1500, 2), At(1995, 10), At(2250, 1), At(5000, 3)},
                                     FindWindows(kSwap, "ads"));
  EXPECT_EQ(phases.at(Phase::kSteady).requests, 2u);
  EXPECT_EQ(phases.at(Phase::kLoading).requests, 3u);
  EXPECT_EQ(phases.at(Phase::kSwapping).requests, 1u);
  EXPECT_EQ(phases.at(Phase::kUnloading).requests, 1u);
  EXPECT_EQ(phases.at(Phase::kAny).requests, 3u);
  EXPECT_DOUBLE_EQ(phases.at(Phase::kAny).max_us, 20'000);
  EXPECT_DOUBLE_EQ(phases.at(Phase::kSteady).max_us, 3000);
}

TEST(PhasesTest, ARequestWithoutCoresCountsNowhereElse) {
  // 30 ms of two cores in the second 100, and a tick in the third.
  const auto at = [](int64_t ms, double stolen) { return Strain{.at_ns = ms * kMs, .stolen = stolen}; };
  const auto stolen = FindStolen({at(1000, 5), at(1100, 5), at(1200, 5.03), at(1300, 5.04)}, 2);
  ASSERT_EQ(stolen.size(), 1u);
  EXPECT_EQ(stolen[0].phase, Phase::kStolen);
  EXPECT_EQ(stolen[0].begin_ns, 1100 * kMs);
  EXPECT_EQ(stolen[0].end_ns, 1700 * kMs);
  std::vector<Window> windows = FindWindows(kSwap, "ads");
  windows.insert(windows.end(), stolen.begin(), stolen.end());
  const auto phases = LatencyByPhase({At(500, 1), At(1050, 2), At(1090, 200), At(1600, 9), At(1800, 3)}, windows);
  EXPECT_EQ(phases.at(Phase::kSteady).requests, 1u);
  EXPECT_EQ(phases.at(Phase::kLoading).requests, 2u);
  EXPECT_EQ(phases.at(Phase::kAny).requests, 2u);
  EXPECT_DOUBLE_EQ(phases.at(Phase::kAny).max_us, 3000);
  EXPECT_EQ(phases.at(Phase::kStolen).requests, 2u);
  // Behind it, and in nothing else.
  EXPECT_EQ(LatencyByPhase({At(1750, 1)}, stolen).at(Phase::kSteady).requests, 1u);
}

TEST(PhasesTest, AFailedRequestHasNoLatencyButIsCounted) {
  const auto phases = LatencyByPhase({At(1500, 900, 0, false), At(1600, 2)}, FindWindows(kSwap, "ads"));
  EXPECT_EQ(phases.at(Phase::kLoading).failed, 1u);
  EXPECT_DOUBLE_EQ(phases.at(Phase::kLoading).max_us, 2000);
}

TEST(PhasesTest, AnOldVersionThatAnswersAfterTheSwapIsStale) {
  // Version 2 answers first at 1990, before the log says that it is live.
  const std::vector<Request> requests = {At(1980, 1, 1), At(1989, 1, 2), At(2030, 1, 1), At(2040, 1, 2)};
  std::vector<ModelEvent> events = kSwap;
  SharpenLiveTimes(requests, "ads", events);
  EXPECT_EQ(events[1].at_ns, 1990 * kMs);
  EXPECT_EQ(LongestStaleNs(requests, events, "ads"), 40 * kMs);
  EXPECT_EQ(LongestStaleNs({At(1980, 1, 1), At(2010, 1, 2)}, events, "ads"), 0);
}

TEST(PhasesTest, TheNextVersionIsNotStale) {
  std::vector<ModelEvent> events = kSwap;
  events.push_back(Event(Kind::kLive, 4000, 3));
  EXPECT_EQ(LongestStaleNs({At(2500, 1, 2), At(3990, 20, 3)}, events, "ads"), 0);
}

TEST(ServerLogTest, LinesAboutModelsAreEventsAndOthersAreNot) {
  const auto event = ParseLogLine(
      R"({"time":"1970-01-01T00:00:01.500Z","level":"error","event":"model refused","model":"ads","version":7,"reason":"x"})",
      -500 * kMs);
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kRefused);
  EXPECT_EQ(event->at_ns, 1000 * kMs);
  EXPECT_EQ(event->version, 7);
  EXPECT_EQ(event->reason, "x");
  EXPECT_FALSE(ParseLogLine(R"({"time":"1970-01-01T00:00:01.500Z","event":"listening"})", 0).ok());
  EXPECT_FALSE(ParseLogLine("time=1970", 0).ok());
}

TEST(PictureTest, SwapsAndRefusalsAreMarked) {
  Picture picture{.title = "a < b", .begin_ns = 0, .end_ns = 3000 * kMs, .events = kSwap, .model = "ads"};
  picture.events.push_back(Event(Kind::kRefused, 2500, 3));
  picture.requests = {At(100, 1), At(200, 2)};
  picture.resident = {{0, 1 << 20}, {1000 * kMs, 2 << 20}};
  const std::string svg = ToSvg(picture);
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("stroke-dasharray"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
}

}  // namespace
}  // namespace din::swap
