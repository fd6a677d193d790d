#include "server/model_metadata.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/load_control.h"
#include "tests/model_loader/snapshot_fixture.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The shop as a snapshot on disk: metadata speaks of digests and golden cases, which only a snapshot has.
class ModelMetadataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SnapshotContents contents;
    contents.spec = ShopSpec();
    contents.tensors = weights_.map();
    contents.unverified = true;
    ASSERT_TRUE(WriteSnapshot(root_ / "shop", 4, contents).ok());
    absl::StatusOr<ModelHandle> loaded = LoadModel(root_.path(), "shop", 4, {.allow_unverified = true});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    shop_ = *loaded;
  }
  absl::Status Answer(const std::string& model, int64_t version = 0) {
    v1::GetModelMetadataRequest request;
    request.set_model(model);
    request.set_version(version);
    response_.Clear();
    return AnswerGetModelMetadata(models_, request, response_);
  }

  TempDirectory root_;
  TensorStore weights_ = ShopWeights();
  ModelHandle shop_;
  ModelRegistry models_;
  v1::GetModelMetadataResponse response_;
};

TEST_F(ModelMetadataTest, SaysWhatARequestNeedsAndWhereTheVersionComesFrom) {
  models_.GetOrAdd("shop").Swap(shop_);
  ASSERT_TRUE(Answer("shop").ok());
  EXPECT_EQ(response_.version(), 4);
  EXPECT_EQ(response_.digest().size(), 64u);
  EXPECT_EQ(response_.spec().SerializeAsString(), shop_->model->spec().SerializeAsString());
  EXPECT_GT(response_.memory_bytes(), 0u);
  ASSERT_EQ(response_.features_size(), ShopSpec().features_size());
  for (const auto& feature : response_.features()) {
    if (feature.name() == "item") {
      EXPECT_TRUE(feature.required());
      EXPECT_EQ(feature.scope(), v1::CANDIDATE);
      EXPECT_EQ(feature.id_type(), v1::INT64);
      EXPECT_EQ(feature.rows(), 8);  // seven words from row 1 on
    } else if (feature.name() == "cate") {
      EXPECT_FALSE(feature.required());  // a side table knows it
    } else if (feature.name() == "age") {
      EXPECT_EQ(feature.kind(), v1::DENSE);
      EXPECT_EQ(feature.width(), 2u);
      EXPECT_EQ(feature.id_type(), v1::ID_TYPE_UNSPECIFIED);
    } else if (feature.name() == "q_word") {
      EXPECT_EQ(feature.sequence(), "queries");
      EXPECT_EQ(feature.id_type(), v1::STRING);
    }
  }
}

TEST_F(ModelMetadataTest, WithoutANameTheModelsAreListed) {
  models_.GetOrAdd("shop").Swap(shop_);
  ASSERT_TRUE(Answer("").ok());
  EXPECT_EQ(response_.model(), "shop");
  models_.GetOrAdd("zoo").Swap(shop_);
  models_.GetOrAdd("broken");
  ASSERT_TRUE(Answer("").ok());
  EXPECT_EQ(response_.model(), "");
  EXPECT_THAT(response_.models(), ElementsAre("broken", "shop", "zoo"));
}

TEST_F(ModelMetadataTest, ModelThatIsNotLiveSaysWhy) {
  ModelStatus refused;
  refused.name = "shop";
  refused.refused_version = 5;
  refused.refused = absl::DataLossError("weights.safetensors: chunk 0 differs");
  models_.GetOrAdd("shop").SetStatus(refused);
  const absl::Status status = Answer("shop");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("version 5 was refused: weights.safetensors: chunk 0 differs"));
  models_.GetOrAdd("new");
  EXPECT_THAT(std::string(Answer("new").message()), HasSubstr("\"new\" is not live: no complete version was found"));
  ModelStatus unsealed;
  unsealed.name = "new";
  unsealed.incomplete = {3, 12};
  models_.GetOrAdd("new").SetStatus(unsealed);
  EXPECT_THAT(std::string(Answer("new").message()), HasSubstr("was found; without a manifest.json: 3, 12"));
  ModelStatus pinned;
  pinned.name = "new";
  pinned.policy.pinned = 7;
  models_.GetOrAdd("new").SetStatus(pinned);
  EXPECT_THAT(std::string(Answer("new").message()), HasSubstr("version 7, which is pinned, is not loaded"));
}

TEST_F(ModelMetadataTest, VersionRefusedBehindALiveOneIsInItsStatus) {
  ModelHolder& shop = models_.GetOrAdd("shop");
  shop.Swap(shop_);
  ModelStatus behind = shop.Status();
  behind.refused_version = 5;
  behind.refused = absl::DataLossError("weights.safetensors: chunk 0 differs");
  behind.loading_version = 6;
  const auto progress = std::make_shared<LoadControl>();
  progress->AddTotal(100);
  ASSERT_TRUE(progress->Advance(40).ok());
  progress->MarkStarved();
  behind.progress = progress;
  shop.SetStatus(behind);
  ASSERT_TRUE(Answer("shop").ok());
  ASSERT_EQ(response_.statuses_size(), 1);
  const v1::ModelStatus& status = response_.statuses(0);
  EXPECT_EQ(status.model(), "shop");
  EXPECT_EQ(status.state(), "live");
  EXPECT_EQ(status.live_version(), 4);
  EXPECT_GT(status.live_since_ms(), 0);
  EXPECT_EQ(status.loading_version(), 6);
  EXPECT_EQ(status.loading_bytes(), 40u);
  EXPECT_EQ(status.loading_total_bytes(), 100u);
  EXPECT_TRUE(status.loading_starved());
  EXPECT_EQ(status.refused_version(), 5);
  EXPECT_EQ(status.refused_reason(), "weights.safetensors: chunk 0 differs");
}

TEST_F(ModelMetadataTest, UnknownModelAndVersionAreNotFound) {
  models_.GetOrAdd("shop").Swap(shop_);
  EXPECT_EQ(Answer("ship").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Answer("shop", 3).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace din
