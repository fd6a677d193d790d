// The policy as tables: what is on disk, in memory and decided, and what follows from it.
#include "model_loader/lifecycle.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

FoundVersion OnDisk(int64_t version, uint64_t bytes = 10) {
  return {.version = version, .stamp = "s", .digest = absl::StrCat("digest", version), .bytes = bytes};
}

// Loads succeed unless their version is in `bad`.
class Lives {
 public:
  explicit Lives(const Lifecycle::Options& options = {}) : lifecycle(options) {}

  void Find(const std::vector<int64_t>& versions) {
    std::vector<FoundVersion> found;
    for (const int64_t version : versions) found.push_back(OnDisk(version));
    lifecycle.Found("m", found);
  }
  // The next load, carried out; 0 when there is none.
  int64_t LoadOne(const MemoryBudget& memory = {}) {
    for (const int64_t version : Model().In(VersionState::kRetiring)) lifecycle.Freed("m", version);
    const auto order = lifecycle.NextLoad(now, memory);
    if (!order) return 0;
    const auto why = bad.find(order->version);
    if (why != bad.end())
      lifecycle.Failed("m", order->version, why->second, now);
    else
      lifecycle.Loaded("m", order->version, absl::StrCat("digest", order->version), BytesOf(*order));
    return order->version;
  }
  std::vector<int64_t> LoadAll() {
    std::vector<int64_t> loaded;
    while (const int64_t version = LoadOne()) loaded.push_back(version);
    return loaded;
  }
  // A delta over the live version shares 100 with it.
  uint64_t BytesOf(const Lifecycle::LoadOrder& order) const {
    return order.bytes + (order.chain || Model().memory.at(order.version).base.empty() ? 0 : 100);
  }
  const Lifecycle::Model& Model() const { return lifecycle.models().at("m"); }
  std::vector<int64_t> Kept() const { return Model().In(VersionState::kKept); }

  using Versions = std::vector<int64_t>;
  Lifecycle lifecycle;
  std::map<int64_t, absl::Status> bad;
  Lifecycle::Time now{};
};
using Versions = Lives::Versions;

ModelPolicy LastGood(int64_t version, ModelPolicy policy) {
  policy.last_good = version;
  policy.last_good_digest = absl::StrCat("digest", version);
  return policy;
}

TEST(LifecycleTest, WhatGoesLive) {
  struct Row {
    const char* name;
    ModelPolicy policy;
    Versions found;
    std::vector<int64_t> bad;
    Versions loads;
    int64_t live;
  };
  const std::vector<Row> rows = {
      {"nothing there", {}, {}, {}, {}, 0},
      {"the newest", {}, {1, 3, 2}, {}, {3}, 3},
      {"the next one below a bad one", {}, {1, 2, 3}, {3}, {3, 2}, 2},
      {"nothing when all are bad", {}, {1, 2}, {1, 2}, {2, 1}, 0},
      {"the pinned one", {.pinned = 2}, {1, 2, 3}, {}, {2}, 2},
      {"nothing else than the pinned one", {.pinned = 2}, {1, 3}, {}, {}, 0},
      {"nothing else even when it is bad", {.pinned = 2}, {1, 2, 3}, {2}, {2}, 0},
      {"the stable one", {.labels = {{"stable", 1}}}, {1, 2}, {}, {1}, 1},
      {"a pin before stable", {.pinned = 2, .labels = {{"stable", 1}}}, {1, 2, 3}, {}, {2, 1}, 2},
      {"labels beside it", {.labels = {{"stable", 1}, {"canary", 2}}}, {1, 2, 3}, {}, {1, 2}, 1},
      {"not the quarantined one", {.quarantine = {{"digest3", 3}}}, {1, 2, 3}, {}, {2}, 2},
      {"the last good one first", {.last_good = 1, .last_good_digest = "digest1"}, {1, 2, 3}, {3}, {1, 3, 2}, 2},
      {"not what only has its number", {.last_good = 1, .last_good_digest = "other"}, {1, 2}, {}, {2}, 2},
      {"the pinned one before the last good one", LastGood(1, {.pinned = 2}), {1, 2, 3}, {}, {2}, 2},
      {"the last good one where the pinned one is bad", LastGood(1, {.pinned = 2}), {1, 2, 3}, {2}, {2, 1}, 1},
      {"the last good one where the pinned one is gone", LastGood(1, {.pinned = 2}), {1, 3}, {}, {1}, 1},
      {"the last good one where the stable one is bad",
       LastGood(3, {.labels = {{"stable", 2}, {"canary", 1}}}),
       {1, 2, 3},
       {2},
       {2, 3, 1},
       3},
      {"the last good one where what it was rolled back to is bad",
       LastGood(2, {.quarantine = {{"digest2", 2}}}),
       {1, 2},
       {1},
       {1, 2},
       2},
      {"and not what else was rolled back",
       LastGood(3, {.quarantine = {{"digest2", 2}, {"digest3", 3}}}),
       {1, 2, 3},
       {1},
       {1, 3},
       3},
      {"nothing when unloaded", {.unloaded = true}, {1, 2}, {}, {}, 0},
  };
  for (const Row& row : rows) {
    Lives lives;
    lives.lifecycle.Restore("m", row.policy);
    for (const int64_t version : row.bad) lives.bad[version] = absl::DataLossError("bad");
    lives.Find(row.found);
    EXPECT_EQ(lives.LoadAll(), row.loads) << row.name;
    EXPECT_EQ(lives.Model().live, row.live) << row.name;
  }
}

