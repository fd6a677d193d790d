#include "model_loader/snapshot_watcher.h"

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/model_loader/fake_model.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using namespace std::chrono_literals;

// A root of fake snapshots: a manifest is all that the watcher itself looks for.
class SnapshotWatcherTest : public ::testing::Test {
 protected:
  SnapshotWatcherTest() { counter_.freeing_thread = std::this_thread::get_id(); }

  void Publish(const std::string& version, const std::string& bytes = "x", const std::string& model = "m") {
    const std::string directory = root_ / (model + "/" + version);
    std::filesystem::create_directories(directory);
    WriteFile(directory + "/manifest.json", bytes);
  }

  SnapshotWatcher::Options Options() {
    SnapshotWatcher::Options options;
    options.root = root_.path();
    options.registry = &registry_;
    options.load = [this](const std::string& name, int64_t version) -> absl::StatusOr<ModelHandle> {
      loads_.push_back(name + "/" + std::to_string(version));
      const auto bad = bad_.find(loads_.back());
      if (bad != bad_.end()) return bad->second;
      return FakeModel(name, version, counter_);
    };
    options.on_event = [this](const WatcherEvent& event) {
      events_.push_back(std::string(Name(event.kind)) + " " + event.model + "/" + std::to_string(event.version));
      last_status_ = event.status;
    };
    options.now = [this] { return now_; };
    return options;
  }

  int64_t Live(const std::string& model = "m") const {
    const ModelHandle live = registry_.Find(model, 0);
    return live == nullptr ? 0 : live->version;
  }

  // What was loaded, or happened, since the last time.
  std::vector<std::string> Loads() { return std::exchange(loads_, {}); }
  std::vector<std::string> Events() { return std::exchange(events_, {}); }

  using Strings = std::vector<std::string>;

  TempDirectory root_;
  ModelCounter counter_;
  ModelRegistry registry_;
  std::map<std::string, absl::Status> bad_;
  Strings loads_, events_;
  absl::Status last_status_;
  std::chrono::steady_clock::time_point now_{};
};

TEST_F(SnapshotWatcherTest, TheHighestVersionGoesLiveAndThenEachNewerOne) {
  SnapshotWatcher watcher(Options());
  watcher.Step();
  EXPECT_EQ(Live(), 0);
  Publish("2");
  Publish("10");
  Publish("9");
  watcher.Step();
  EXPECT_EQ(Live(), 10);
  EXPECT_EQ(Events(), (Strings{"loading m/10", "live m/10"}));
  watcher.Step();
  EXPECT_EQ(Events(), Strings{});
  Publish("11");
  watcher.Step();
  EXPECT_EQ(Live(), 11);
  EXPECT_EQ(Events(), (Strings{"loading m/11", "live m/11", "retired m/10"}));
  EXPECT_EQ(Loads(), (Strings{"m/10", "m/11"}));
  EXPECT_EQ(counter_.alive, 1);
}

TEST_F(SnapshotWatcherTest, ItNeverGoesBackByItself) {
  Publish("5");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  Publish("4");
  watcher.Step();
  EXPECT_EQ(Live(), 5);
  std::filesystem::remove_all(root_ / "m/5");
  watcher.Step();
  EXPECT_EQ(Live(), 5) << "a directory that disappears does nothing to the live version";
  std::filesystem::remove_all(root_ / "m");
  watcher.Step();
  EXPECT_EQ(Live(), 5);
  EXPECT_EQ(Loads(), Strings{"m/5"});
}

TEST_F(SnapshotWatcherTest, OnlyPlainNumbersAreVersions) {
  for (const char* name : {"0", "007", "-1", "+1", "1x", "v1", ".tmp-9-1", ".9", "9223372036854775808", "1.0", " 1"}) {
    Publish(name);
  }
  Publish("1", "x", ".hidden");
  WriteFile(root_ / "m/77", "a file");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{});
  EXPECT_EQ(Events(), Strings{"refused m/77"}) << "a file is no directory";
  Publish("9223372036854775807");
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{"m/9223372036854775807"});
}

TEST_F(SnapshotWatcherTest, AVersionWithoutManifestIsNotComplete) {
  Publish("1");
  std::filesystem::create_directories(root_ / "m/2");
  WriteFile(root_ / "m/2/weights.safetensors", "half");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  watcher.Step();
  EXPECT_EQ(Live(), 1);
  EXPECT_EQ(Events(), (Strings{"loading m/1", "live m/1"}));
  Publish("2");
  watcher.Step();
  EXPECT_EQ(Live(), 2);
}

