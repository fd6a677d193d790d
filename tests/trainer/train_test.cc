#include "trainer/train.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/load_model.h"
#include "tests/trainer/shop.h"
#include "trainer/export.h"
#include "trainer/samples.h"

namespace din {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 3;

const Dataset& Data() {
  static const Dataset data = LoyalShop(60, 12, 90, kSeed);
  return data;
}
const Split& Samples() {
  static const Split split = MakeSamples(Data(), {.held_out_users = 0.2, .seed = kSeed}).value();
  return split;
}
ModelShape SmallShape() { return {.dim = 4, .attention = {8}, .tower = {12, 6}}; }
TrainOptions SmallTraining() {
  return {.epochs = 8, .patience = 8, .batch = 32, .learning_rate = 1e-2, .seed = kSeed, .threads = 1};
}
constexpr Model kModels[] = {Model::kLr, Model::kBase, Model::kWideDeep, Model::kPnn, Model::kDeepFm, Model::kDin};

double TestAuc(Trainer& trainer) { return Evaluate(Samples().test, trainer.Score(Samples().test)).user_auc; }

absl::StatusOr<FitReport> Fit(Trainer& trainer) {
  Progress silent(nullptr);
  return trainer.Fit(silent);
}

TEST(TrainTest, LearnsWhatTheHistorySays) {
  for (const Activation activation : {Activation::kDice, Activation::kPRelu}) {
    ModelShape shape = SmallShape();
    shape.activation = activation;
    Trainer trainer(Data(), Samples(), shape, SmallTraining());
    const double before = TestAuc(trainer);
    const auto report = Fit(trainer);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_LT(before, 0.7);
    EXPECT_GT(TestAuc(trainer), 0.85);
  }
}

// Everything but logistic regression can see that a user keeps to a category.
TEST(TrainTest, EveryModelLearns) {
  for (const Model model : kModels) {
    ModelShape shape = SmallShape();
    shape.model = model;
    TrainOptions options = SmallTraining();
    options.epochs = options.patience = 15;
    Trainer trainer(Data(), Samples(), shape, options);
    const auto report = Fit(trainer);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_LT(report->epochs.back().loss, report->epochs.front().loss) << static_cast<int>(model);
    if (model != Model::kLr) {
      EXPECT_GT(TestAuc(trainer), 0.75) << static_cast<int>(model);
    }
  }
}

TEST(TrainTest, EveryRegularisationAndSgdTrain) {
  for (const char* what : {"l2", "dropout", "filter", "sgd"}) {
    TrainOptions options = SmallTraining();
    options.mba = 0;
    const std::string_view name = what;
    if (name == "l2") options.l2 = 1e-4;
    if (name == "dropout") options.dropout = 0.2;
    if (name == "filter") options.most_frequent = 60;
    if (name == "sgd") {
      options.optimiser = OptimiserKind::kSgd;
      options.learning_rate = 0.3;
      options.decay = 0.5;
      options.decay_every = 10;
      options.epochs = options.patience = 40;
    }
    Trainer trainer(Data(), Samples(), SmallShape(), options);
    const auto report = Fit(trainer);
    ASSERT_TRUE(report.ok()) << what << ": " << report.status();
    EXPECT_GT(TestAuc(trainer), 0.75) << what;
  }
}

TEST(TrainTest, SameSeedOnOneThreadGivesTheSameBits) {
  const auto weights = [](uint64_t seed) {
    TrainOptions options = SmallTraining();
    options.epochs = 2;
    options.dropout = 0.1;
    options.seed = seed;
    Trainer trainer(Data(), Samples(), SmallShape(), options);
    EXPECT_TRUE(Fit(trainer).ok());
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
  Trainer trainer(Data(), Samples(), SmallShape(), options);
  const auto report = Fit(trainer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LT(report->best_epoch, static_cast<int>(report->epochs.size()));
  const double auc = Evaluate(Samples().held_out, trainer.Score(Samples().held_out)).user_auc;
  EXPECT_EQ(auc, report->held_out.user_auc);
  for (const EpochReport& e : report->epochs) EXPECT_LE(e.held_out_auc, static_cast<float>(auc));
}

TEST(TrainTest, PatienceEndsTraining) {
  TrainOptions options = SmallTraining();
  options.learning_rate = 0.1;
  options.epochs = 100;
  options.patience = 2;
  Trainer trainer(Data(), Samples(), SmallShape(), options);
  const auto report = Fit(trainer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(static_cast<int>(report->epochs.size()), report->best_epoch + 2);
}

TEST(TrainTest, RowsThatNoBatchTouchesKeepTheirWeights) {
  Split few;
  few.train = {Samples().train.begin(), Samples().train.begin() + 6};
  Trainer trainer(Data(), few, SmallShape(), SmallTraining());
  const std::vector<uint32_t> counts = CountOccurrences(Data(), few.train, SmallShape().max_history)[0];
  const Weight before = trainer.Weights().at("table.item");
  ASSERT_TRUE(Fit(trainer).ok());
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
  Trainer trainer(Data(), Samples(), SmallShape(), options);
  const auto report = Fit(trainer);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("at epoch 1, batch "));
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("learning rate 1e+30"));
}

TEST(TrainTest, LastStepThatGoesAstrayStopsAndNamesTheRate) {
  TrainOptions options = SmallTraining();
  options.learning_rate = 1e30;
  options.batch = 1 << 20;  // one step is an epoch, and its loss is of before
  options.epochs = 1;
  Trainer trainer(Data(), Samples(), SmallShape(), options);
  const auto report = Fit(trainer);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("after epoch 1, learning rate 1e+30"));
}

TEST(TrainTest, BatchesOfOneSampleTrain) {
  TrainOptions options = SmallTraining();
  options.batch = 1;
  options.epochs = 1;
  Split few;
  few.train = {Samples().train.begin(), Samples().train.begin() + 30};
  Trainer trainer(Data(), few, SmallShape(), options);
  ASSERT_TRUE(Fit(trainer).ok());
  for (float p : trainer.Score(Samples().test)) EXPECT_TRUE(std::isfinite(p));
}

TEST(TrainTest, NothingToTrainOnIsRefused) {
  const Split none;
  Trainer trainer(Data(), none, SmallShape(), SmallTraining());
  EXPECT_EQ(Fit(trainer).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TrainTest, VocabularyThatDoesNotFitIsToldInBytes) {
  const ModelShape shape = SmallShape();
  const uint64_t rows = Data().FieldRows(0) + Data().FieldRows(1);
  // Of each row: the weights now, of the best epoch and in the snapshot, two moments, a step count; three words.
  const uint64_t need = rows * (5 * shape.dim * 4 + 4 + 3 * 4);
  EXPECT_TRUE(CheckMemory(Data(), shape, SmallTraining(), false).ok());
  EXPECT_TRUE(CheckMemory(Data(), shape, SmallTraining(), false, {.limit = need + 9, .used = 9}).ok());
  const absl::Status status = CheckMemory(Data(), shape, SmallTraining(), false, {.limit = need + 9, .used = 10});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrFormat("%d rows need %d bytes to train, %d are free", rows, need, need - 1)));
  EXPECT_FALSE(CheckMemory(Data(), shape, SmallTraining(), true, {.limit = need, .used = 0}).ok());
}