TEST(LifecycleTest, WhatServesInPlaceOfThePinnedOneMakesWayForIt) {
  Lives lives;
  lives.lifecycle.Restore("m", LastGood(1, {.pinned = 2}));
  lives.bad[2] = absl::UnavailableError("EIO");
  lives.Find({1, 2});
  EXPECT_EQ(lives.LoadAll(), (Versions{2, 1}));
  EXPECT_EQ(lives.Model().live, 1);
  lives.bad.clear();
  lives.now += 300s;
  EXPECT_EQ(lives.LoadAll(), Versions{2});
  EXPECT_EQ(lives.Model().live, 2);
}

TEST(LifecycleTest, AnOrderComesBeforeWhatServesAgain) {
  for (const bool late : {false, true}) {
    Lives lives;
    lives.lifecycle.Restore("m", LastGood(1, {}));
    lives.Find({1, 2});
    ASSERT_EQ(lives.lifecycle.NextLoad(lives.now, {})->version, 1);
    ASSERT_TRUE(lives.lifecycle.Pin("m", 2).ok());
    if (late) {
      lives.lifecycle.Loaded("m", 1, "digest1", 10);
    } else {
      lives.lifecycle.Failed("m", 1, absl::CancelledError("not wanted"), lives.now);
    }
    const std::vector<LifecycleAction> actions = lives.lifecycle.TakeActions();
    EXPECT_TRUE(
        std::ranges::any_of(actions, [](const auto& a) { return a.kind == LifecycleAction::Kind::kCancelLoad; }));
    EXPECT_EQ(lives.Model().live, 0);
    EXPECT_EQ(lives.LoadAll(), Versions{2});
    EXPECT_EQ(lives.Model().live, 2);
  }
}

TEST(LifecycleTest, RetriesAreBoundedAndBeginAnewWhenTheFilesChange) {
  Lives lives({.most_attempts = 3});
  lives.bad[1] = absl::UnavailableError("EIO");
  lives.Find({1});
  int attempts = 0;
  for (int i = 0; i < 100; ++i, lives.now += 300s) attempts += lives.LoadOne() == 1;
  EXPECT_EQ(attempts, 3);
  lives.lifecycle.Found("m", {{.version = 1, .stamp = "other", .digest = "d", .bytes = 1}});
  EXPECT_EQ(lives.LoadOne(), 1);
  EXPECT_EQ(lives.LoadOne(), 0);
  ASSERT_TRUE(lives.lifecycle.Load("m").ok());
  EXPECT_EQ(lives.LoadOne(), 1) << "an operator may ask for another try";
}

