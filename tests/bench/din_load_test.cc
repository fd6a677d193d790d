// What din-load reports of a server's answers, faults included.
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

TEST(DinLoadTest, RefusalsAreErrorsAndNotGoodput) {
  Child server({Beside("constant_time_server"), "--refuse-every", "4"});
  Child load(LoadCommand(AddressOf(server), {"--duration", "2s", "--warm-up", "0s"}));
  const json report = json::parse(load.ReadRest());
  load.Wait();
  const json& run = report["runs"][0];
  EXPECT_EQ(run["errors"]["RESOURCE_EXHAUSTED"], 2 * kRate / 4);
  EXPECT_EQ(run["good"], 2 * kRate * 3 / 4);
  EXPECT_THAT(run["events"].dump(), HasSubstr("errors"));
}

TEST(DinLoadTest, AWrongAnswerIsFoundAndSetsTheExitCode) {
  Child server({Beside("constant_time_server"), "--wrong-every", "100"});
  Child load(LoadCommand(AddressOf(server), {"--duration", "1s", "--warm-up", "0s"}));
  const json report = json::parse(load.ReadRest());
  EXPECT_EQ(load.Wait(), 4);
  EXPECT_EQ(report["runs"][0]["errors"]["WRONG_ANSWER"], kRate / 100);
  EXPECT_THAT(report["runs"][0]["wrong_answers"].dump(), HasSubstr("1.5 is not in [0, 1]"));
}

TEST(DinLoadTest, ASwapIsMarkedWhereItHappened) {
  Child server({Beside("constant_time_server"), "--swap-after", std::to_string(kRate)});
  Child load(LoadCommand(AddressOf(server), {"--duration", "2s", "--warm-up", "0s"}));
  const json report = json::parse(load.ReadRest());
  load.Wait();
  const json& events = report["runs"][0]["events"];
  ASSERT_EQ(events.size(), 1u) << events;
  EXPECT_EQ(events[0]["text"], "version 2");
  EXPECT_NEAR(events[0]["t"].get<double>(), 1.0, 0.1);
}

TEST(DinLoadTest, AServerThatNeverAnswersLeavesUnansweredRequests) {
  Child server({Beside("constant_time_server")});
  const std::string address = AddressOf(server);
  Child load(LoadCommand(address, {"--duration", "2s", "--warm-up", "0s", "--drain", "500ms"}));
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  server.Signal(SIGSTOP);
  const json report = json::parse(load.ReadRest());
  load.Wait();
  const json& run = report["runs"][0];
  EXPECT_EQ(run["sent"], 2 * kRate);
  EXPECT_GT(run["errors"]["UNANSWERED"], kRate / 2);
}

TEST(DinLoadTest, NoServerIsAnErrorAndNotAReport) {
  Child load(LoadCommand("127.0.0.1:1", {"--connect-timeout", "300ms"}));
  EXPECT_EQ(load.ReadRest(), "");
  EXPECT_EQ(load.Wait(), 1);
}

}  // namespace
}  // namespace din
