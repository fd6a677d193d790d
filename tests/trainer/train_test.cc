#include "trainer/train.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/load_model.h"
#include "tests/trainer/shop.h"
#include "trainer/export.h"

namespace din {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 3;

const Dataset& Data() {
  static const Dataset data = LoyalShop(60, 12, 90, kSeed);
  return data;
}
const Split& Samples() {
  static const Split split = MakeSamples(Data(), {.held_out_users = 0.2, .seed = kSeed});
  return split;
}
DinShape SmallShape() { return {.dim = 4, .attention = {8}, .tower = {12, 6}}; }
TrainOptions SmallTraining() {
  return {.epochs = 8, .patience = 8, .batch = 32, .learning_rate = 1e-2, .seed = kSeed, .threads = 1};
}

TEST(TrainTest, LearnsWhatTheHistorySays) {
  for (Activation activation : {Activation::kDice, Activation::kPRelu}) {
    DinShape shape = SmallShape();
    shape.activation = activation;
    DinTrainer trainer(Data(), shape, SmallTraining());
    const double before = Evaluate(Samples().test, trainer.Score(Samples().test)).user_auc;
    Progress silent(nullptr);
    const auto report = trainer.Fit(Samples(), silent);
    ASSERT_TRUE(report.ok()) << report.status();
    const double after = Evaluate(Samples().test, trainer.Score(Samples().test)).user_auc;
    EXPECT_LT(before, 0.7);
    EXPECT_GT(after, 0.85);
  }
}

TEST(TrainTest, SameSeedOnOneThreadGivesTheSameBits) {
  const auto weights = [](uint64_t seed) {
    TrainOptions options = SmallTraining();
    options.epochs = 2;
    options.seed = seed;
    DinTrainer trainer(Data(), SmallShape(), options);
    Progress silent(nullptr);
    EXPECT_TRUE(trainer.Fit(Samples(), silent).ok());
    return trainer.Weights();
  };
  const auto first = weights(1), second = weights(1), other = weights(2);
  for (const auto& [name, weight] : first) {
    EXPECT_EQ(weight.values, second.at(name).values) << name;
    EXPECT_NE(weight.values, other.at(name).values) << name;
  }
}

TEST(TrainTest, KeepsTheBestEpochByHeldOutUsers) {
  TrainOptions options = SmallTraining();
  options.learning_rate = 0.1;  // so high that the last epoch is not the best
  options.epochs = 12;
  options.patience = 12;
  DinTrainer trainer(Data(), SmallShape(), options);
  Progress silent(nullptr);
  const auto report = trainer.Fit(Samples(), silent);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LT(report->best_epoch, report->epochs);
  EXPECT_EQ(Evaluate(Samples().held_out, trainer.Score(Samples().held_out)).user_auc, report->held_out.user_auc);
}

TEST(TrainTest, PatienceEndsTraining) {
  TrainOptions options = SmallTraining();
  options.learning_rate = 0.1;
  options.epochs = 100;
  options.patience = 2;
  DinTrainer trainer(Data(), SmallShape(), options);
  Progress silent(nullptr);
  const auto report = trainer.Fit(Samples(), silent);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->epochs, report->best_epoch + 2);
}

TEST(TrainTest, RowsThatNoBatchTouchesKeepTheirWeights) {
  DinTrainer trainer(Data(), SmallShape(), SmallTraining());
  Split few;
  few.train = {Samples().train.begin(), Samples().train.begin() + 6};
  const std::vector<uint32_t> counts = CountOccurrences(Data(), few.train, SmallShape().max_history).items;
  const Weight before = trainer.Weights().at("table.item");
  Progress silent(nullptr);
  ASSERT_TRUE(trainer.Fit(few, silent).ok());
  const Weight after = trainer.Weights().at("table.item");
  size_t untouched = 0;
  for (size_t row = 0; row < counts.size(); ++row) {
    untouched += counts[row] == 0;
    for (size_t d = 0; d < 4; ++d) {
      EXPECT_EQ(before.values[row * 4 + d] == after.values[row * 4 + d], counts[row] == 0) << row;
    }
  }
  EXPECT_GT(untouched, 0u);
}

