#include "model_loader/snapshot_watcher.h"

#include <sched.h>

#include <atomic>
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
    options.lifecycle.keep = 0;
    options.load = [this](const LoadRequest& request) -> absl::StatusOr<ModelHandle> {
      loads_.push_back(request.model + "/" + std::to_string(request.version));
      const auto bad = bad_.find(loads_.back());
      if (bad != bad_.end()) return bad->second;
      return FakeModel(request.model, request.version, counter_);
    };
    options.on_event = [this](const LifecycleEvent& event) {
      const bool shown = event.kind != LifecycleEvent::Kind::kFound && event.kind != LifecycleEvent::Kind::kRetiring;
      if (shown)
        events_.push_back(std::string(Name(event.kind)) + " " + event.model + "/" + std::to_string(event.version));
      last_status_ = event.status;
    };
    options.now = [this] { return now_; };
    return options;
  }

  int64_t Live(const std::string& model = "m") const {
    const ModelHandle live = registry_.Find(model);
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
  EXPECT_EQ(registry_.StatusOf("m")->incomplete, std::vector<int64_t>{2});
  Publish("2");
  watcher.Step();
  EXPECT_EQ(Live(), 2);
  EXPECT_EQ(registry_.StatusOf("m")->incomplete, std::vector<int64_t>{});
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
  ModelHandle pinned = registry_.Find("m");
  Publish("2");
  watcher.Step();
  EXPECT_EQ(Live(), 2);
  EXPECT_EQ(registry_.StatusOf("m")->retiring, std::vector<int64_t>{1});
  EXPECT_EQ(counter_.alive, 2);
  std::jthread([&pinned] { pinned.reset(); }).join();
  EXPECT_EQ(counter_.alive, 2) << "a request frees nothing";
  watcher.Step();
  EXPECT_EQ(counter_.alive, 1);
  EXPECT_EQ(counter_.freed_by_others, 0);
  EXPECT_EQ(registry_.StatusOf("m")->retiring, std::vector<int64_t>{});
  EXPECT_EQ(Events().back(), "retired m/1");
}

TEST_F(SnapshotWatcherTest, AtMostTwoVersionsAreInMemory) {
  Publish("1");
  SnapshotWatcher watcher(Options());
  watcher.Step();
  ModelHandle pinned = registry_.Find("m");
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
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live("a"), 0);
  EXPECT_EQ(Live("b"), 8);
  EXPECT_EQ(registry_.StatusOf("a")->state(), ModelState::kRefused);
  EXPECT_EQ(registry_.Names(), Strings{"b"});
}