// --- Checkpoints ----------------------------------------------------------------------------------------------------

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() : path_(::testing::TempDir() + "checkpoint_test_" + std::to_string(::getpid())) {}
  ~CheckpointTest() override { std::filesystem::remove(path_); }
  const std::string path_;
  Progress silent_{nullptr};
};

TEST_F(CheckpointTest, TrainingThatGoesOnEndsInTheSameBits) {
  for (const OptimiserKind optimiser : {OptimiserKind::kAdam, OptimiserKind::kSgd}) {
    TrainOptions options = SmallTraining();
    options.optimiser = optimiser;
    options.dropout = 0.1;
    options.epochs = 5;
    ModelShape shape = SmallShape();
    shape.model = Model::kDeepFm;
    Trainer whole(Data(), Samples(), shape, options);
    ASSERT_TRUE(whole.Fit(silent_).ok());

    options.epochs = 2;
    Trainer first(Data(), Samples(), shape, options);
    ASSERT_TRUE(first.Fit(silent_, path_, "[]").ok());
    options.epochs = 5;
    Trainer second(Data(), Samples(), shape, options);
    const auto checkpoint = ReadCheckpoint(path_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ(checkpoint->options, "[]");
    ASSERT_TRUE(second.Restore(*checkpoint).ok());
    const auto report = second.Fit(silent_);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->epochs.size(), 5u);
    for (const auto& [name, weight] : whole.Weights())
      EXPECT_EQ(weight.values, second.Weights().at(name).values) << name;
  }
}

