// Operators' orders, given with dinctl to a running server.
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/snapshot.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"

namespace din {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kCase[] = "deepctr_torch_a_dice_nosoftmax";

class AdminTest : public ::testing::Test {
 protected:
  AdminTest() : snapshot_(Snapshot::Open(GoldenDirectory(kCase), {})) {}

  std::string Socket() const { return state_ / "admin.sock"; }
  std::vector<std::string> Flags() const { return {"--state-dir=" + state_.path(), "--poll-interval=20ms"}; }
  Finished Dinctl(std::vector<std::string> arguments) const {
    arguments.push_back("--admin=unix:" + Socket());
    return din::Run(kDinctlProgram, {.arguments = arguments, .environment = {}, .input = ""});
  }
  nlohmann::json DinctlJson(std::vector<std::string> arguments) const {
    arguments.push_back("--json");
    const Finished run = Dinctl(std::move(arguments));
    EXPECT_EQ(run.exit_code, 0) << run.errors;
    return nlohmann::json::parse(run.output, nullptr, false);
  }
  // 0: nothing is served.
  int64_t Version(TestClient& client, const std::string& label = "") const {
    v1::ScoreRequest request = ToScoreRequest((*snapshot_)->golden()[2], "ads");
    request.set_label(label);
    const auto response = client.Score(request);
    return response.ok() ? response->version() : 0;
  }
  void PublishAndWait(TestClient& client, int64_t version) const {
    root_.PublishGolden(kCase, "ads", version);
    EXPECT_TRUE(Eventually([&] { return Version(client) == version; })) << version;
  }