TEST_F(SnapshotWatcherTest, ALoaderThatThrowsOrReturnsNothingIsARefusal) {
  Publish("1");
  SnapshotWatcher::Options options = Options();
  int call = 0;
  options.load = [&call](const LoadRequest&) -> absl::StatusOr<ModelHandle> {
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

// --- Orders
// -----------------------------------------------------------------------------------------------------------

// Three versions with real manifests, one after the other; 3 is live, and 2 and 1 are kept.
class OrderTest : public SnapshotWatcherTest {
 protected:
  void Publish(const std::string& version) {
    const OwnedTensors tensors = SmallTensors();
    SnapshotContents contents = SmallContents(tensors);
    contents.spec.set_description("version " + version);
    const absl::Status status = WriteSnapshot(root_ / "m", std::stoll(version), contents);
    ASSERT_TRUE(status.ok()) << status;
  }
  SnapshotWatcher::Options Keeping(size_t keep) {
    SnapshotWatcher::Options options = Options();
    options.lifecycle.keep = keep;
    return options;
  }
  void PublishThree(SnapshotWatcher& watcher) {
    for (const char* version : {"1", "2", "3"}) {
      Publish(version);
      while (watcher.Step()) {
      }
    }
    Loads();
    Events();
  }
};

TEST_F(OrderTest, RollbackToAKeptVersionNeedsNoLoadAndIsSeenAtOnce) {
  SnapshotWatcher watcher(Keeping(2));
  PublishThree(watcher);
  EXPECT_EQ(registry_.StatusOf("m")->kept, (std::vector<int64_t>{1, 2}));
  const ModelHandle before = registry_.Find("m", {.version = 2});
  ASSERT_TRUE(watcher.Rollback("m", 0).ok());
  EXPECT_EQ(registry_.Find("m"), before);
  EXPECT_EQ(registry_.Find("m", {.version = 3}), nullptr);
  EXPECT_EQ(registry_.StatusOf("m")->live_version, 2);
  EXPECT_EQ(Events(), (Strings{"policy m/2", "live m/2"}));
  while (watcher.Step()) {
  }
  EXPECT_EQ(Events(), Strings{"retired m/3"}) << "quarantined, so it is not loaded again";
  EXPECT_EQ(Loads(), Strings{});
  ASSERT_TRUE(watcher.Rollback("m", 0).ok());
  EXPECT_EQ(Live(), 1);
  ExpectError(watcher.Rollback("m", 0), absl::StatusCode::kFailedPrecondition, {"no version older than the live 1"});
}

TEST_F(OrderTest, ARequestKeepsTheRolledBackVersionUntilItIsDone) {
  SnapshotWatcher watcher(Keeping(1));
  PublishThree(watcher);
  ModelHandle request = registry_.Find("m");
  ASSERT_TRUE(watcher.Rollback("m", 0).ok());
  while (watcher.Step()) {
  }
  EXPECT_EQ(request->version, 3);
  EXPECT_EQ(registry_.StatusOf("m")->retiring, std::vector<int64_t>{3});
  std::jthread([&request] { request.reset(); }).join();
  EXPECT_TRUE(watcher.Step());
  EXPECT_EQ(registry_.StatusOf("m")->retiring, std::vector<int64_t>{});
  EXPECT_EQ(counter_.freed_by_others, 0);
}

TEST_F(OrderTest, LabelsArePinsForRequestsThatAskForThem) {
  SnapshotWatcher watcher(Keeping(1));
  PublishThree(watcher);
  ASSERT_TRUE(watcher.SetLabel("m", "stable", 3).ok());
  ASSERT_TRUE(watcher.SetLabel("m", "old", 1).ok());
  Publish("4");
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live(), 3) << "stable says so";
  EXPECT_EQ(Loads(), Strings{"m/1"}) << "for the label; 4 has none";
  EXPECT_EQ(registry_.Find("m", {.label = "old"})->version, 1);
  ASSERT_TRUE(watcher.SetLabel("m", "canary", 4).ok());
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live(), 3);
  EXPECT_EQ(registry_.Find("m", {.label = "canary"})->version, 4);
  ASSERT_TRUE(watcher.SetLabel("m", "stable", 4).ok());
  EXPECT_EQ(Live(), 4) << "it was in memory";
  ASSERT_TRUE(watcher.SetLabel("m", "old", 0).ok());
  while (watcher.Step()) {
  }
  EXPECT_EQ(registry_.Find("m", {.label = "old"}), nullptr);
  EXPECT_EQ(registry_.StatusOf("m")->kept, std::vector<int64_t>{3});
  EXPECT_EQ(counter_.freed_by_others, 0);
}

TEST_F(OrderTest, UnloadFreesEverythingUntilLoad) {
  SnapshotWatcher watcher(Keeping(1));
  PublishThree(watcher);
  ASSERT_TRUE(watcher.Unload("m", 2).ok());
  ExpectError(watcher.Unload("m", 3), absl::StatusCode::kFailedPrecondition, {"is live, not kept"});
  ASSERT_TRUE(watcher.Unload("m", 0).ok());
  EXPECT_EQ(Live(), 0);
  EXPECT_EQ(registry_.StatusOf("m")->state(), ModelState::kUnloaded);
  while (watcher.Step()) {
  }
  EXPECT_EQ(counter_.alive, 0);
  ASSERT_TRUE(watcher.Load("m").ok());
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live(), 3);
}

TEST_F(OrderTest, WhatWasPublishedBeforeTheOrderIsKnownToItThoughNoPollSawIt) {
  SnapshotWatcher watcher(Keeping(1));
  PublishThree(watcher);
  Publish("4");
  ASSERT_TRUE(watcher.SetLabel("m", "canary", 4).ok());
  EXPECT_EQ(Live(), 3) << "an order loads nothing itself";
  while (watcher.Step()) {
  }
  EXPECT_EQ(registry_.Find("m", {.label = "canary"})->version, 4);
}

TEST_F(OrderTest, WhatIsNotThereCannotBeOrdered) {
  SnapshotWatcher watcher(Keeping(1));
  PublishThree(watcher);
  ExpectError(watcher.Pin("m", 7), absl::StatusCode::kNotFound, {"version: 7", "there: 3, 2, 1"});
  ExpectError(watcher.Pin("../etc", 1), absl::StatusCode::kNotFound, {"\"../etc\" is not in the root"});
  ExpectError(watcher.Pin("m", -1), absl::StatusCode::kInvalidArgument, {"version: -1"});
  ExpectError(watcher.SetLabel("m", "Stable!", 1), absl::StatusCode::kInvalidArgument, {"label: \"Stable!\""});
  EXPECT_EQ(Events(), Strings{});
  EXPECT_EQ(Live(), 3);
}