TEST(LifecycleTest, ARollbackQuarantinesUntilSomethingNewerComes) {
  Lives lives;
  for (const Versions& found : {Versions{1}, Versions{1, 2}, Versions{1, 2, 3}}) {
    lives.Find(found);
    lives.LoadAll();
  }
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  EXPECT_EQ(lives.Model().live, 2);
  EXPECT_EQ(lives.LoadAll(), Versions{});
  EXPECT_TRUE(lives.Model().policy.quarantine.contains("digest3"));
  lives.Find({1, 2, 3, 4});
  EXPECT_EQ(lives.LoadAll(), Versions{4});
  EXPECT_TRUE(lives.Model().policy.quarantine.empty());
  EXPECT_EQ(lives.Model().live, 4);
}

TEST(LifecycleTest, ARollbackToWhatIsNotInMemoryLoadsItWhileTheLiveOneServes) {
  Lives lives({.keep = 0});
  lives.Find({1, 2, 3});
  lives.LoadAll();
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 1).ok());
  EXPECT_EQ(lives.Model().live, 3);
  EXPECT_EQ(lives.LoadAll(), Versions{1}) << "2 lies between and is quarantined, too";
  EXPECT_EQ(lives.Model().live, 1);
}

TEST(LifecycleTest, AnOlderVersionWithTheSameBytesIsNotQuarantinedWithTheNewerOne) {
  Lives lives;
  const auto same = [](int64_t version) { return FoundVersion{.version = version, .stamp = "s", .digest = "d"}; };
  const auto load = [&](const std::vector<FoundVersion>& found) {
    lives.lifecycle.Found("m", found);
    while (const auto order = lives.lifecycle.NextLoad(lives.now, {})) {
      lives.lifecycle.Loaded("m", order->version, "d", 1);
    }
  };
  load({same(1)});
  load({same(1), same(2)});
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  lives.lifecycle.Freed("m", 2);
  load({same(1), same(2), same(3)});
  EXPECT_EQ(lives.Model().live, 1) << "3 has the bytes that were rolled back";
  EXPECT_EQ(lives.Model().last_refused, 3);
  EXPECT_THAT(std::string(lives.Model().last_refusal.message()), HasSubstr("the bytes of version 2"));
  ASSERT_TRUE(lives.lifecycle.Unpin("m").ok());
  load({same(1), same(2), same(3)});
  EXPECT_EQ(lives.Model().live, 3);
}

TEST(LifecycleTest, TheSameBytesBetweenWhatWasRolledBackAndWhatServesAreQuarantined) {
  Lives lives;
  for (const Versions& found : {Versions{3}, Versions{3, 7}}) {
    lives.Find(found);
    lives.LoadAll();
  }
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  FoundVersion again = OnDisk(5);
  again.digest = "digest7";
  lives.lifecycle.Found("m", {OnDisk(3), again});
  EXPECT_EQ(lives.LoadAll(), Versions{});
  EXPECT_EQ(lives.Model().live, 3);
}

TEST(LifecycleTest, PinAndLabelMoveAlongWithARollback) {
  Lives lives;
  lives.Find({1, 2});
  lives.lifecycle.Restore("m", {.pinned = 2, .labels = {{"stable", 2}, {"x", 2}}});
  lives.LoadAll();
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  EXPECT_EQ(lives.LoadAll(), Versions{1});
  EXPECT_EQ(lives.Model().policy.pinned, 1);
  EXPECT_EQ(lives.Model().policy.labels, (std::map<std::string, int64_t>{{"stable", 1}, {"x", 2}}));
  EXPECT_EQ(lives.Kept(), Versions{2}) << "x points to it";
}

TEST(LifecycleTest, UnpinGoesToTheNewestAtOnceWhereItIsInMemory) {
  Lives lives;
  lives.Find({1});
  lives.LoadAll();
  lives.Find({1, 2});
  lives.LoadAll();
  ASSERT_TRUE(lives.lifecycle.Pin("m", 1).ok());
  EXPECT_EQ(lives.Model().live, 1);
  EXPECT_EQ(lives.Kept(), Versions{2});
  ASSERT_TRUE(lives.lifecycle.Unpin("m").ok());
  EXPECT_EQ(lives.Model().live, 2);
}

