// grpc.health.v1 as a load balancer sees it.
#include <memory>
#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"

namespace din {
namespace {

constexpr char kService[] = "din.v1.ScoringService";

std::string HealthOf(TestClient& client, const std::string& service) {
  const auto health = client.Health(service);
  return health.ok() ? *health : std::string(health.status().message());
}

TEST(HealthTest, EveryModelHasAHealthOfItsOwn) {
  ModelRoot root;
  root.PublishGolden(GoldenNames()[0], "good", 1);
  root.PublishCorrupted(GoldenNames()[0], "bad", 1);
  RunningServer server(root, {"--ready-when=any"});
  TestClient client(server.address());
  EXPECT_EQ(HealthOf(client, "good"), "SERVING");
  EXPECT_EQ(HealthOf(client, "bad"), "NOT_SERVING");
  EXPECT_EQ(client.Health("none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(HealthOf(client, ""), "SERVING");
  EXPECT_EQ(HealthOf(client, kService), "SERVING");
}

TEST(HealthTest, ServerWaitsForAllModelsUnlessToldOtherwise) {
  ModelRoot root;
  root.PublishGolden(GoldenNames()[0], "good", 1);
  root.PublishCorrupted(GoldenNames()[0], "bad", 1);
  RunningServer server(root);
  TestClient client(server.address());
  EXPECT_EQ(HealthOf(client, "good"), "SERVING");
  EXPECT_EQ(HealthOf(client, ""), "NOT_SERVING");
  EXPECT_EQ(HealthOf(client, kService), "NOT_SERVING");
  EXPECT_TRUE(server.LogSays("event=\"not ready\" live=1 models=2 not_live=bad")) << server.Log();
  const auto watch = client.WatchHealth("");
  EXPECT_EQ(watch->Next(), "NOT_SERVING");
  root.PublishGolden(GoldenNames()[0], "bad", 2);
  EXPECT_EQ(watch->Next(), "SERVING");
}

TEST(HealthTest, EmptyRootIsNotReadyButTheServerRuns) {
  ModelRoot root;
  RunningServer server(root);
  TestClient client(server.address());
  EXPECT_EQ(HealthOf(client, ""), "NOT_SERVING");
  EXPECT_EQ(client.Score({}).status(), absl::NotFoundError("model: no model is served"));
  RunningServer always(root, {"--ready-when=always"});
  TestClient other(always.address());
  EXPECT_EQ(HealthOf(other, ""), "SERVING");
}

TEST(HealthTest, OnceReadyABadNewModelDoesNotTakeTheServerOut) {
  ModelRoot root;
  root.PublishGolden(GoldenNames()[0], "good", 1);
  RunningServer server(root);
  TestClient client(server.address());
  EXPECT_EQ(HealthOf(client, ""), "SERVING");
  root.PublishCorrupted(GoldenNames()[0], "bad", 1);
  ASSERT_TRUE(server.LogSays("model refused")) << server.Log();
  EXPECT_TRUE(Eventually([&] { return HealthOf(client, "bad") == "NOT_SERVING"; }));
  EXPECT_EQ(HealthOf(client, ""), "SERVING");
}

TEST(HealthTest, WatchSeesAModelComeAlive) {
  ModelRoot root;
  RunningServer server(root);
  TestClient client(server.address());
  const auto watch = client.WatchHealth("late");
  EXPECT_EQ(watch->Next(), "SERVICE_UNKNOWN");
  root.PublishGolden(GoldenNames()[0], "late", 1);
  std::optional<std::string> status = watch->Next();
  if (status == "NOT_SERVING") status = watch->Next();  // known, and loading: seen or not, as the load is slow or quick
  EXPECT_EQ(status, "SERVING");
}

}  // namespace
}  // namespace din