TEST_F(OrderTest, KeptVersionsGoBeforeALoadIsRefusedForWantOfMemory) {
  Publish("1");
  const uint64_t size = ProjectedMemory(*ReadManifest(root_ / "m/1", {}));
  std::filesystem::remove_all(root_ / "m/1");
  uint64_t limit = UINT64_MAX;
  SnapshotWatcher::Options options = Keeping(2);
  options.memory = [&] { return MemoryBudget{.limit = limit, .used = size * static_cast<uint64_t>(counter_.alive)}; };
  SnapshotWatcher watcher(std::move(options));
  PublishThree(watcher);
  limit = 7 * size / 2;  // room for three, and there are three
  Publish("4");
  while (watcher.Step()) {
  }
  EXPECT_EQ(Events(), (Strings{"retired m/1", "loading m/4", "live m/4", "kept m/3"}));
  EXPECT_EQ(counter_.alive, 3);
  limit = 3 * size / 2;  // not even with the live one alone
  Publish("5");
  while (watcher.Step()) {
  }
  EXPECT_EQ(Events(), Strings{"refused m/5"});
  ExpectError(
      last_status_, absl::StatusCode::kResourceExhausted,
      {"need " + std::to_string(size) + " bytes of memory, have 0 (limit ", "used " + std::to_string(3 * size)});
  EXPECT_EQ(Live(), 4);
  EXPECT_EQ(counter_.alive, 3) << "dropping the kept ones would not have been enough";
  limit = UINT64_MAX;
  now_ += 5s;
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live(), 5);
}

TEST_F(OrderTest, PolicySurvivesARestart) {
  TempDirectory state;
  {
    const auto store = PolicyStore::Open(state.path());
    ASSERT_TRUE(store.ok()) << store.status();
    SnapshotWatcher::Options options = Keeping(1);
    options.store = store->get();
    SnapshotWatcher watcher(std::move(options));
    PublishThree(watcher);
    ASSERT_TRUE(watcher.Rollback("m", 0).ok());
    while (watcher.Step()) {
    }
  }
  registry_.GetOrAdd("m").Publish({});
  const auto store = PolicyStore::Open(state.path());
  ASSERT_TRUE(store.ok()) << store.status();
  SnapshotWatcher::Options options = Keeping(1);
  options.store = store->get();
  std::vector<absl::Status> problems;
  options.policies = *(*store)->Load(problems);
  EXPECT_EQ(options.policies.at("m").last_good, 2);
  Loads();
  SnapshotWatcher watcher(std::move(options));
  while (watcher.Step()) {
  }
  EXPECT_EQ(Loads(), Strings{"m/2"}) << "the last good one, and 3 is quarantined";
  ASSERT_TRUE(watcher.Unpin("m").ok());
  while (watcher.Step()) {
  }
  EXPECT_EQ(Live(), 3) << "unpin lifts the quarantine";
}

TEST_F(OrderTest, WhatCannotBeWrittenDownSaysSoAndIsTriedAgain) {
  TempDirectory state;
  const auto store = PolicyStore::Open(state.path());
  ASSERT_TRUE(store.ok()) << store.status();
  SnapshotWatcher::Options options = Keeping(1);
  options.store = store->get();
  SnapshotWatcher watcher(std::move(options));
  PublishThree(watcher);
  std::filesystem::create_directories(state / ".next/in the way");
  const absl::Status rolled_back = watcher.Rollback("m", 0);
  EXPECT_EQ(rolled_back.code(), absl::StatusCode::kInternal);
  EXPECT_NE(rolled_back.message().find("carried out, but not written down"), std::string::npos) << rolled_back;
  EXPECT_EQ(Live(), 2);
  while (watcher.Step()) {
  }
  watcher.Step();
  EXPECT_EQ(std::ranges::count(Events(), "save failed m/0"), 1) << "once, not at each poll";
  std::filesystem::remove_all(state / ".next");
  watcher.Step();
  std::vector<absl::Status> problems;
  EXPECT_EQ((*store)->Load(problems)->at("m").last_good, 2);
  EXPECT_EQ((*store)->Load(problems)->at("m").quarantine.size(), 1u);
}