TEST(LifecycleTest, NothingIsLoadedBesideARetiringVersion) {
  Lives lives({.keep = 0});
  lives.Find({1});
  lives.LoadAll();
  lives.Find({1, 2});
  ASSERT_EQ(lives.LoadOne(), 2);
  lives.Find({1, 2, 3});
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {}).has_value());
  lives.lifecycle.Freed("m", 1);
  EXPECT_TRUE(lives.lifecycle.NextLoad(lives.now, {}).has_value());
}

TEST(LifecycleTest, KeptVersionsOfOtherModelsMakeRoomToo) {
  Lives lives;
  lives.Find({1});
  lives.LoadAll();
  lives.Find({1, 2});
  lives.LoadAll();
  lives.lifecycle.Found("new", {OnDisk(1, 15)});
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {.limit = 30, .used = 20}).has_value());
  EXPECT_EQ(lives.Model().In(VersionState::kRetiring), Versions{1});
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {.limit = 30, .used = 20}).has_value()) << "it is not free yet";
  lives.lifecycle.Freed("m", 1);
  const auto order = lives.lifecycle.NextLoad(lives.now, {.limit = 30, .used = 10});
  ASSERT_TRUE(order.has_value());
  EXPECT_EQ(order->model, "new");
}

TEST(LifecycleTest, OrdersThatMakeNoSenseSayWhy) {
  Lives lives;
  lives.Find({1, 2});
  EXPECT_THAT(std::string(lives.lifecycle.Rollback("m", 0).message()), HasSubstr("nothing is live"));
  lives.LoadAll();
  EXPECT_THAT(std::string(lives.lifecycle.Rollback("m", 2).message()), HasSubstr("2 is not older than the live 2"));
  EXPECT_THAT(std::string(lives.lifecycle.SetLabel("m", "x", 0).message()), HasSubstr("has no \"x\""));
  for (char c = 'a'; c < 'a' + 8; ++c) ASSERT_TRUE(lives.lifecycle.SetLabel("m", std::string(1, c), 2).ok());
  EXPECT_EQ(lives.lifecycle.SetLabel("m", "z", 2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(lives.lifecycle.Load("n").code(), absl::StatusCode::kNotFound);
}

TEST(LifecycleTest, ADeltaNeedsRoomForItsChainOnlyWhereNothingIsLive) {
  FoundVersion base = OnDisk(1, 100), delta = OnDisk(2, 10);
  delta.base = base.digest;
  delta.chain_bytes = 100;
  Lives starts;
  starts.lifecycle.Found("m", {delta});
  EXPECT_EQ(starts.LoadOne({.limit = 109}), 0);
  EXPECT_THAT(std::string(starts.Model().last_refusal.message()), HasSubstr("need 110 bytes of memory, have 109"));

  Lives serves;
  serves.lifecycle.Found("m", {base});
  ASSERT_EQ(serves.LoadOne(), 1);
  serves.lifecycle.Found("m", {base, delta});
  EXPECT_EQ(serves.LoadOne({.limit = 109, .used = 100}), 0);
  EXPECT_THAT(std::string(serves.Model().last_refusal.message()), HasSubstr("need 10 bytes of memory, have 9"));
  serves.lifecycle.Load("m").IgnoreError();
  EXPECT_EQ(serves.LoadOne({.limit = 110, .used = 100}), 2);
}

// Its memory is that of the delta that lies over it.
TEST(LifecycleTest, AKeptBaseOfADeltaMakesNoRoom) {
  FoundVersion base = OnDisk(1, 100), delta = OnDisk(2, 10), next = OnDisk(3, 50), full = OnDisk(4, 50);
  delta.base = base.digest;
  next.base = delta.digest;
  Lives lives({.keep = 3});
  lives.lifecycle.Found("m", {base});
  ASSERT_EQ(lives.LoadOne(), 1);
  lives.lifecycle.Found("m", {base, delta});
  ASSERT_EQ(lives.LoadOne(), 2);
  ASSERT_EQ(lives.Kept(), Versions{1});
  lives.lifecycle.Found("m", {base, delta, next});
  EXPECT_EQ(lives.LoadOne({.limit = 150, .used = 110}), 0);
  EXPECT_EQ(lives.Kept(), Versions{1}) << "it would have gone for nothing";
  lives.lifecycle.Found("m", {base, delta, full});
  ASSERT_EQ(lives.LoadOne(), 4);
  lives.lifecycle.Found("m", {base, delta, full, OnDisk(5, 50)});
  EXPECT_EQ(lives.LoadOne({.limit = 200, .used = 155}), 0);
  EXPECT_EQ(lives.Kept(), Versions{1}) << "the delta goes, which is the older one that holds memory of its own";
}

// Deltas, each on the version before it.
std::vector<FoundVersion> Chain(int64_t last) {
  std::vector<FoundVersion> found = {OnDisk(1, 100)};
  for (int64_t version = 2; version <= last; ++version) {
    found.push_back(OnDisk(version, 10));
    found.back().base = absl::StrCat("digest", version - 1);
    found.back().chain_bytes = 90 + 10 * static_cast<uint64_t>(version - 1);
    for (int64_t base = version - 1; base > 0; --base) found.back().bases.push_back(absl::StrCat("digest", base));
  }
  return found;
}

TEST(LifecycleTest, ADeltaWaitsForItsBase) {
  Lives lives;
  lives.Find({1});
  lives.LoadAll();
  lives.lifecycle.Found("m", Chain(3));
  EXPECT_EQ(lives.LoadAll(), (Versions{2, 3}));
  EXPECT_EQ(lives.Model().last_refused, 0);
  std::vector<FoundVersion> found = Chain(5);
  std::erase_if(found, [](const FoundVersion& f) { return f.version == 4; });
  lives.lifecycle.Found("m", found);
  EXPECT_EQ(lives.LoadAll(), Versions{});
  EXPECT_EQ(std::string(lives.Model().last_refusal.message()), "a delta on digest4, but digest3 is live");
}

TEST(LifecycleTest, ADeltaOnWhatWasRolledBackDoesNotGoLive) {
  Lives lives;
  lives.lifecycle.Found("m", Chain(1));
  lives.LoadAll();
  lives.lifecycle.Found("m", Chain(2));
  lives.LoadAll();
  lives.lifecycle.Found("m", Chain(3));
  ASSERT_EQ(lives.lifecycle.NextLoad(lives.now, {})->version, 3);
  lives.lifecycle.TakeActions();
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  const std::vector<LifecycleAction> actions = lives.lifecycle.TakeActions();
  EXPECT_TRUE(std::ranges::any_of(actions, [](const auto& a) { return a.kind == LifecycleAction::Kind::kCancelLoad; }));
  lives.lifecycle.Loaded("m", 3, "digest3", 110);  // it was through already
  EXPECT_EQ(lives.Model().live, 1);
  EXPECT_EQ(lives.LoadAll(), Versions{});
  EXPECT_TRUE(lives.Model().policy.quarantine.contains("digest2"));
  EXPECT_EQ(lives.Model().last_refused, 3) << "not in silence";
  EXPECT_THAT(std::string(lives.Model().last_refusal.message()), HasSubstr("a delta on what was rolled back"));
}

// What comes after it on the way from the live version is nobody's business.
TEST(LifecycleTest, ADeltaThatIsAskedForComesWithItsChain) {
  const auto asked = [](const std::function<absl::Status(Lifecycle&)>& order) {
    Lives lives({.keep = 0});
    for (int64_t last = 1; last <= 4; ++last) {
      lives.lifecycle.Found("m", Chain(last));
      lives.LoadAll();
    }
    EXPECT_EQ(lives.Model().live, 4);
    EXPECT_TRUE(order(lives.lifecycle).ok());
    for (const int64_t version : lives.Model().In(VersionState::kRetiring)) lives.lifecycle.Freed("m", version);
    return lives.lifecycle.NextLoad(lives.now, {});
  };
  const std::map<std::string, std::function<absl::Status(Lifecycle&)>> orders = {
      {"pin", [](Lifecycle& lifecycle) { return lifecycle.Pin("m", 2); }},
      {"label", [](Lifecycle& lifecycle) { return lifecycle.SetLabel("m", "holdback", 2); }},
      {"stable", [](Lifecycle& lifecycle) { return lifecycle.SetLabel("m", "stable", 2); }},
      {"rollback", [](Lifecycle& lifecycle) { return lifecycle.Rollback("m", 2); }},
  };
  for (const auto& [name, order] : orders) {
    const auto load = asked(order);
    ASSERT_TRUE(load) << name;
    EXPECT_EQ(load->version, 2) << name;
    EXPECT_EQ(load->bytes, 110u) << name;
    EXPECT_TRUE(load->ordered) << name << ": below the live one";
    EXPECT_TRUE(load->chain) << name;
  }
}

TEST(LifecycleTest, ALabelIsNoWordForGoingLive) {
  Lives lives;
  lives.Find({1});
  lives.LoadAll();
  lives.Find({1, 2});
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "canary", 2).ok());
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {})->ordered) << "it is the newest, too";
}

