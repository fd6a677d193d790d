// Versions that are intact, byte for byte what somebody published, and must not go live: poisoned weights, a vocabulary
// of another day, tensors in each other's place. And files that are spoilt under a live version, which does not mind.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "model_loader/load_model.h"
#include "model_loader/model_holder.h"
#include "model_loader/snapshot_watcher.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

constexpr int64_t kItems = 1000;

class PoisonTest : public ::testing::Test {
 protected:
  // A model with a vocabulary: the n-th key has row n, and the keys are in no order.
  PoisonTest() : model_(testing::PaperModel({.item_rows = kItems})) {
    keys_ = Keys(7);
    model_.AddIntegers("vocab.item.keys", keys_);
    for (v1::IdMap& map : *model_.spec.mutable_id_maps()) {
      if (map.name() == "item") map.mutable_vocabulary();
    }
    testing::Rng rng(1);
    for (const size_t behaviours : {0, 5, 30}) {
      golden_.push_back(testing::RandomRequest(rng, model_.spec, model_.tensors, {20, behaviours, 3}));
    }
    const auto model =
        testing::OrDie(DinModel::Create(model_.spec, model_.tensors, BestInstructionSet(), Precision::kFp32Split));
    for (size_t g = 0; g < golden_.size(); ++g) {
      golden_[g].set_id("case " + std::to_string(g));
      golden_[g].set_tolerance(1e-5);
      for (const float score : testing::ScoresOf(*model, golden_[g])) golden_[g].add_scores(score);
    }
    Publish(1);
  }

  static std::vector<int64_t> Keys(int64_t factor) {
    std::vector<int64_t> keys(kItems);
    for (int64_t i = 0; i < kItems; ++i)
      keys[i] = 100 + i * factor % kItems;  // factor and kItems have no common divisor
    return keys;
  }

  void Publish(int64_t version) {
    const absl::Status written =
        WriteSnapshot(root_ / "ads", version, {model_.spec, model_.tensors, golden_, false, ""});
    ASSERT_TRUE(written.ok()) << written;
  }

  // Version 2 is published, refused for this reason, and version 1 goes on scoring what it did.
  void ExpectRefused(StatusCode code, const std::vector<std::string>& reason) {
    ModelRegistry registry;
    LifecycleEvent last;
    SnapshotWatcher watcher(
        {.root = root_.path(),
         .registry = &registry,
         .load =
             [this](const LoadRequest& request) { return LoadModel(root_.path(), request.model, request.version, {}); },
         .on_event = [&](const LifecycleEvent& event) { last = event; }});
    watcher.Step();
    const ModelHandle before = registry.Find("ads");
    ASSERT_NE(before, nullptr) << last.status;
    const std::vector<float> scores = testing::ScoresOf(*before->model, golden_[2]);
    ASSERT_NO_FATAL_FAILURE(Publish(2));
    watcher.Step();
    EXPECT_EQ(last.kind, LifecycleEvent::Kind::kRefused);
    EXPECT_EQ(last.version, 2);
    ExpectError(last.status, code, reason);
    const ModelHandle after = registry.Find("ads");
    ASSERT_EQ(after, before);
    EXPECT_EQ(testing::ScoresOf(*after->model, golden_[2]), scores);
    for (const float score : scores) EXPECT_TRUE(std::isfinite(score));
  }

  TempDirectory root_;
  testing::RawModel model_;
  std::vector<int64_t> keys_;
  std::vector<v1::GoldenCase> golden_;
};

TEST_F(PoisonTest, ANaNInARowThatNobodyAsksForIsRefused) {
  model_.Floats("table.item")[64 * 500 + 3] = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(StatusCode::kInvalidArgument, {"/ads/2/weights.safetensors", "table.item", "[500, 3]", "nan"});
}

TEST_F(PoisonTest, AnInfinityInALayerIsRefused) {
  model_.Floats("tower.l0.w")[1] = -std::numeric_limits<float>::infinity();
  ExpectRefused(StatusCode::kInvalidArgument, {"/ads/2/weights.safetensors", "tower.l0.w", "[0, 1]", "inf"});
}

TEST_F(PoisonTest, WeightsThatAreFiniteButOverflowAreRefusedByTheGoldenScores) {
  for (float& weight : model_.Floats("att0.l0.w")) weight *= 1e38f;
  ExpectRefused(StatusCode::kFailedPrecondition, {"/ads/2", "golden case"});
}

TEST_F(PoisonTest, AWrongShapeIsRefusedWithBoth) {
  model_.tensors.at("tower.l0.w").shape = {384, 80};
  ExpectRefused(StatusCode::kInvalidArgument, {"/ads/2", "tower.l0.w", "[384, 80]", "[80, 384]"});
}

TEST_F(PoisonTest, TensorsInEachOthersPlaceAreRefusedByTheGoldenScores) {
  // Same shape, both finite.
  std::swap(model_.tensors.at("tower.l0.b"), model_.tensors.at("tower.l0.act.mean"));
  ExpectRefused(StatusCode::kFailedPrecondition, {"/ads/2", "golden case"});
}

TEST_F(PoisonTest, AVocabularyOfAnotherDayIsRefusedByTheGoldenScores) {
  // The same ids on other rows.
  const std::vector<int64_t> stale = Keys(13);
  model_.tensors.erase("vocab.item.keys");
  model_.AddIntegers("vocab.item.keys", stale);
  ExpectRefused(StatusCode::kFailedPrecondition, {"/ads/2", "golden case"});
}

TEST_F(PoisonTest, ATableOfAnotherDayIsRefusedByTheGoldenScores) {
  const std::span<float> table = model_.Floats("table.item");
  std::rotate(table.begin(), table.begin() + 64, table.end());  // as if one item had gone
  ExpectRefused(StatusCode::kFailedPrecondition, {"/ads/2", "golden case"});
}

TEST_F(PoisonTest, FilesThatAreSpoiltUnderALiveVersionChangeNoBitOfItsScores) {
  const auto live = LoadModel(root_.path(), "ads", 1, {});
  ASSERT_TRUE(live.ok()) << live.status();
  std::vector<std::vector<float>> before;
  for (const v1::GoldenCase& request : golden_) before.push_back(testing::ScoresOf(*(*live)->model, request));
  const std::string directory = root_ / "ads/1";
  const auto expect_unchanged = [&](const std::string& after) {
    for (size_t g = 0; g < golden_.size(); ++g) {
      ASSERT_EQ(testing::ScoresOf(*(*live)->model, golden_[g]), before[g]) << after << ", " << golden_[g].id();
    }
  };
  for (const std::string& name : Entries(directory)) {
    const std::string path = directory + "/" + name;
    const auto size = std::filesystem::file_size(path);
    WriteFile(path, std::string(size, '\xFF'));
    expect_unchanged(name + " overwritten");
    ASSERT_EQ(truncate(path.c_str(), 1), 0);
    expect_unchanged(name + " truncated");
    std::filesystem::remove(path);
    expect_unchanged(name + " deleted");
  }
  std::filesystem::remove(directory);
  expect_unchanged("everything deleted");
}

}  // namespace
}  // namespace din