  const absl::StatusOr<std::unique_ptr<const Snapshot>> snapshot_;
  ModelRoot root_;
  TempDirectory state_;
};

TEST_F(AdminTest, RollbackPinAndLabelAreObeyedAndSurviveAKill) {
  root_.PublishGolden(kCase, "ads", 1);
  {
    RunningServer server(root_, Flags());
    TestClient client(server.address());
    struct stat info;
    ASSERT_EQ(stat(Socket().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    PublishAndWait(client, 2);

    // Pinned to a version in memory, or on disk; what is published meanwhile waits.
    EXPECT_EQ(DinctlJson({"pin", "ads", "1"})["live_version"], "1");
    EXPECT_EQ(Version(client), 1);
    root_.PublishGolden(kCase, "ads", 3);
    EXPECT_EQ(DinctlJson({"label", "ads", "canary", "3"})["labels"]["canary"], "3");
    EXPECT_EQ(Version(client, "canary"), 3);
    EXPECT_EQ(Version(client), 1);
    EXPECT_EQ(Version(client, "nobody"), 0);
    const nlohmann::json unpinned = DinctlJson({"unpin", "ads"});
    EXPECT_EQ(unpinned["live_version"], "3");
    EXPECT_THAT(server.Log(),
                AllOf(HasSubstr("event=\"admin\" call=Pin"), HasSubstr("model=ads version=1"), HasSubstr("result=OK")));
    server.Signal(SIGKILL);
    server.Wait();
  }
  RunningServer server(root_, Flags());
  TestClient client(server.address());
  EXPECT_EQ(Version(client), 3);
  EXPECT_EQ(Version(client, "canary"), 3);
  const nlohmann::json rolled_back = DinctlJson({"rollback", "ads", "--to", "2"});
  EXPECT_EQ(rolled_back["live_version"], "2");
  server.Signal(SIGKILL);
  server.Wait();
  RunningServer again(root_, Flags());
  TestClient other(again.address());
  EXPECT_EQ(Version(other), 2) << "the golden cases have one digest each version, so 3 is quarantined by it: "
                               << again.Log();
}

TEST_F(AdminTest, WhatCannotBeDoneSaysWhyAndChangesNothing) {
  root_.PublishGolden(kCase, "ads", 1);
  RunningServer server(root_, Flags());
  const Finished unknown = Dinctl({"pin", "ads", "7"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors, HasSubstr("version: 7 of model \"ads\" is not complete in the root; there: 1"));
  const Finished outside = Dinctl({"pin", "../../etc", "1"});
  EXPECT_EQ(outside.exit_code, 1);
  EXPECT_THAT(outside.errors, HasSubstr("\"../../etc\" is not in the root"));
  EXPECT_THAT(server.Log(), HasSubstr("model=../../etc version=1"));
  EXPECT_EQ(Dinctl({"rollback", "ads"}).exit_code, 1);
  EXPECT_EQ(Dinctl({"pin", "ads", "x"}).exit_code, 2);
  root_.PublishCorrupted(kCase, "ads", 2);
  const Finished refused = Dinctl({"load", "ads"});
  EXPECT_EQ(refused.exit_code, 0) << "1 is live";
  EXPECT_THAT(refused.output, HasSubstr("version 2 was refused"));
  const Finished pinned = Dinctl({"pin", "ads", "2"});
  EXPECT_EQ(pinned.exit_code, 1);
  EXPECT_THAT(pinned.output, AllOf(HasSubstr("pinned 2"), HasSubstr("weights.safetensors")));
}

TEST_F(AdminTest, WatchTellsWhatHappens) {
  root_.PublishGolden(kCase, "ads", 1);
  RunningServer server(root_, Flags());
  Program watch(kDinctlProgram,
                {.arguments = {"watch", "--model=ads", "--admin=unix:" + Socket()}, .environment = {}, .input = ""});
  EXPECT_TRUE(Eventually([&] { return watch.Output().find("status") != std::string::npos; })) << watch.Errors();
  root_.PublishGolden(kCase, "ads", 2);
  EXPECT_TRUE(Eventually([&] { return watch.Output().find("kept        ads/1") != std::string::npos; }));
  EXPECT_THAT(watch.Output(),
              AllOf(HasSubstr("loading     ads/2"), HasSubstr("verifying   ads/2"), HasSubstr("live        ads/2")));
  EXPECT_EQ(server.Stop(), 0) << "a watcher does not hold the server up";
  watch.Wait();
}

TEST_F(AdminTest, UnloadedModelIsNotServedUntilLoad) {
  root_.PublishGolden(kCase, "ads", 1);
  RunningServer server(root_, Flags());
  TestClient client(server.address());
  EXPECT_EQ(Dinctl({"unload", "ads"}).exit_code, 0);
  EXPECT_EQ(Version(client), 0);
  EXPECT_EQ(*client.Health("ads"), "NOT_SERVING");
  EXPECT_EQ(Dinctl({"load", "ads"}).exit_code, 0);
  EXPECT_EQ(Version(client), 1);
  EXPECT_EQ(*client.Health("ads"), "SERVING");
}

TEST_F(AdminTest, ARollbackThatDoesNotSucceedFails) {
  root_.PublishGolden(kCase, "ads", 1);
  std::vector<std::string> flags = Flags();
  flags.push_back("--keep=0");
  RunningServer server(root_, flags);
  TestClient client(server.address());
  PublishAndWait(client, 2);
  const std::string weights = root_.path() + "/ads/1/weights.safetensors";
  std::string bytes = ReadFile(weights);
  bytes[bytes.size() - 10] ^= 1;
  WriteFile(weights, bytes);
  const Finished rollback = Dinctl({"rollback", "ads"});
  EXPECT_EQ(rollback.exit_code, 1);
  EXPECT_THAT(rollback.output, HasSubstr("version 1 was refused")) << rollback.errors << server.Log();
  EXPECT_EQ(Version(client), 2);
  server.Signal(SIGKILL);
  server.Wait();
  RunningServer restarted(root_, flags);
  TestClient again(restarted.address());
  EXPECT_EQ(Version(again), 2) << restarted.Log();
}

TEST_F(AdminTest, AnUnloadedModelDoesNotHoldBackTheOthersAfterARestart) {
  root_.PublishGolden(kCase, "ads", 1);
  root_.PublishGolden(kCase, "old", 1);
  {
    RunningServer server(root_, Flags());
    EXPECT_EQ(Dinctl({"unload", "old"}).exit_code, 0);
    server.Signal(SIGKILL);
    server.Wait();
  }
  RunningServer server(root_, Flags());
  TestClient client(server.address());
  EXPECT_EQ(*client.Health("old"), "NOT_SERVING");
  EXPECT_EQ(*client.Health("ads"), "SERVING");
  EXPECT_EQ(*client.Health(""), "SERVING") << server.Log();
}

TEST_F(AdminTest, APinnedVersionThatIsGoneIsNamed) {
  root_.PublishGolden(kCase, "ads", 1);
  {
    RunningServer server(root_, Flags());
    EXPECT_EQ(Dinctl({"pin", "ads", "1"}).exit_code, 0);
    EXPECT_EQ(server.Stop(), 0);
  }
  root_.PublishGolden(kCase, "ads", 2);
  std::filesystem::remove_all(root_.path() + "/ads/1");
  RunningServer server(root_, Flags());
  TestClient client(server.address());
  const auto refused = client.Score(ToScoreRequest((*snapshot_)->golden()[2], "ads"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("version 1, which is pinned, is not loaded"));
  const Finished status = din::Run(
      kDinctlProgram, {.arguments = {"status", "--server=" + server.address()}, .environment = {}, .input = ""});
  EXPECT_THAT(status.output, HasSubstr("version 1, which is pinned, is not loaded"));
  EXPECT_EQ(Dinctl({"unpin", "ads"}).exit_code, 0);
  EXPECT_EQ(Version(client), 2);
}

TEST_F(AdminTest, DriftBoundsHoldWhatComesByItselfAndNotWhatIsPinned) {
  root_.PublishGolden(kCase, "ads", 1);
  std::vector<std::string> flags = Flags();
  flags.push_back("--drift-largest=1e-6");
  RunningServer server(root_, flags);
  TestClient client(server.address());
  root_.PublishGolden("fuxictr_a_dice_nosoftmax", "ads", 2);
  ASSERT_TRUE(server.LogSays("event=\"model refused\" model=ads version=2")) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("drift"));
  EXPECT_EQ(Version(client), 1);
  EXPECT_EQ(DinctlJson({"pin", "ads", "2"})["live_version"], "2") << server.Log();
}

TEST_F(AdminTest, VersionThatDoesNotFitIntoMemoryIsRefusedAndTheLiveOneStays) {
  root_.PublishGolden(kCase, "ads", 1);
  std::vector<std::string> flags = Flags();
  flags.push_back("--memory-limit=1KiB");
  RunningServer server(root_, flags);
  ASSERT_TRUE(server.LogSays("event=\"model refused\" model=ads version=1"));
  EXPECT_THAT(server.Log(), HasSubstr("bytes of memory, have 0 (limit 1024 of memory-limit, used "));
}

TEST_F(AdminTest, TcpWithoutClientCertificatesIsRefused) {
  const Finished start =
      din::Run(kServerProgram,
               {.arguments = {"--model-root=" + root_.path(), "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"},
                .environment = {},
                .input = ""});
  EXPECT_EQ(start.exit_code, 1);
  EXPECT_THAT(start.errors, HasSubstr("is TCP, which needs client certificates"));
}

TEST_F(AdminTest, StateInTheModelRootIsRefused) {
  const Finished start = din::Run(kServerProgram, {.arguments = {"--model-root=" + root_.path(), "--listen=127.0.0.1:0",
                                                                 "--state-dir=" + root_.path() + "/state"},
                                                   .environment = {},
                                                   .input = ""});
  EXPECT_EQ(start.exit_code, 1);
  EXPECT_THAT(start.errors, HasSubstr("in the model root"));
}

// A certificate authority, a server's certificate and an operator's, made for this test.
TEST_F(AdminTest, TcpLetsInOnlyWhoHasACertificate) {
  TempDirectory tls;
  const std::string script =
      "cd " + tls.path() +
      " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 1 "
      "-subj /CN=ca 2>/dev/null"
      " && for n in server operator; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $n.key "
      "-out $n.csr -subj /CN=$n 2>/dev/null && printf 'subjectAltName=IP:127.0.0.1' > $n.ext && openssl x509 -req -in "
      "$n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile $n.ext -out $n.pem 2>/dev/null; done";
  ASSERT_EQ(std::system(script.c_str()), 0);
  root_.PublishGolden(kCase, "ads", 1);
  RunningServer server(root_, {"--admin-listen=127.0.0.1:0", "--admin-tls-cert=" + tls / "server.pem",
                               "--admin-tls-key=" + tls / "server.key", "--admin-tls-client-ca=" + tls / "ca.pem"});
  ASSERT_TRUE(server.LogSays("event=\"listening\""));
  const std::string log = server.Log();
  const size_t at = log.find("admin=") + 6;
  const std::string address = log.substr(at, log.find(' ', at) - at);
  const std::vector<std::string> order = {"load", "ads", "--admin=" + address, "--timeout=5s"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = order;
    for (std::string& one : more) arguments.push_back(std::move(one));
    return din::Run(kDinctlProgram, {.arguments = arguments, .environment = {}, .input = ""}).exit_code;
  };
  EXPECT_NE(with({}), 0) << "plain text";
  EXPECT_NE(with({"--tls-ca=" + tls / "ca.pem"}), 0) << "no certificate";
  EXPECT_EQ(
      with({"--tls-ca=" + tls / "ca.pem", "--tls-cert=" + tls / "operator.pem", "--tls-key=" + tls / "operator.key"}),
      0)
      << server.Log();
}

}  // namespace
}  // namespace din
