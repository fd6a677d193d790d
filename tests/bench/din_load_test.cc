// What din-load reports of a server's answers, faults included.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/bench/child.h"
#include "tests/bench/load_fixture.h"
#include "tests/temp_directory.h"

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

TEST(DinLoadTest, ScoresAreHeldToEachCasesToleranceOrToTheOneGiven) {
  Child server({Beside("constant_time_server")});
  const std::string address = AddressOf(server);
  const TempDirectory directory;
  // The server says 1/2 and 1/3.
  std::ofstream(directory / "requests.jsonl")
      << R"({"candidates": [{"name": "item", "ids": [1, 2]}], "candidate_ids": [1, 2]})";
  std::ofstream(directory / "golden.jsonl")
      << R"({"id": "a", "candidates": [{"name": "item", "ids": [1, 2]}], "scores": [0.5, 0.338], "tolerance": 1e-5})";
  for (const auto& [tolerance, error] : {std::pair{"0", true}, {"0.01", false}, {"0.001", true}}) {
    Child load(
        LoadCommand(address, {"--duration", "100ms", "--warm-up", "0s", "--requests", directory / "requests.jsonl",
                              "--expect", directory / "golden.jsonl", "--tolerance", tolerance}));
    const json report = json::parse(load.ReadRest());
    load.Wait();
    EXPECT_EQ(report["runs"][0]["errors"].contains("WRONG_ANSWER"), error) << tolerance;
  }
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

TEST(DinLoadTest, AUnixSocketWillDo) {
  const TempDirectory directory;
  const std::string address = "unix:" + directory / "socket";
  Child server({Beside("constant_time_server"), "--listen", address});
  server.ReadLine();
  Child load(LoadCommand(address, {"--duration", "1s", "--warm-up", "0s"}));
  const json report = json::parse(load.ReadRest());
  load.Wait();
  EXPECT_EQ(report["runs"][0]["ok"], kRate);
}

TEST(DinLoadTest, StepsAndRampsSendWhatTheySay) {
  Child server({Beside("constant_time_server")});
  Child load(LoadCommand(AddressOf(server), {"--profile", "100:1s,100..300:1s,50:1s", "--warm-up", "0s"}));
  const json report = json::parse(load.ReadRest());
  load.Wait();
  const json& run = report["runs"][0];
  EXPECT_EQ(run["sent"], 100 + 200 + 50);
  const auto sent = run["timeline"]["sent"].get<std::vector<int>>();
  const double slice = run["timeline"]["slice_s"];
  const auto within = [&](double begin, double end) {
    int count = 0;
    for (size_t s = 0; s < sent.size(); ++s) {
      const double middle = (static_cast<double>(s) + 0.5) * slice;
      count += begin < middle && middle < end ? sent[s] : 0;
    }
    return count;
  };
  EXPECT_NEAR(within(0, 1), 100, 2);
  EXPECT_NEAR(within(1, 1.5), 75, 2);
  EXPECT_NEAR(within(1.5, 2), 125, 2);
  EXPECT_NEAR(within(2, 3), 50, 2);
}

class TlsTest : public ::testing::Test {
 protected:
  // An authority, a server's certificate and a client's from it; and an authority that nobody knows.
  TlsTest() {
    Shell("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
    Shell("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=stranger -keyout other.key -out other.pem");
    Shell("printf subjectAltName=DNS:scoring.example > names");
    for (const std::string name : {"server", "client"}) {
      Shell("openssl req -newkey rsa:2048 -nodes -subj /CN=" + name + " -keyout " + name + ".key -out request");
      Shell("openssl x509 -req -in request -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out " +
            name + ".pem");
    }
  }
  void Shell(const std::string& command) {
    ASSERT_EQ(std::system(("cd " + directory_.path() + " && (" + command + ") 2>/dev/null").c_str()), 0) << command;
  }
  const TempDirectory directory_;
};

TEST_F(TlsTest, BothSidesShowTheirCertificates) {
  Child server({Beside("constant_time_server"), "--tls", directory_.path()});
  Child load(LoadCommand(AddressOf(server), {"--duration", "1s", "--warm-up", "0s", "--ca", directory_ / "ca.pem",
                                             "--cert", directory_ / "client.pem", "--key", directory_ / "client.key",
                                             "--server-name", "scoring.example"}));
  const json report = json::parse(load.ReadRest());
  load.Wait();
  EXPECT_EQ(report["runs"][0]["ok"], kRate);
}

TEST_F(TlsTest, AServerOfAnotherAuthorityIsNotTalkedTo) {
  Child server({Beside("constant_time_server"), "--tls", directory_.path()});
  Child load(LoadCommand(AddressOf(server), {"--connect-timeout", "1s", "--ca", directory_ / "other.pem", "--cert",
                                             directory_ / "client.pem", "--key", directory_ / "client.key",
                                             "--server-name", "scoring.example"}));
  EXPECT_EQ(load.ReadRest(), "");
  EXPECT_EQ(load.Wait(), 1);
}

TEST(DinLoadTest, NoServerIsAnErrorAndNotAReport) {
  Child load(LoadCommand("127.0.0.1:1", {"--connect-timeout", "300ms"}));
  EXPECT_EQ(load.ReadRest(), "");
  EXPECT_EQ(load.Wait(), 1);
}

}  // namespace
}  // namespace din