TEST(LifecycleTest, ALabelBringsADeltaIntoMemoryAndNotLive) {
  Lives lives;
  lives.lifecycle.Found("m", Chain(1));
  lives.LoadAll();
  lives.bad[2] = absl::DataLossError("bad");
  lives.lifecycle.Found("m", Chain(3));
  lives.LoadAll();
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "canary", 3).ok());
  EXPECT_EQ(lives.LoadAll(), Versions{3});
  EXPECT_EQ(lives.Model().live, 1);
  EXPECT_EQ(lives.Kept(), Versions{3});
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "other", 1).ok());
  EXPECT_EQ(lives.Model().live, 1) << "nor by the next order";
  ASSERT_TRUE(lives.lifecycle.Pin("m", 3).ok());
  EXPECT_EQ(lives.Model().live, 3);
}

TEST(LifecycleTest, NothingThatIsBuiltOnWhatWasRolledBackGoesLive) {
  Lives lives({.keep = 0});
  for (int64_t last = 1; last <= 3; ++last) {
    lives.lifecycle.Found("m", Chain(last));
    lives.LoadAll();
  }
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 1).ok());
  Lives restarted;
  restarted.lifecycle.Restore("m", lives.Model().policy);
  restarted.lifecycle.Found("m", Chain(5));
  EXPECT_EQ(restarted.LoadAll(), Versions{1}) << "4 and 5 are built on 2 and 3";
}

