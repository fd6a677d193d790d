// The load generator must tell the truth about a server that stalls, and about itself.
#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/bench/child.h"
#include "tests/bench/load_fixture.h"

namespace din {
namespace {

using nlohmann::json;
using testing::AddressOf;
using testing::Beside;
using testing::Child;
using ::testing::HasSubstr;
using testing::kRate;
using testing::LoadCommand;

// Stops `child` for `seconds` or longer and returns how long it was stopped at the least.
double StopFor(const Child& child, double seconds) {
  child.Signal(SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  const auto end = std::chrono::steady_clock::now();
  child.Signal(SIGCONT);
  return std::chrono::duration<double>(end - begin).count();
}

// One second in ten: a tenth of the requests waited, evenly, between 0 and 1 s. So p95 is the middle of those that
// waited, and p99 has nine tenths of them below it. A generator that waits for answers would send one request in that
// second and report a p99 of nothing. The machine may add stalls of its own (a busy host takes a core away for a tenth
// of a second), and they belong into the latency as well: nothing may be hidden, and little may be made up.
TEST(HonestyTest, AServerStoppedForASecondShowsInThePercentiles) {
  constexpr double kLess = 0.025, kMore = 0.3;  // seconds
  Child server({Beside("constant_time_server")});
  const std::string address = AddressOf(server);
  Child load(LoadCommand(address, {"--duration", "10s", "--warm-up", "1s", "--connections", "4"}));
  std::this_thread::sleep_for(std::chrono::seconds(5));
  const double stopped = StopFor(server, 1.0);
  const json report = json::parse(load.ReadRest());
  load.Wait();
  const json& run = report["runs"][0];
  EXPECT_EQ(run["sent"], 10 * kRate);
  EXPECT_EQ(run["ok"], 10 * kRate) << run["errors"];
  const auto expect = [&](const char* percentile, double seconds) {
    const double reported = run["latency_us"][percentile].get<double>() * 1e-6;
    EXPECT_GE(reported, seconds - kLess) << percentile;
    EXPECT_LE(reported, seconds + kMore) << percentile;
  };
  expect("p95", stopped - 0.5);
  expect("p99", stopped - 0.1);
  expect("max", stopped);
  EXPECT_LT(run["latency_us"]["p50"].get<double>(), 20'000);
}

TEST(HonestyTest, AGeneratorThatWasStoppedDeclaresTheRunInvalid) {
  Child server({Beside("constant_time_server")});
  Child load(LoadCommand(AddressOf(server), {"--duration", "3s", "--warm-up", "500ms"}));
  std::this_thread::sleep_for(std::chrono::seconds(2));
  StopFor(load, 0.3);
  const json report = json::parse(load.ReadRest());
  EXPECT_EQ(load.Wait(), 3);
  const json& run = report["runs"][0];
  EXPECT_FALSE(run["valid"]);
  EXPECT_THAT(run["invalid_because"].dump(), HasSubstr("send lag p99"));
  // Nothing is hidden: every request was sent, late, and its latency counts from when it was due.
  EXPECT_EQ(run["sent"], 3 * kRate);
  EXPECT_GT(run["latency_us"]["p99"].get<double>(), 200'000);
}

}  // namespace
}  // namespace din