// A load in a thread of its own is given up as soon as nobody wants it.
TEST_F(OrderTest, AnOrderGivesUpALoadThatNobodyWantsAnyMore) {
  SnapshotWatcher::Options options = Keeping(1);
  std::atomic<bool> loading = false;
  options.load = [&](const LoadRequest& request) -> absl::StatusOr<ModelHandle> {
    if (request.version < 4) return FakeModel(request.model, request.version, counter_);
    loading = true;
    for (;;) {
      if (absl::Status status = request.control->Advance(1); !status.ok()) return status;
      std::this_thread::sleep_for(1ms);
    }
  };
  SnapshotWatcher watcher(std::move(options));
  PublishThree(watcher);
  Publish("4");
  std::jthread loader([&] { watcher.Step(); });
  while (!loading) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(registry_.StatusOf("m")->loading_version, 4);
  ASSERT_TRUE(watcher.Pin("m", 2).ok());
  EXPECT_EQ(Live(), 2) << "at once, in the middle of a load";
  loader.join();
  EXPECT_EQ(registry_.StatusOf("m")->loading_version, 0);
  EXPECT_EQ(registry_.StatusOf("m")->refused_version, 0);
}

TEST_F(OrderTest, StopGivesUpALoad) {
  SnapshotWatcher::Options options = Keeping(1);
  options.poll_interval = 1h;
  std::atomic<bool> loading = false;
  options.load = [&](const LoadRequest& request) -> absl::StatusOr<ModelHandle> {
    loading = true;
    for (;;) {
      if (absl::Status status = request.control->Advance(1); !status.ok()) return status;
      std::this_thread::sleep_for(1ms);
    }
  };
  Publish("1");
  SnapshotWatcher watcher(std::move(options));
  watcher.Start();
  while (!loading) std::this_thread::sleep_for(1ms);
  watcher.Stop();
  EXPECT_EQ(Live(), 0);
}

// The thread of Start(), requests beside it: every request finds a model, versions only go up, and no request frees
// one.
TEST_F(SnapshotWatcherTest, UnderRequestsEverySwapIsClean) {
  counter_.freeing_thread = std::thread::id();  // each load and each free has a thread of its own
  SnapshotWatcher::Options options = Options();
  options.poll_interval = 1ms;
  options.now = std::chrono::steady_clock::now;
  std::atomic<int64_t> live = 0;
  options.on_event = [&](const LifecycleEvent& event) {
    if (event.kind == LifecycleEvent::Kind::kLive) live = event.version;
  };
  options.load = [this](const LoadRequest& request) -> absl::StatusOr<ModelHandle> {
    if (request.version % 5 == 0) return absl::DataLossError("every fifth is bad");
    return FakeModel(request.model, request.version, counter_);
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
      is_request_thread = true;
      for (int64_t last = 1; !stop; ++served) {
        const ModelHandle model = registry_.Find("m");
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
}

TEST_F(SnapshotWatcherTest, AStarvedLoadIsReportedAndGoesOn) {
  bool may_rise = false;
  BackgroundThread().Run([&] { may_rise = sched_getscheduler(0) == SCHED_IDLE; }, {});
  if (!may_rise) GTEST_SKIP() << "neither CAP_SYS_NICE nor RLIMIT_NICE 10";
  SnapshotWatcher::Options options = Options();
  options.patience = 0ms;  // it has waited so long already
  std::atomic<bool> starved = false, live = false;
  options.on_event = [&](const LifecycleEvent& event) {
    if (event.kind == LifecycleEvent::Kind::kLive) live = true;
    if (event.kind != LifecycleEvent::Kind::kStarved) return;
    EXPECT_EQ(event.model, "m");
    EXPECT_EQ(event.version, 1);
    EXPECT_TRUE(event.text.starts_with("starved of a core for ")) << event.text;
    EXPECT_TRUE(event.text.ends_with(" s; goes on at nice 10")) << event.text;
    starved = true;
  };
  const auto wait_for = [](const std::atomic<bool>& what) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!what && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    return what.load();
  };
  counter_.freeing_thread = std::thread::id();
  options.load = [&](const LoadRequest& request) -> absl::StatusOr<ModelHandle> {
    EXPECT_TRUE(wait_for(starved));
    EXPECT_TRUE(request.control->starved());
    return FakeModel(request.model, request.version, counter_);
  };
  Publish("1");
  SnapshotWatcher watcher(std::move(options));
  watcher.Start();
  EXPECT_TRUE(wait_for(live));
  watcher.Stop();
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