TEST(LifecycleTest, WhatIsPinnedWhileItFailsIsLoadedAgainAsPinned) {
  Lives lives;
  lives.Find({1});
  lives.LoadAll();
  lives.Find({1, 2});
  ASSERT_FALSE(lives.lifecycle.NextLoad(lives.now, {})->ordered);
  ASSERT_TRUE(lives.lifecycle.Pin("m", 2).ok());
  lives.lifecycle.Failed("m", 2, absl::FailedPreconditionError("drift"), lives.now);
  EXPECT_EQ(lives.Model().last_refused, 0);
  const auto again = lives.lifecycle.NextLoad(lives.now, {});
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->ordered);
  lives.lifecycle.Failed("m", 2, absl::FailedPreconditionError("golden case"), lives.now);
  EXPECT_EQ(lives.Model().last_refused, 2);
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {}));
}

// What a delta shares with its base comes back with neither alone.
TEST(LifecycleTest, KeptDeltasGiveBackOnlyWhatIsTheirs) {
  Lives lives({.keep = 3});
  for (int64_t last = 1; last <= 3; ++last) {
    lives.lifecycle.Found("m", Chain(last));
    const auto order = lives.lifecycle.NextLoad(lives.now, {});
    ASSERT_TRUE(order);
    lives.lifecycle.Loaded("m", order->version, absl::StrCat("digest", last), 90 + 10 * static_cast<uint64_t>(last));
  }
  ASSERT_TRUE(lives.lifecycle.Pin("m", 1).ok());
  ASSERT_EQ(lives.Kept(), (Versions{2, 3}));
  lives.lifecycle.Found("n", {OnDisk(1, 100)});
  EXPECT_FALSE(lives.lifecycle.NextLoad(lives.now, {.limit = 200, .used = 120}));
  EXPECT_EQ(lives.Kept(), (Versions{2, 3})) << "they would have gone for nothing";
  EXPECT_THAT(std::string(lives.lifecycle.models().at("n").last_refusal.message()), HasSubstr("need 100 bytes"));
}

