// The process: how it starts, refuses to start, and stops.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Finished Server(const std::vector<std::string>& flags, const std::vector<std::string>& environment = {}) {
  return Run(kServerProgram, {.arguments = flags, .environment = environment});
}

TEST(ServerProgramTest, HelpAndVersionGoToStandardOutput) {
  const Finished help = Server({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("--model-root DIR"), HasSubstr("[4MiB]"), HasSubstr("Exit codes")));
  EXPECT_THAT(help.errors, IsEmpty());
  const Finished version = Server({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, HasSubstr("din-server 0."));
}

TEST(ServerProgramTest, CheckConfigShowsValuesAndTheirOriginWithoutStarting) {
  const Finished checked = Server({"--check-config", "--model-root=/none"}, {"DIN_SERVER_QUEUE=9"});
  EXPECT_EQ(checked.exit_code, 0);
  EXPECT_THAT(checked.output,
              AllOf(HasSubstr("/none"), HasSubstr("environment DIN_SERVER_QUEUE"), HasSubstr("default")));
  const Finished bad = Server({"--check-config", "--model-root=/none", "--queue=many"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.errors, HasSubstr("queue (flag): \"many\""));
}

TEST(ServerProgramTest, WrongUsageIsExitCode2) {
  const Finished unknown = Server({"--model-rot=/m"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.errors, HasSubstr("did you mean \"model-root\"?"));
  EXPECT_EQ(Server({}).exit_code, 2);
}

TEST(ServerProgramTest, WhatKeepsItFromStartingIsExitCode1) {
  const Finished missing = Server({"--model-root=/no/such/root", "--listen=127.0.0.1:0"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.errors, HasSubstr("/no/such/root"));
  ModelRoot root;
  RunningServer first(root);
  const Finished second = Server({"--model-root=" + root.path(), "--listen=" + first.address()});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, AllOf(HasSubstr("cannot bind " + first.address() + ": Address already in use"),
                                   Not(HasSubstr("chttp2"))));
}

TEST(ServerProgramTest, ListensOnSeveralAddressesAndAUnixSocket) {
  ModelRoot root;
  root.PublishShop(1);
  TempDirectory directory;
  RunningServer server(root, {"--listen=[::1]:0,unix:" + directory / "socket", "--log-format=json"});
  TestClient over_socket("unix:" + directory / "socket");
  EXPECT_TRUE(over_socket.Score(ShopScoreRequest()).ok());
  TestClient over_tcp(server.address());
  EXPECT_TRUE(over_tcp.Score(ShopScoreRequest()).ok());
  EXPECT_THAT(server.Log(), HasSubstr("\"event\":\"listening\""));
  EXPECT_EQ(server.Stop(), 0);
}

// Requests under way that keep a server of one thread busy for seconds; it takes 300,000 candidates.
std::vector<PendingScore> KeepBusy(TestClient& client) {
  v1::ScoreRequest heavy = ShopScoreRequest();
  while (heavy.candidates(0).ids_size() < 300'000) heavy.mutable_candidates(0)->add_ids(50);
  heavy.set_top_k(1);
  std::vector<PendingScore> in_flight;
  for (int i = 0; i < 30; ++i) in_flight.push_back(client.StartScore(heavy, std::chrono::minutes(5)));
  EXPECT_TRUE(client.GetModelMetadata("shop").ok());  // behind them on the same connection
  std::this_thread::sleep_for(milliseconds(50));
  return in_flight;
}

// SIGTERM: health turns at once, requests are answered during the delay and those in flight after it, Watch ends.
TEST(DrainTest, HealthTurnsFirstAndEveryRequestIsAnswered) {
  ModelRoot root;
  root.PublishShop(1);
  RunningServer server(root, {"--drain-delay=500ms", "--drain-timeout=300s", "--threads=1", "--max-candidates=300000"});
  TestClient client(server.address());
  const auto whole = client.WatchHealth("");
  const auto model = client.WatchHealth("shop");
  EXPECT_EQ(whole->Next(), "SERVING");
  EXPECT_EQ(model->Next(), "SERVING");
  std::vector<PendingScore> in_flight = KeepBusy(client);
  server.Signal(SIGTERM);
  EXPECT_EQ(whole->Next(), "NOT_SERVING");
  EXPECT_EQ(model->Next(), "NOT_SERVING");
  in_flight.push_back(client.StartScore(ShopScoreRequest(), std::chrono::minutes(5)));
  for (PendingScore& call : in_flight) {
    const auto response = call.Wait();
    EXPECT_TRUE(response.ok()) << response.status();
  }
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_EQ(whole->Next(), std::nullopt);
  EXPECT_THAT(server.Log(), HasSubstr("event=\"stopped\""));
}

TEST(DrainTest, OpenWatchesDoNotHoldTheServerUp) {
  ModelRoot root;
  RunningServer server(root, {"--drain-delay=0ms", "--drain-timeout=60s"});
  TestClient client(server.address());
  const auto watch = client.WatchHealth("");
  EXPECT_EQ(watch->Next(), "NOT_SERVING");
  const auto begin = steady_clock::now();
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(DrainTest, SecondSignalEndsTheDelay) {
  ModelRoot root;
  RunningServer server(root, {"--drain-delay=60s"});
  const auto begin = steady_clock::now();
  server.Signal(SIGTERM);
  ASSERT_TRUE(server.LogSays("draining"));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(DrainTest, SecondSignalEndsTheWaitForRequests) {
  ModelRoot root;
  root.PublishShop(1);
  RunningServer server(root, {"--drain-timeout=60s", "--threads=1", "--max-candidates=300000"});
  TestClient client(server.address());
  std::vector<PendingScore> in_flight = KeepBusy(client);
  server.Signal(SIGINT);
  ASSERT_TRUE(server.LogSays("draining"));
  server.Signal(SIGINT);
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_THAT(server.Log(), HasSubstr("second_signal=true"));
}

TEST(ServerProgramTest, SignalWhileModelsAreLoadedStopsTheStart) {
  ModelRoot root;
  for (int i = 0; i < 200; ++i) root.PublishGolden(GoldenNames()[0], "model-" + std::to_string(i), 1);
  // So slowly that it cannot be through before the signal.
  Program server(kServerProgram,
                 {.arguments = {"--model-root", root.path(), "--listen", "127.0.0.1:0", "--load-rate", "64KiB"}});
  ASSERT_TRUE(Eventually([&] { return server.Errors().find("model loading") != std::string::npos; }));
  kill(server.pid(), SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.Errors(), AllOf(HasSubstr("event=\"stopped\""), Not(HasSubstr("listening"))));
}

// A version without golden scores has not shown that this machine computes what its publisher meant.
TEST(ServerProgramTest, UnverifiedVersionIsServedOnlyWhenAllowed) {
  ModelRoot root;
  root.PublishShopWithoutGolden(1);
  RunningServer careful(root);
  TestClient client(careful.address());
  EXPECT_EQ(client.Score(ShopScoreRequest()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(careful.Log(), AllOf(HasSubstr("model refused"), HasSubstr("not_live=shop")));
  RunningServer trusting(root, {"--allow-unverified=yes"});
  TestClient other(trusting.address());
  EXPECT_TRUE(other.Score(ShopScoreRequest()).ok());
}

TEST(DrainTest, RequestsBeyondTheTimeoutAreCutOffAndTheExitCodeSaysSo) {
  ModelRoot root;
  root.PublishShop(1);
  RunningServer server(root, {"--drain-timeout=1ms", "--threads=1", "--max-candidates=300000"});
  TestClient client(server.address());
  std::vector<PendingScore> in_flight = KeepBusy(client);
  server.Signal(SIGINT);
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_THAT(server.Log(), HasSubstr("stopped with requests in flight"));
  int failed = 0;
  for (PendingScore& call : in_flight) failed += !call.Wait().ok();
  EXPECT_GT(failed, 0);
}

TEST(DrainTest, PortFileAppearsWholeAndGoesAway) {
  ModelRoot root;
  TempDirectory directory;
  Program server(kServerProgram, {.arguments = {"--model-root", root.path(), "--listen", "127.0.0.1:0,127.0.0.1:0",
                                                "--port-file", directory / "ports"}});
  ASSERT_TRUE(Eventually([&] { return std::filesystem::exists(directory / "ports"); })) << server.Errors();
  const std::string ports = ReadFile(directory / "ports");
  EXPECT_EQ(std::count(ports.begin(), ports.end(), '\n'), 2) << ports;
  kill(server.pid(), SIGINT);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(directory / "ports"));
}

}  // namespace
}  // namespace din