TEST(TrainTest, LossThatIsNoNumberStopsAndNamesBatchAndRate) {
  TrainOptions options = SmallTraining();
  options.learning_rate = 1e30;
  DinTrainer trainer(Data(), SmallShape(), options);
  Progress silent(nullptr);
  const auto report = trainer.Fit(Samples(), silent);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("at epoch 1, batch "));
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("learning rate 1e+30"));
}

TEST(TrainTest, BatchesOfOneSampleTrain) {
  TrainOptions options = SmallTraining();
  options.batch = 1;
  options.epochs = 1;
  DinTrainer trainer(Data(), SmallShape(), options);
  Progress silent(nullptr);
  Split few;
  few.train = {Samples().train.begin(), Samples().train.begin() + 30};
  ASSERT_TRUE(trainer.Fit(few, silent).ok());
  for (float p : trainer.Score(Samples().test)) EXPECT_TRUE(std::isfinite(p));
}

TEST(TrainTest, NothingToTrainOnIsRefused) {
  DinTrainer trainer(Data(), SmallShape(), SmallTraining());
  Progress silent(nullptr);
  EXPECT_EQ(trainer.Fit({}, silent).status().code(), absl::StatusCode::kInvalidArgument);
}

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() : root_(::testing::TempDir() + "export_test_" + std::to_string(::getpid())) {}
  ~ExportTest() override { std::filesystem::remove_all(root_); }
  const std::string root_;
};

// Trained, exported, loaded (which holds the model to its golden requests), then scored over the whole test set.
TEST_F(ExportTest, ServedSnapshotScoresAsLibtorchDoes) {
  for (Activation activation : {Activation::kDice, Activation::kPRelu}) {
    DinShape shape = SmallShape();
    shape.activation = activation;
    shape.product = activation == Activation::kDice;
    DinTrainer trainer(Data(), shape, SmallTraining());
    Progress silent(nullptr);
    ASSERT_TRUE(trainer.Fit(Samples(), silent).ok());
    const int64_t version = 1 + static_cast<int64_t>(activation);
    const absl::Status exported = Export(Data(), shape, trainer.Weights(), Samples().test,
                                         [&](std::span<const Sample> s) { return trainer.Score(s); },
                                         {.model_directory = root_ + "/shop", .version = version, .golden_cases = 5});
    ASSERT_TRUE(exported.ok()) << exported;

    const auto loaded = LoadModel(root_, "shop", version, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ((*loaded)->snapshot->golden().size(), 5u);
    const DinModel& model = *(*loaded)->model;
    const std::vector<float> expected = trainer.Score(Samples().test);
    Workspace workspace;
    ScoringInput input;
    for (size_t i = 0; i < expected.size(); ++i) {
      const v1::GoldenCase request = MakeCase(Data(), std::span(Samples().test).subspan(i, 1), shape.max_history);
      const RequestColumns columns{request.features(), request.sequences(), request.candidates()};
      ASSERT_TRUE(model.decoder().Decode(columns, {}, input).ok());
      float score = 0;
      model.Score(input, workspace, {&score, 1});
      EXPECT_NEAR(score, expected[i], 1e-5);
      EXPECT_THAT(std::string(model.decoder().CandidateLabel(columns, 0)), HasSubstr("item "));
      EXPECT_THAT(std::string(model.decoder().BehaviourLabel(columns, 0, 0)), HasSubstr("item "));
    }
  }
}

TEST_F(ExportTest, VersionThatIsThereIsNotOverwritten) {
  DinTrainer trainer(Data(), SmallShape(), SmallTraining());
  const auto publish = [&] {
    return Export(Data(), SmallShape(), trainer.Weights(), Samples().test,
                  [&](std::span<const Sample> s) { return trainer.Score(s); }, {.model_directory = root_ + "/shop"});
  };
  EXPECT_TRUE(publish().ok());
  EXPECT_EQ(publish().code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace din
