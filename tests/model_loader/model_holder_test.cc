#include "model_loader/model_holder.h"

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model_loader/fake_model.h"

namespace din {
namespace {

TEST(ModelHolderTest, PublishReplacesAllThatIsServed) {
  ModelCounter counter;
  ModelHolder holder("m");
  EXPECT_EQ(holder.Current(), nullptr);
  const ModelHandle one = FakeModel("m", 1, counter), two = FakeModel("m", 2, counter),
                    three = FakeModel("m", 3, counter);
  holder.Publish({.live = two, .kept = {one, three}, .labels = {{"stable", 2}, {"canary", 3}, {"gone", 9}}});
  EXPECT_EQ(holder.Current(), two);
  EXPECT_EQ(holder.Find({.version = 2}), two);
  EXPECT_EQ(holder.Find({.version = 1}), one);
  EXPECT_EQ(holder.Find({.version = 4}), nullptr);
  EXPECT_EQ(holder.Find({.label = "stable"}), two);
  EXPECT_EQ(holder.Find({.label = "canary"}), three);
  EXPECT_EQ(holder.Find({.label = "gone"}), nullptr);
  EXPECT_EQ(holder.Find({.label = "other"}), nullptr);
  holder.Publish({.live = one, .kept = {}, .labels = {}});
  EXPECT_EQ(holder.Current(), one);
  EXPECT_EQ(holder.Find({.version = 2}), nullptr);
  EXPECT_EQ(holder.Find({.label = "stable"}), nullptr);
  holder.Publish({});
  EXPECT_EQ(holder.Current(), nullptr);
}

TEST(ModelHolderTest, AfterPublishTheOldVersionIsOnlyWithThoseWhoPinnedIt) {
  ModelCounter counter;
  ModelHolder holder("m");
  ModelHandle old = FakeModel("m", 1, counter);
  holder.Publish({.live = old, .kept = {}, .labels = {}});
  ModelHandle pinned = holder.Current();
  holder.Publish({.live = FakeModel("m", 2, counter), .kept = {}, .labels = {}});
  EXPECT_EQ(old.use_count(), 2) << "ours and the pin";
  pinned.reset();
  EXPECT_EQ(old.use_count(), 1);
  EXPECT_EQ(counter.alive, 2);
  old.reset();
  EXPECT_EQ(counter.alive, 1);
}

TEST(ModelHolderTest, StatusTellsTheState) {
  ModelCounter counter;
  ModelHolder holder("m");
  EXPECT_EQ(holder.Status().name, "m");
  EXPECT_EQ(holder.Status().state(), ModelState::kEmpty);
  ModelStatus status = holder.Status();
  status.loading_version = 1;
  EXPECT_EQ(status.state(), ModelState::kLoading);
  status.loading_version = 0;
  status.refused_version = 1;
  status.refused = absl::DataLossError("bad");
  EXPECT_EQ(status.state(), ModelState::kRefused);
  holder.SetStatus(status);
  const auto before = std::chrono::system_clock::now();
  holder.Swap(FakeModel("m", 2, counter));
  status = holder.Status();
  EXPECT_EQ(status.state(), ModelState::kLive);
  EXPECT_EQ(status.live_version, 2);
  EXPECT_GE(status.live_since, before);
  EXPECT_EQ(status.refused_version, 1);
  EXPECT_EQ(status.refused, absl::DataLossError("bad"));
  EXPECT_STREQ(Name(status.state()), "live");
  status.live_version = 0;
  status.policy.unloaded = true;
  EXPECT_EQ(status.state(), ModelState::kUnloaded);
}

TEST(ModelRegistryTest, FindsByNameAndVersion) {
  ModelCounter counter;
  ModelRegistry registry;
  EXPECT_EQ(registry.Find("a"), nullptr);
  const ModelHandle a = FakeModel("a", 7, counter), b = FakeModel("b", 3, counter);
  registry.GetOrAdd("b").Swap(b);
  registry.GetOrAdd("a").Swap(a);
  registry.GetOrAdd("empty");
  EXPECT_EQ(registry.Find("a"), a);
  EXPECT_EQ(registry.Find("a", {.version = 7}), a);
  EXPECT_EQ(registry.Find("a", {.version = 6}), nullptr);
  EXPECT_EQ(registry.Find("b"), b);
  EXPECT_EQ(registry.Find("empty"), nullptr);
  EXPECT_EQ(registry.Names(), (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(registry.Statuses().size(), 3u);
  EXPECT_EQ(registry.Statuses()[1].live_version, 3);
  EXPECT_EQ(registry.Statuses()[2].state(), ModelState::kEmpty);
  ASSERT_TRUE(registry.StatusOf("a").has_value());
  EXPECT_EQ(registry.StatusOf("a")->live_version, 7);
  EXPECT_FALSE(registry.StatusOf("c").has_value());
  EXPECT_EQ(&registry.GetOrAdd("a"), &registry.GetOrAdd("a"));
}

TEST(ModelRegistryTest, RequestsAlwaysFindAModelWhileVersionsChangeAndModelsComeIn) {
  ModelCounter counter;
  {
    ModelRegistry registry;
    registry.GetOrAdd("m").Swap(FakeModel("m", 1, counter));
    std::atomic<bool> stop = false;
    std::atomic<int> missing = 0, backward = 0;
    std::vector<std::jthread> requests;
    for (int r = 0; r < 3; ++r) {
      requests.emplace_back([&] {
        for (int64_t last = 1; !stop;) {
          const ModelHandle model = registry.Find("m");
          missing += model == nullptr;
          if (model == nullptr) continue;
          backward += model->version < last;
          last = model->version;
        }
      });
    }
    requests.emplace_back([&] {
      while (!stop) {
        (void)registry.Statuses();
        (void)registry.Names();
      }
    });
    for (int64_t version = 2; version <= 500; ++version) {
      registry.GetOrAdd("m").Swap(FakeModel("m", version, counter));
      if (version % 50 == 0) registry.GetOrAdd("other" + std::to_string(version));
    }
    stop = true;
    requests.clear();
    EXPECT_EQ(missing, 0);
    EXPECT_EQ(backward, 0);
    EXPECT_EQ(counter.alive, 1);
  }
  EXPECT_EQ(counter.alive, 0);
}

}  // namespace
}  // namespace din
