// Deadlines, cancellation and a full queue.
#include <chrono>
#include <string>
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
using ::testing::HasSubstr;

// One thread and room for one: two requests are enough to fill it.
class OverloadTest : public ::testing::Test {
 protected:
  OverloadTest() { root_.PublishShop(1); }

  // Keeps a scoring thread busy for some tenths of a second.
  static v1::ScoreRequest Heavy() {
    v1::ScoreRequest request = ShopScoreRequest();
    v1::Column& items = *request.mutable_candidates(0);
    while (items.ids_size() < 300'000) items.add_ids(50);
    request.set_top_k(1);
    return request;
  }
  std::unique_ptr<RunningServer> Start(const std::string& queue) {
    return std::make_unique<RunningServer>(
        root_, std::vector<std::string>{"--threads=1", "--queue=" + queue, "--max-candidates=300000"});
  }

  ModelRoot root_;
};

TEST_F(OverloadTest, FullQueueRefusesAtOnceAndServesOnAfterwards) {
  const auto server = Start("1");
  TestClient client(server->address());
  std::vector<PendingScore> pending;
  for (int i = 0; i < 12; ++i) pending.push_back(client.StartScore(Heavy()));
  int served = 0, refused = 0;
  for (PendingScore& call : pending) {
    const auto response = call.Wait();
    if (response.ok()) {
      ++served;
      continue;
    }
    EXPECT_EQ(response.status().code(), absl::StatusCode::kResourceExhausted) << response.status();
    EXPECT_THAT(std::string(response.status().message()), HasSubstr("queue: 1 requests waiting, limit 1"));
    ++refused;
  }
  EXPECT_GE(served, 2);  // one running, one waiting
  EXPECT_GE(refused, 1);
  EXPECT_TRUE(client.Score(ShopScoreRequest()).ok());
  EXPECT_EQ(server->Stop(), 0);
}

// Admission comes first: a message that no thread will score costs no parsing, so nobody sees that it is malformed.
TEST_F(OverloadTest, RequestsThatAreShedAreNotParsed) {
  const auto server = Start("1");
  TestClient client(server->address());
  std::vector<PendingScore> pending;
  EXPECT_TRUE(Eventually([&] {
    pending.push_back(client.StartScore(Heavy()));
    return client.ScoreBytes("\xff").code() == absl::StatusCode::kResourceExhausted;
  }));
  for (PendingScore& call : pending) (void)call.Wait();
  EXPECT_EQ(server->Stop(), 0);
}

TEST_F(OverloadTest, DeadlinePassesWhileOthersAreScored) {
  const auto server = Start("8");
  TestClient client(server->address());
  PendingScore first = client.StartScore(Heavy());
  PendingScore second = client.StartScore(Heavy());
  const auto late = client.Score(ShopScoreRequest(), milliseconds(1));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(first.Wait().ok());
  EXPECT_TRUE(second.Wait().ok());
  EXPECT_TRUE(client.Score(ShopScoreRequest()).ok());
  EXPECT_EQ(server->Stop(), 0);
}

// Sixty heavy requests are cancelled in the queue. If they were scored all the same, the next one would wait for them.
TEST_F(OverloadTest, CancelledRequestsAreNotScored) {
  const auto server = Start("64");
  TestClient client(server->address());
  const auto begin = steady_clock::now();
  ASSERT_TRUE(client.Score(Heavy()).ok());
  const auto one = steady_clock::now() - begin;
  PendingScore running = client.StartScore(Heavy());
  std::vector<PendingScore> cancelled;
  for (int i = 0; i < 60; ++i) cancelled.push_back(client.StartScore(Heavy()));
  for (PendingScore& call : cancelled) call.Cancel();
  // gRPC may deliver one of them before `running`, and some may be done before their cancellation arrives.
  int scored = 0;
  for (PendingScore& call : cancelled) {
    const absl::Status status = call.Wait().status();
    if (status.ok())
      ++scored;
    else
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  }
  EXPECT_LT(scored, 30);
  const auto after = steady_clock::now();
  EXPECT_TRUE(running.Wait().ok());
  EXPECT_TRUE(client.Score(ShopScoreRequest()).ok());
  EXPECT_LT(steady_clock::now() - after, one * 30);
  EXPECT_EQ(server->Stop(), 0);
}

TEST_F(OverloadTest, MetadataAndHealthAnswerWhileRequestsAreShed) {
  const auto server = Start("1");
  TestClient client(server->address());
  std::vector<PendingScore> pending;
  for (int i = 0; i < 4; ++i) pending.push_back(client.StartScore(Heavy()));
  EXPECT_TRUE(client.GetModelMetadata("shop").ok());
  EXPECT_EQ(*client.Health("shop"), "SERVING");
  for (PendingScore& call : pending) (void)call.Wait();
  EXPECT_EQ(server->Stop(), 0);
}

}  // namespace
}  // namespace din
