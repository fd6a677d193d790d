#include "model_loader/model_holder.h"

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model_loader/fake_model.h"

namespace din {
namespace {

TEST(ModelHolderTest, SwapReturnsWhatWasLive) {
  ModelCounter counter;
  ModelHolder holder("m");
  EXPECT_EQ(holder.Current(), nullptr);
  const ModelHandle one = FakeModel("m", 1, counter), two = FakeModel("m", 2, counter);
  EXPECT_EQ(holder.Swap(one), nullptr);
  EXPECT_EQ(holder.Current(), one);
  EXPECT_EQ(holder.Swap(two), one);
  EXPECT_EQ(holder.Current(), two);
  EXPECT_EQ(holder.Swap(nullptr), two);
  EXPECT_EQ(holder.Current(), nullptr);
}

TEST(ModelHolderTest, AfterSwapTheOldVersionIsOnlyWithThoseWhoPinnedIt) {
  ModelCounter counter;
  ModelHolder holder("m");
  holder.Swap(FakeModel("m", 1, counter));
  ModelHandle pinned = holder.Current();
  ModelHandle old = holder.Swap(FakeModel("m", 2, counter));
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
  holder.SetLoading(1);
  EXPECT_EQ(holder.Status().state(), ModelState::kLoading);
  EXPECT_EQ(holder.Status().loading_version, 1);
  holder.SetLoading(0);
  holder.SetRefused(1, absl::DataLossError("bad"));
  EXPECT_EQ(holder.Status().state(), ModelState::kRefused);
  const auto before = std::chrono::system_clock::now();
  holder.Swap(FakeModel("m", 2, counter));
  const ModelStatus status = holder.Status();
  EXPECT_EQ(status.state(), ModelState::kLive);
  EXPECT_EQ(status.live_version, 2);
  EXPECT_GE(status.live_since, before);
  EXPECT_EQ(status.refused_version, 1);
  EXPECT_EQ(status.refused, absl::DataLossError("bad"));
  EXPECT_STREQ(Name(status.state()), "live");
}

TEST(ModelRegistryTest, FindsByNameAndVersion) {
  ModelCounter counter;
  ModelRegistry registry;
  EXPECT_EQ(registry.Find("a", 0), nullptr);
  const ModelHandle a = FakeModel("a", 7, counter), b = FakeModel("b", 3, counter);
  registry.GetOrAdd("b").Swap(b);
  registry.GetOrAdd("a").Swap(a);
  registry.GetOrAdd("empty");
  EXPECT_EQ(registry.Find("a", 0), a);
  EXPECT_EQ(registry.Find("a", 7), a);
  EXPECT_EQ(registry.Find("a", 6), nullptr);
  EXPECT_EQ(registry.Find("b", 0), b);
  EXPECT_EQ(registry.Find("empty", 0), nullptr);
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
          const ModelHandle model = registry.Find("m", 0);
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