TEST_F(SnapshotWatcherTest, ARefusedVersionLeavesTheLiveOneAndIsSeenInTheStatus) {
  Publish("1");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  Publish("2");
  bad_["m/2"] = absl::DataLossError("weights.safetensors: bad");
  Events();
  watcher.Step();
  EXPECT_EQ(Live(), 1);
  EXPECT_EQ(Events(), (Strings{"loading m/2", "refused m/2"}));
  EXPECT_EQ(last_status_, bad_["m/2"]);
  const ModelStatus status = *registry_.StatusOf("m");
  EXPECT_EQ(status.state(), ModelState::kLive);
  EXPECT_EQ(status.live_version, 1);
  EXPECT_EQ(status.refused_version, 2);
  EXPECT_EQ(status.refused, bad_["m/2"]);
  EXPECT_EQ(status.loading_version, 0);
  Loads();
  for (int i = 0; i < 5; ++i) watcher.Step();
  now_ += 24h;
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{}) << "the same bytes are refused once";
}

TEST_F(SnapshotWatcherTest, BelowARefusedVersionTheNextOneIsTried) {
  for (const char* version : {"1", "2", "3"}) Publish(version);
  bad_["m/3"] = absl::InvalidArgumentError("bad");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  EXPECT_EQ(Live(), 0) << "one load a step";
  watcher.Step();
  EXPECT_EQ(Live(), 2);
  watcher.Step();
  EXPECT_EQ(Loads(), (Strings{"m/3", "m/2"})) << "1 is older than what is live";
}

TEST_F(SnapshotWatcherTest, ARepublishedVersionIsTriedAgain) {
  Publish("1");
  bad_["m/1"] = absl::DataLossError("bad");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{"m/1"});
  // A copy without a rename goes on: another file of the version changes.
  WriteFile(root_ / "m/1/weights.safetensors", "more");
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{"m/1"});
  bad_.clear();
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{});
  std::filesystem::remove_all(root_ / "m/1");
  watcher.Step();
  Publish("1");
  watcher.Step();
  EXPECT_EQ(Live(), 1);
}

TEST_F(SnapshotWatcherTest, WhatIsNotTheSnapshotsFaultIsTriedAgainLater) {
  Publish("1");
  bad_["m/1"] = absl::ResourceExhaustedError("need 10 bytes > limit 5");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  now_ += 4999ms;
  watcher.Step();
  EXPECT_EQ(Loads().size(), 1u);
  now_ += 1ms;
  watcher.Step();
  EXPECT_EQ(Loads().size(), 1u);
  now_ += 9999ms;
  watcher.Step();
  EXPECT_EQ(Loads().size(), 0u) << "twice as long each time";
  now_ += 1ms;
  watcher.Step();
  EXPECT_EQ(Loads().size(), 1u);
  for (int i = 0; i < 40; ++i) {
    now_ += 300s;
    watcher.Step();
  }
  EXPECT_EQ(Loads().size(), 40u) << "but not longer than five minutes";
  bad_.clear();
  now_ += 300s;
  watcher.Step();
  EXPECT_EQ(Live(), 1);
}

TEST_F(SnapshotWatcherTest, TheOldVersionIsKeptUntilTheLastRequestIsDoneAndFreedHere) {
  Publish("1");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  ModelHandle pinned = registry_.Find("m", 0);
  Publish("2");
  watcher.Step();
  EXPECT_EQ(Live(), 2);
  EXPECT_EQ(registry_.StatusOf("m")->retired_version, 1);
  EXPECT_EQ(counter_.alive, 2);
  std::jthread([&pinned] { pinned.reset(); }).join();
  EXPECT_EQ(counter_.alive, 2) << "a request frees nothing";
  watcher.Step();
  EXPECT_EQ(counter_.alive, 1);
  EXPECT_EQ(counter_.freed_by_others, 0);
  EXPECT_EQ(registry_.StatusOf("m")->retired_version, 0);
  EXPECT_EQ(Events().back(), "retired m/1");
}

TEST_F(SnapshotWatcherTest, AtMostTwoVersionsAreInMemory) {
  Publish("1");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  ModelHandle pinned = registry_.Find("m", 0);
  Publish("2");
  watcher.Step();
  Publish("3");
  Publish("1", "x", "other");
  Loads();
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{"other/1"}) << "3 waits for 1; other models do not";
  pinned.reset();
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{"m/3"});
  EXPECT_EQ(Live(), 3);
  EXPECT_EQ(counter_.most_alive, 3) << "two of m, one of other";
}

TEST_F(SnapshotWatcherTest, ModelsAreIndependent) {
  Publish("1", "x", "a");
  Publish("8", "x", "b");
  bad_["a/1"] = absl::DataLossError("bad");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  EXPECT_EQ(Live("a"), 0);
  EXPECT_EQ(Live("b"), 8);
  EXPECT_EQ(registry_.StatusOf("a")->state(), ModelState::kRefused);
  EXPECT_EQ(registry_.Names(), Strings{"b"});
}