TEST_F(CheckpointTest, OfOtherDataOrOptionsIsRefusedByTheNameOfTheArray) {
  Trainer trainer(Data(), Samples(), SmallShape(), SmallTraining());
  ASSERT_TRUE(trainer.Fit(silent_, path_, "[]").ok());
  ModelShape other = SmallShape();
  other.dim = 5;
  Trainer wider(Data(), Samples(), other, SmallTraining());
  const absl::Status status = wider.Restore(ReadCheckpoint(path_).value());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("now.table.item"));
}

TEST_F(CheckpointTest, TruncatedOrMissingFileIsNamed) {
  EXPECT_EQ(ReadCheckpoint(path_).status().code(), absl::StatusCode::kNotFound);
  Trainer trainer(Data(), Samples(), SmallShape(), SmallTraining());
  ASSERT_TRUE(trainer.Fit(silent_, path_, "[]").ok());
  for (const uintmax_t size : {uintmax_t{0}, uintmax_t{100}, std::filesystem::file_size(path_) - 1}) {
    std::filesystem::resize_file(path_, size);
    const auto status = ReadCheckpoint(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  }
}

TEST_F(CheckpointTest, StaysWhenTheLossStopsBeingANumber) {
  TrainOptions options = SmallTraining();
  options.epochs = 2;
  Trainer good(Data(), Samples(), SmallShape(), options);
  ASSERT_TRUE(good.Fit(silent_, path_, "[]").ok());
  options.epochs = 4;
  options.learning_rate = 1e30;
  Trainer bad(Data(), Samples(), SmallShape(), options);
  ASSERT_TRUE(bad.Restore(ReadCheckpoint(path_).value()).ok());
  EXPECT_EQ(bad.Fit(silent_, path_, "[]").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(ReadCheckpoint(path_).ok());
}

// --- Export ---------------------------------------------------------------------------------------------------------

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() : root_(::testing::TempDir() + "export_test_" + std::to_string(::getpid())) {}
  ~ExportTest() override { std::filesystem::remove_all(root_); }

  absl::Status Publish(const Dataset& data, const Split& split, const ModelShape& shape, Trainer& trainer,
                       ExportOptions options) {
    options.model_directory = root_ + "/shop";
    return Export({.data = data,
                   .shape = shape,
                   .kept = trainer.kept(),
                   .weights = trainer.Weights(),
                   .score = [&](std::span<const Sample> s) { return trainer.Score(s); }},
                  split.test, options);
  }

  // Trained, exported, loaded (which holds the model to its golden requests), then scored over the whole test set.
  void ExpectServedAsTrained(const Dataset& data, const Split& split, ModelShape shape, const TrainOptions& options,
                             ExportOptions destination) {
    shape = shape.Over(data);
    Trainer trainer(data, split, shape, options);
    ASSERT_TRUE(Fit(trainer).ok());
    trainer.RoundEmbeddings(destination.embeddings);
    const absl::Status exported = Publish(data, split, shape, trainer, destination);
    ASSERT_TRUE(exported.ok()) << exported;
    const auto loaded = LoadModel(root_, "shop", destination.version, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const DinModel& model = *(*loaded)->model;
    const std::vector<float> expected = trainer.Score(split.test);
    std::vector<float> served(expected.size());
    Workspace workspace;
    ScoringInput input;
    for (size_t i = 0; i < expected.size(); ++i) {
      const v1::GoldenCase request = MakeCase(data, std::span(split.test).subspan(i, 1), shape.max_history);
      const RequestColumns columns{request.features(), request.sequences(), request.candidates()};
      const absl::Status decoded = model.decoder().Decode(columns, {}, input);
      ASSERT_TRUE(decoded.ok()) << decoded;
      model.Score(input, workspace, {&served[i], 1});
      EXPECT_NEAR(served[i], expected[i], 1e-5);
      EXPECT_THAT(std::string(model.decoder().CandidateLabel(columns, 0)), HasSubstr("item "));
    }
    const Metrics a = Evaluate(split.test, expected), b = Evaluate(split.test, served);
    EXPECT_NEAR(a.auc, b.auc, 5e-5);
    EXPECT_NEAR(a.user_auc, b.user_auc, 5e-5);
  }

  const std::string root_;
};

TEST_F(ExportTest, EveryModelIsServedAsLibtorchScoresIt) {
  int64_t version = 0;
  for (const Model model : kModels) {
    for (const Activation activation : {Activation::kDice, Activation::kPRelu}) {
      SCOPED_TRACE(++version);
      const bool dice = activation == Activation::kDice;
      ModelShape shape = SmallShape();
      shape.model = model;
      shape.activation = activation;
      shape.product = dice;
      shape.pooling = dice ? Pooling::kMean : Pooling::kSum;
      shape.attention_input = dice ? AttentionInput::kWithDifference : AttentionInput::kProduct;
      TrainOptions options = SmallTraining();
      options.epochs = 2;
      ExpectServedAsTrained(Data(), Samples(), shape, options, {.version = version, .golden_cases = 5});
    }
  }
}

TEST_F(ExportTest, SixteenBitEmbeddingsAndRareIdsAreServedAsTheyWereTrained) {
  int64_t version = 0;
  for (const DataType type : {DataType::kF16, DataType::kBF16}) {
    TrainOptions options = SmallTraining();
    options.epochs = 2;
    options.most_frequent = 50;
    ExpectServedAsTrained(Data(), Samples(), SmallShape(), options,
                          {.version = ++version, .golden_cases = 0, .embeddings = type});
  }
}

// Names for ids, two behaviour lists, what is known of the user and of the moment, two categories.
TEST_F(ExportTest, StringIdsSeveralListsAndSideFeaturesAreServedAsTrained) {
  DatasetBuilder builder({.categories = {"category", "category_brand"}, .user_fields = {"city"}});
  for (int i = 0; i < 40; ++i) {
    const std::string category = "c" + std::to_string(i % 3), brand = "b" + std::to_string(i % 5);
    const std::string_view both[] = {category, brand};
    builder.AddItem("sku-" + std::to_string(i), "item " + std::to_string(i), both);
  }
  for (int user = 0; user < 30; ++user) {
    const std::string name = "user-" + std::to_string(user), city = "city " + std::to_string(user % 4);
    const std::string_view value[] = {city};
    builder.AddUser(name, value);
    for (int k = 0; k < 8; ++k) {
      builder.AddEvent({.user = name,
                        .item = "sku-" + std::to_string((user * 7 + k * 3) % 40),
                        .time = user * 1000 + k * 5000,
                        .action = k % 2 == 0 ? "view" : "buy"});
    }
  }
  Dataset data = std::move(builder).Build().value();
  ASSERT_TRUE(SplitByAction(data).ok());
  AddTimeContext(data);
  const Split split = MakeSamples(data, {.held_out_users = 0.2}).value();
  int64_t version = 0;
  for (const Model model : kModels) {
    SCOPED_TRACE(static_cast<int>(model));
    ModelShape shape = SmallShape();
    shape.model = model;
    TrainOptions options = SmallTraining();
    options.epochs = 2;
    ExpectServedAsTrained(data, split, shape, options, {.version = ++version, .golden_cases = 4});
  }
}

TEST_F(ExportTest, VersionThatIsThereIsNotOverwritten) {
  Trainer trainer(Data(), Samples(), SmallShape(), SmallTraining());
  const ModelShape shape = SmallShape();
  EXPECT_TRUE(Publish(Data(), Samples(), shape, trainer, {}).ok());
  EXPECT_EQ(Publish(Data(), Samples(), shape, trainer, {}).code(), absl::StatusCode::kAlreadyExists);
}

TEST(RoundedTest, IsTheNearestOfSixteenBitsTiesToEven) {
  struct Case {
    float value, f16, bf16;
  };
  const Case cases[] = {{0, 0, 0},
                        {1, 1, 1},
                        {-1.0009765625f, -1.0009765625f, -1},
                        {1.00048828125f, 1, 1},                          // half way: to even
                        {1.00146484375f, 1.001953125f, 1},               // half way: to even, upwards
                        {1.00390625f, 1.00390625f, 1},                   // half way of bf16
                        {1.01171875f, 1.01171875f, 1.015625f},           // half way of bf16, upwards
                        {6e-8f, 5.9604644775390625e-8f, 6.0070306e-8f},  // a subnormal of f16
                        {-0.1f, -0.0999755859375f, -0.10009765625f}};
  for (const Case& c : cases) {
    EXPECT_FLOAT_EQ(Rounded(DataType::kF16, c.value), c.f16) << c.value;
    EXPECT_FLOAT_EQ(Rounded(DataType::kBF16, c.value), c.bf16) << c.value;
    EXPECT_EQ(Rounded(DataType::kF32, c.value), c.value);
  }
}

}  // namespace
}  // namespace din