TEST(LifecycleTest, ALabelThatWasMovedServesWhatItDidUntilItsVersionIsInMemory) {
  using Labels = std::map<std::string, int64_t>;
  Lives lives({.keep = 0});
  lives.Find({1, 2, 3});
  ASSERT_TRUE(lives.lifecycle.Pin("m", 1).ok());
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "canary", 2).ok());
  EXPECT_EQ(lives.Model().labels, Labels{}) << "nothing is in memory yet";
  EXPECT_EQ(lives.LoadAll(), (Versions{1, 2}));
  EXPECT_EQ(lives.Model().labels, (Labels{{"canary", 2}}));

  lives.bad[3] = absl::DataLossError("bad");
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "canary", 3).ok());
  EXPECT_EQ(lives.LoadAll(), Versions{3});
  EXPECT_EQ(lives.Model().labels, (Labels{{"canary", 2}})) << "3 was refused";
  EXPECT_EQ(lives.Kept(), Versions{2});
  EXPECT_EQ(lives.lifecycle.Unload("m", 2).code(), absl::StatusCode::kFailedPrecondition);

  lives.bad.clear();
  ASSERT_TRUE(lives.lifecycle.Load("m").ok());
  EXPECT_EQ(lives.Model().last_refused, 3);
  EXPECT_EQ(lives.LoadAll(), Versions{3});
  EXPECT_EQ(lives.Model().last_refused, 0) << "it is in memory now";
  EXPECT_EQ(lives.Model().labels, (Labels{{"canary", 3}}));
  EXPECT_EQ(lives.Kept(), Versions{3});
  ASSERT_TRUE(lives.lifecycle.SetLabel("m", "canary", 0).ok());
  EXPECT_EQ(lives.Model().labels, Labels{});
}

TEST(LifecycleTest, ARollbackGoesToWhatWasLiveBeforeAndNotToWhatWasRolledBack) {
  Lives lives;
  for (int64_t version = 3; version <= 5; ++version) {
    Versions found;
    for (int64_t v = 1; v <= version; ++v) found.push_back(v);
    lives.Find(found);
    lives.LoadAll();
  }
  ASSERT_TRUE(lives.lifecycle.Rollback("m", 0).ok());
  ASSERT_EQ(lives.Model().live, 4);
  lives.Find({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(lives.LoadAll(), Versions{6});
  EXPECT_TRUE(lives.Model().policy.quarantine.empty());

  Lives restarted;
  restarted.lifecycle.Restore("m", lives.Model().policy);
  restarted.Find({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(restarted.LoadAll(), Versions{6});
  ASSERT_TRUE(restarted.lifecycle.Rollback("m", 0).ok());
  EXPECT_EQ(restarted.LoadAll(), Versions{4}) << "5 was rolled back";
  EXPECT_EQ(restarted.Model().live, 4);
}

TEST(LifecycleTest, WhatIsMissingIsWhatRequestsWouldNotFind) {
  Lives lives;
  lives.lifecycle.Restore("m", {.labels = {{"canary", 1}}, .last_good = 2, .last_good_digest = "digest2"});
  lives.Find({1, 2, 3});
  std::vector<int64_t> loads;
  while (const auto order = lives.lifecycle.NextLoad(lives.now, {}, Lifecycle::Wish::kMissing)) {
    loads.push_back(order->version);
    lives.lifecycle.Loaded("m", order->version, absl::StrCat("digest", order->version), order->bytes);
  }
  EXPECT_EQ(loads, (std::vector<int64_t>{2, 1})) << "not 3, which is newer than what serves";
  EXPECT_EQ(lives.LoadAll(), Versions{3});
}

}  // namespace
}  // namespace din