TEST_F(SnapshotWatcherTest, ALoaderThatThrowsOrReturnsNothingIsARefusal) {
  Publish("1");
  SnapshotWatcher::Options options = Options();
  int call = 0;
  options.load = [&call](const std::string&, int64_t) -> absl::StatusOr<ModelHandle> {
    if (++call == 1) throw std::bad_alloc();
    if (call == 2) throw std::runtime_error("odd");
    return ModelHandle();
  };
  SnapshotWatcher watcher(std::move(options));
  watcher.Step();
  EXPECT_EQ(last_status_, absl::ResourceExhaustedError("out of memory"));
  Publish("1", "xx");
  watcher.Step();
  EXPECT_EQ(last_status_, absl::InternalError("odd"));
  Publish("1", "xxx");
  watcher.Step();
  EXPECT_EQ(last_status_, absl::InternalError("the loader returned no model"));
  EXPECT_EQ(Live(), 0);
}

TEST_F(SnapshotWatcherTest, WhatCannotBeListedIsReportedOnce) {
  SnapshotWatcher::Options options = Options();
  options.root = root_ / "nothing";
  SnapshotWatcher watcher(std::move(options));
  watcher.Step();
  watcher.Step();
  EXPECT_EQ(Events(), Strings{"scan failed /0"});
  EXPECT_EQ(last_status_.code(), absl::StatusCode::kNotFound);
  std::filesystem::create_directories(root_ / "nothing");
  watcher.Step();
  EXPECT_EQ(Events(), Strings{});
  std::filesystem::create_directory_symlink("/etc", root_ / "nothing/m");
  watcher.Step();
  watcher.Step();
  EXPECT_EQ(Events(), Strings{"scan failed m/0"});
  ExpectError(last_status_, absl::StatusCode::kInvalidArgument, {"a symbolic link"});
}

TEST_F(SnapshotWatcherTest, ALinkInPlaceOfAVersionIsRefused) {
  std::filesystem::create_directories(root_ / "m");
  std::filesystem::create_directory_symlink("/etc", root_ / "m/3");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  watcher.Step();
  EXPECT_EQ(Events(), Strings{"refused m/3"});
  ExpectError(last_status_, absl::StatusCode::kInvalidArgument, {"a symbolic link"});
  EXPECT_EQ(Loads(), Strings{});
}

TEST_F(SnapshotWatcherTest, AVersionThatIsLiveAlreadyIsNotLoadedAgain) {
  registry_.GetOrAdd("m").Swap(FakeModel("m", 4, counter_));
  Publish("3");
  Publish("4");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  EXPECT_EQ(Loads(), Strings{});
  Publish("5");
  watcher.Step();
  EXPECT_EQ(Live(), 5);
}

// The thread of Start(), requests beside it: every request finds a model, versions only go up, and no request frees
// one.
TEST_F(SnapshotWatcherTest, UnderRequestsEverySwapIsClean) {
  SnapshotWatcher::Options options = Options();
  options.poll_interval = 1ms;
  options.now = std::chrono::steady_clock::now;
  std::atomic<int64_t> live = 0;
  options.on_event = [&](const WatcherEvent& event) {
    if (event.kind == WatcherEvent::Kind::kLive) live = event.version;
  };
  options.load = [this](const std::string& name, int64_t version) -> absl::StatusOr<ModelHandle> {
    counter_.freeing_thread = std::this_thread::get_id();
    if (version % 5 == 0) return absl::DataLossError("every fifth is bad");
    return FakeModel(name, version, counter_);
  };
  Publish("1");
  SnapshotWatcher watcher(std::move(options));
  watcher.Start();
  const auto wait_for = [&](int64_t version) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (live < version && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(100us);
    return live >= version;
  };
  ASSERT_TRUE(wait_for(1));
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::atomic<long> served = 0;
  std::vector<std::jthread> requests;
  for (int r = 0; r < 2; ++r) {
    requests.emplace_back([&] {
      for (int64_t last = 1; !stop; ++served) {
        const ModelHandle model = registry_.Find("m", 0);
        if (model == nullptr || model->version < last || model->version % 5 == 0) {
          ++wrong;
          continue;
        }
        last = model->version;
        std::this_thread::sleep_for(50us);
      }
    });
  }
  for (int64_t version = 2; version <= 49; ++version) {
    Publish(std::to_string(version));
    ASSERT_TRUE(version % 5 == 0 || wait_for(version)) << version;
  }
  stop = true;
  requests.clear();
  watcher.Stop();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(served, 0);
  EXPECT_EQ(counter_.freed_by_others, 0);
  EXPECT_LE(counter_.most_alive, 2);
  EXPECT_EQ(Live(), 49);
  watcher.Step();  // frees what may be left here
  counter_.freeing_thread = std::this_thread::get_id();
}

TEST_F(SnapshotWatcherTest, StopDoesNotWaitForTheNextPoll) {
  SnapshotWatcher::Options options = Options();
  options.poll_interval = 1h;
  SnapshotWatcher watcher(std::move(options));
  watcher.Start();
  const auto begin = std::chrono::steady_clock::now();
  watcher.Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

}  // namespace
}  // namespace din
