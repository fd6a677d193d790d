// New versions while the server answers.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/snapshot.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"

namespace din {
namespace {

using ::testing::HasSubstr;

constexpr char kFirst[] = "deepctr_torch_a_dice_nosoftmax";

class SwapTest : public ::testing::Test {
 protected:
  SwapTest() : snapshot_(Snapshot::Open(GoldenDirectory(kFirst), {})) {}

  v1::ScoreRequest Request() const { return ToScoreRequest((*snapshot_)->golden()[2], "ads"); }
  int64_t LiveVersion(TestClient& client) const {
    const auto response = client.Score(Request());
    return response.ok() ? response->version() : -1;
  }

  const absl::StatusOr<std::unique_ptr<const Snapshot>> snapshot_;
  ModelRoot root_;
};

TEST_F(SwapTest, PublishedVersionGoesLiveUnderLoadWithoutAFailedRequest) {
  root_.PublishGolden(kFirst, "ads", 1);
  RunningServer server(root_);
  TestClient client(server.address());
  std::atomic<bool> stop = false;
  std::atomic<int> failed = 0;
  std::atomic<int64_t> answered = 0;  // by this version, last
  std::thread load([&] {
    TestClient own(server.address());
    while (!stop) {
      const auto response = own.Score(Request());
      if (response.ok())
        answered = response->version();
      else
        ++failed;
    }
  });
  for (int64_t version = 2; version <= 6; ++version) {
    root_.PublishGolden(kFirst, "ads", version);
    EXPECT_TRUE(Eventually([&] { return answered == version; })) << server.Log();
  }
  stop = true;
  load.join();
  EXPECT_EQ(failed, 0);
  EXPECT_TRUE(server.LogSays("event=\"model retired\" model=ads version=4"));
  EXPECT_EQ(server.Stop(), 0);
}

TEST_F(SwapTest, CorruptedVersionIsRefusedAndTheOldOneServes) {
  root_.PublishGolden(kFirst, "ads", 1);
  RunningServer server(root_);
  TestClient client(server.address());
  root_.PublishCorrupted(kFirst, "ads", 2);
  ASSERT_TRUE(server.LogSays("event=\"model refused\" model=ads version=2 live_version=1")) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("weights.safetensors"));
  EXPECT_EQ(LiveVersion(client), 1);
  EXPECT_EQ(*client.Health("ads"), "SERVING");
  const auto metadata = client.GetModelMetadata("ads");
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  ASSERT_EQ(metadata->statuses_size(), 1);
  EXPECT_EQ(metadata->statuses(0).live_version(), 1);
  EXPECT_EQ(metadata->statuses(0).refused_version(), 2);
  EXPECT_THAT(metadata->statuses(0).refused_reason(), HasSubstr("weights.safetensors"));
  root_.PublishGolden(kFirst, "ads", 3);
  EXPECT_TRUE(Eventually([&] { return LiveVersion(client) == 3; })) << server.Log();
}

// Kills; DIN_KILLS=1000 makes the long run.
int Kills() {
  const char* const kills = std::getenv("DIN_KILLS");
  return kills != nullptr ? std::atoi(kills) : 25;
}

// While it finds, loads, verifies or swaps in a version, or remembers that it did.
TEST_F(SwapTest, AServerKilledAtAnyMomentStartsAgainAndAnswersRight) {
  using std::chrono::steady_clock;
  constexpr uint32_t kSeed = 20251126;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const TempDirectory state;
  const v1::GoldenCase& golden = (*snapshot_)->golden()[2];
  const auto expect_right = [&](const v1::ScoreResponse& response, int64_t version) {
    // What was written down last as good serves first, and what came in the meantime goes live behind it.
    EXPECT_LE(response.version(), version);
    EXPECT_GE(response.version(), version - 2);
    ASSERT_EQ(response.scores_size(), golden.scores_size());
    for (int rank = 0; rank < response.scores_size(); ++rank) {
      EXPECT_NEAR(response.scores(rank), golden.scores(static_cast<int>(response.index(rank))), golden.tolerance());
    }
  };
  root_.PublishGolden(kFirst, "ads", 1);
  std::optional<steady_clock::duration> until_live;
  int before_live = 0;
  for (int64_t version = 1; version <= Kills() && !HasFailure(); ++version) {
    RunningServer server(root_, {"--state-dir=" + state.path(), "--poll-interval=10ms"});
    TestClient client(server.address());
    const auto response = client.Score(Request());
    ASSERT_TRUE(response.ok()) << response.status() << server.Log();
    expect_right(*response, version);
    EXPECT_TRUE(Eventually([&] { return LiveVersion(client) == version; })) << server.Log();
    const auto published = steady_clock::now();
    root_.PublishGolden(kFirst, "ads", version + 1);
    if (!until_live) {
      ASSERT_TRUE(Eventually([&] { return LiveVersion(client) == version + 1; })) << server.Log();
      until_live = steady_clock::now() - published;
    } else {
      std::this_thread::sleep_for(*until_live * std::uniform_real_distribution(0.0, 2.0)(random));
    }
    server.Signal(SIGKILL);
    server.Wait();
    const std::string live = "event=\"model live\" model=ads version=" + std::to_string(version + 1);
    before_live += server.Log().find(live) == std::string::npos;
  }
  std::cout << Kills() << " kills, " << before_live << " before the new version was live" << std::endl;
}

TEST_F(SwapTest, AtTheStartTheNewestGoodVersionIsServed) {
  root_.PublishGolden(kFirst, "ads", 1);
  root_.PublishGolden(kFirst, "ads", 2);
  root_.PublishCorrupted(kFirst, "ads", 3);
  RunningServer server(root_);
  TestClient client(server.address());
  EXPECT_EQ(LiveVersion(client), 2);
}

TEST_F(SwapTest, DeletedFilesDoNotMatterToTheLiveVersion) {
  root_.PublishGolden(kFirst, "ads", 1);
  RunningServer server(root_);
  TestClient client(server.address());
  const auto before = client.Score(Request());
  std::filesystem::remove_all(root_.path() + "/ads/1");
  const auto after = client.Score(Request());
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(before->SerializeAsString(), after->SerializeAsString());
}

TEST_F(SwapTest, RefusedModelSaysWhyInItsMetadata) {
  root_.PublishCorrupted(kFirst, "ads", 1);
  RunningServer server(root_);
  TestClient client(server.address());
  const auto metadata = client.GetModelMetadata("ads");
  EXPECT_EQ(metadata.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(metadata.status().message()), HasSubstr("version 1 was refused"));
}

}  // namespace
}  // namespace din
