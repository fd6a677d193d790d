// A model goes live only when it builds and reproduces its golden scores on this machine's kernels.
#include "model_loader/load_model.h"

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/matrix_unit.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

const std::string kCase = "deepctr_torch_a_dice_nosoftmax";

std::string GoldenDirectory() { return std::string(std::getenv("DIN_SOURCE_DIR")) + "/tests/golden/" + kCase + "/1"; }

// The golden snapshot, changed by `change` and published anew: as intact as any, but wrong.
class LoadModelTest : public testing::Test {
 protected:
  void Publish(const std::function<void(SnapshotContents&)>& change) {
    const auto original = Snapshot::Open(GoldenDirectory(), {});
    ASSERT_TRUE(original.ok()) << original.status();
    SnapshotContents contents{(*original)->spec(), (*original)->tensors(), (*original)->golden(), false};
    change(contents);
    const absl::Status written = WriteSnapshot(root_ / "ads", 1, contents);
    ASSERT_TRUE(written.ok()) << written;
  }

  // With these weights of the last layer, and without golden cases, which they would not reproduce.
  void PublishHead(const std::vector<float>& weights) {
    Publish([&](SnapshotContents& c) {
      Tensor& head = c.tensors.at("head.w");
      ASSERT_EQ(weights.size() * sizeof(float), head.bytes);
      head.data = reinterpret_cast<const std::byte*>(weights.data());
      c.unverified = true;
      c.golden.clear();
    });
  }

  absl::StatusOr<ModelHandle> Load() const { return LoadModel(root_.path(), "ads", 1, {}); }

  void ExpectRefused(absl::StatusCode code, const std::string& message) const {
    ExpectError(Load().status(), code, {message});
  }

  TempDirectory root_;
};

TEST_F(LoadModelTest, GoldenSnapshotLoadsOnEveryInstructionSet) {
  for (InstructionSet isa : SupportedInstructionSets()) {
    LoadOptions options;
    options.instruction_set = isa;
    const auto loaded = LoadModelFrom(GoldenDirectory(), "ads", 1, options);
    ASSERT_TRUE(loaded.ok()) << Name(isa) << ": " << loaded.status();
    EXPECT_LE((*loaded)->largest_golden_error, 1e-5) << Name(isa);
    EXPECT_EQ((*loaded)->model->instruction_set(), isa);
  }
}

TEST_F(LoadModelTest, WrongGoldenScoreIsRefusedWithTheCaseAndTheDifference) {
  Publish([](SnapshotContents& c) { c.golden[1].set_scores(2, c.golden[1].scores(2) + 0.001f); });
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "golden case \"r1\", candidate 2: score ");
}

TEST_F(LoadModelTest, DriftBeyondTheBoundIsRefusedWithItsFigures) {
  const auto live = LoadModelFrom(GoldenDirectory(), "ads", 1, {});
  ASSERT_TRUE(live.ok()) << live.status();
  // A model that reproduces its own golden scores, and ranks the other way round.
  const Tensor& head = (*live)->snapshot->tensors().at("head.w");
  const auto* weights = reinterpret_cast<const float*>(head.data);
  std::vector<float> turned;
  for (size_t i = 0; i < head.bytes / sizeof(float); ++i) turned.push_back(-weights[i]);
  PublishHead(turned);
  LoadOptions options;
  options.allow_unverified = true;
  const auto next = LoadModel(root_.path(), "ads", 1, options);
  ASSERT_TRUE(next.ok()) << next.status();
  const auto& cases = (*live)->snapshot->golden();
  const auto drift = MeasureDrift(*(*live)->model, *(*next)->model, cases, nullptr);
  ASSERT_TRUE(drift.ok()) << drift.status();
  EXPECT_GT(drift->largest_change, 0);
  EXPECT_GE(drift->largest_change, drift->mean_change);
  EXPECT_NEAR(drift->rank_correlation, -1, 1e-9);
  ExpectError(CheckDrift(*drift, {.rank_correlation = 0.9}), absl::StatusCode::kFailedPrecondition,
              {"largest change ", "mean change ", "rank correlation -1; bound: rank correlation 0.9"});
  ExpectError(CheckDrift(*drift, {.largest_change = 1e-9, .mean_change = 1e-9}), absl::StatusCode::kFailedPrecondition,
              {"bound: largest change 1e-09, mean change 1e-09"});
  EXPECT_TRUE(CheckDrift(*drift, {}).ok());
  const auto same = MeasureDrift(*(*live)->model, *(*live)->model, cases, nullptr);
  EXPECT_EQ(same->largest_change, 0);
  EXPECT_NEAR(same->rank_correlation, 1, 1e-12);
  EXPECT_TRUE(CheckDrift(*same, {.largest_change = 0, .mean_change = 0, .rank_correlation = 0.999}).ok());
}

TEST_F(LoadModelTest, LoadHoldsToTheDriftBound) {
  const auto live = LoadModelFrom(GoldenDirectory(), "ads", 1, {});
  LoadOptions options;
  options.live = *live;
  options.drift.largest_change = 0;
  EXPECT_TRUE(LoadModelFrom(GoldenDirectory(), "ads", 2, options).ok()) << "the same model has none";
  options.drift.rank_correlation = 1;
  options.drift.largest_change = -1;
  ExpectError(LoadModelFrom(GoldenDirectory(), "ads", 2, options).status(), absl::StatusCode::kFailedPrecondition,
              {"/1: drift from the live version", "bound: largest change -1"});
}

TEST_F(LoadModelTest, AModelThatRanksNothingAnyMoreHasDriftedAway) {
  const auto live = LoadModelFrom(GoldenDirectory(), "ads", 1, {});
  ASSERT_TRUE(live.ok()) << live.status();
  PublishHead(std::vector<float>((*live)->snapshot->tensors().at("head.w").bytes / sizeof(float)));
  LoadOptions options;
  options.allow_unverified = true;
  const auto next = LoadModel(root_.path(), "ads", 1, options);
  ASSERT_TRUE(next.ok()) << next.status();
  const auto& cases = (*live)->snapshot->golden();
  EXPECT_EQ(MeasureDrift(*(*live)->model, *(*next)->model, cases, nullptr)->rank_correlation, 0);
  EXPECT_EQ(MeasureDrift(*(*next)->model, *(*live)->model, cases, nullptr)->rank_correlation, 1) << "nothing to lose";
  options.live = *live;
  EXPECT_TRUE(LoadModel(root_.path(), "ads", 1, options).ok());
  options.drift.rank_correlation = 0.9;
  ExpectError(LoadModel(root_.path(), "ads", 1, options).status(), absl::StatusCode::kFailedPrecondition,
              {"drift: there are no golden cases"});
}

TEST_F(LoadModelTest, SwappedTensorsOfOneShapeAreCaughtByTheGoldenScores) {
  Publish([](SnapshotContents& c) { std::swap(c.tensors.at("att0.l0.act.mean"), c.tensors.at("att0.l0.b")); });
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "golden case");
}

TEST_F(LoadModelTest, MissingTensorIsNamed) {
  Publish([](SnapshotContents& c) { c.tensors.erase("tower.l0.w"); });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor tower.l0.w: missing");
}

TEST_F(LoadModelTest, UnusedTensorIsNamed) {
  Publish([](SnapshotContents& c) { c.tensors["tower.l9.w"] = c.tensors.at("tower.l0.w"); });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "tower.l9.w");
}

TEST_F(LoadModelTest, MisshapenTensorIsNamedWithBothShapes) {
  Publish([](SnapshotContents& c) { c.spec.mutable_tower()->mutable_layers(0)->set_units(31); });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor tower.l0.w: F32 [32, 43]");
}

TEST_F(LoadModelTest, TableSmallerThanItsIdMapIsRefused) {
  Publish([](SnapshotContents& c) {
    for (auto& map : *c.spec.mutable_id_maps()) {
      if (map.has_identity()) map.mutable_identity()->set_size(1000);
    }
  });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "gives rows up to 999");
}

TEST_F(LoadModelTest, GoldenCaseThatTheModelCannotDecodeIsRefused) {
  Publish([](SnapshotContents& c) { c.golden[0].mutable_candidates(0)->set_name("no_such_feature"); });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "golden case \"r0\"");
}

TEST_F(LoadModelTest, GoldenCaseWithTooFewScoresIsRefused) {
  Publish([](SnapshotContents& c) { c.golden[0].mutable_scores()->RemoveLast(); });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "candidates, ");
}

TEST_F(LoadModelTest, SpecOutsideTheFamilyIsRefused) {
  Publish([](SnapshotContents& c) {
    c.spec.mutable_attentions(0)->mutable_layers(0)->mutable_activation()->mutable_dice()->set_statistics(
        v1::Dice::BATCH);
  });
  ExpectRefused(absl::StatusCode::kInvalidArgument, "BATCH is refused");
}

// --- Precision -------------------------------------------------------------------------------------------------------

TEST_F(LoadModelTest, PrecisionByDefaultIsAnExactOneAndNothingIsSaid) {
  const auto loaded = LoadModelFrom(GoldenDirectory(), "ads", 1, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->model->precision(), Precision::kFp32) << "its layers are too small for anything else to pay";
  EXPECT_FALSE((*loaded)->precision_asked.has_value());
  EXPECT_EQ((*loaded)->precision_note, "");
}

TEST_F(LoadModelTest, Bf16IsUsedWhereTheCpuHasItAndHeldToTheToleranceOfTheSpec) {
  Publish([](SnapshotContents& c) {
    c.spec.set_precision(v1::PRECISION_BF16);
    c.spec.set_bf16_tolerance(0.01);
  });
  for (const InstructionSet isa : SupportedInstructionSets()) {
    LoadOptions options;
    options.instruction_set = isa;
    const auto loaded = LoadModel(root_.path(), "ads", 1, options);
    ASSERT_TRUE(loaded.ok()) << Name(isa) << ": " << loaded.status();
    EXPECT_EQ((*loaded)->precision_asked, Precision::kBf16);
    EXPECT_EQ((*loaded)->model->precision(), NearestSupported(isa, Precision::kBf16));
    if (Supports(isa, Precision::kBf16)) {
      EXPECT_EQ((*loaded)->precision_note, "");
      EXPECT_LE((*loaded)->largest_golden_error, 0.01);
      EXPECT_GT((*loaded)->largest_golden_error, 1e-6) << "that is no bf16";
    } else {
      EXPECT_THAT((*loaded)->precision_note, testing::HasSubstr("bf16: this CPU has no instructions for it"));
    }
  }
}

TEST_F(LoadModelTest, Bf16ThatMissesTheGoldenScoresFallsBackToAnExactPrecisionAndSaysWhy) {
  if (!Supports(BestInstructionSet(), Precision::kBf16)) GTEST_SKIP() << "this CPU has no bf16";
  Publish([](SnapshotContents& c) {
    c.spec.set_precision(v1::PRECISION_BF16);
    c.spec.set_bf16_tolerance(1e-9);
  });
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->model->precision(), Precision::kFp32);
  EXPECT_THAT((*loaded)->precision_note, testing::HasSubstr("tolerance 1e-09 (avx512, bf16)"));
  EXPECT_LE((*loaded)->largest_golden_error, 1e-5);
}

TEST_F(LoadModelTest, SplitFallsBackToFp32WhereItIsNotExactEnough) {
  if (BestInstructionSet() != InstructionSet::kAvx512) GTEST_SKIP() << "no AVX-512";
  const ScopedMatrixUnit scoped(&EmulatedMatrixUnit());
  Publish([](SnapshotContents& c) { c.spec.set_precision(v1::PRECISION_FP32_SPLIT); });
  const auto split = Load();
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ((*split)->model->precision(), Precision::kFp32Split);
  EXPECT_EQ((*split)->precision_note, "");
  EXPECT_EQ(InstructionsOf((*split)->model->instruction_set(), Precision::kFp32Split), "amx");
  // Between the errors of the two.
  std::filesystem::remove_all(root_ / "ads");
  Publish([](SnapshotContents& c) {
    c.spec.set_precision(v1::PRECISION_FP32_SPLIT);
    for (v1::GoldenCase& golden : c.golden) golden.set_tolerance(5e-7);
  });
  const auto fp32 = Load();
  ASSERT_TRUE(fp32.ok()) << fp32.status();
  EXPECT_GT((*split)->largest_golden_error, 5e-7);
  EXPECT_EQ((*fp32)->model->precision(), Precision::kFp32);
  EXPECT_THAT((*fp32)->precision_note, testing::HasSubstr("tolerance 5e-07 (avx512, fp32-split)"));
}

TEST_F(LoadModelTest, WrongGoldenScoreIsRefusedInEveryPrecision) {
  Publish([](SnapshotContents& c) {
    c.spec.set_precision(v1::PRECISION_BF16);
    c.spec.set_bf16_tolerance(0.01);
    c.golden[1].set_scores(2, c.golden[1].scores(2) + 0.1f);
  });
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "fp32)");
}

TEST_F(LoadModelTest, Bf16AskedForByTheServerNeedsATolerance) {
  LoadOptions options;
  options.precision = Precision::kBf16;
  const auto loaded = LoadModelFrom(GoldenDirectory(), "ads", 1, options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_NE((*loaded)->model->precision(), Precision::kBf16);
  EXPECT_THAT((*loaded)->precision_note, testing::HasSubstr("the model states no bf16_tolerance"));
}

TEST_F(LoadModelTest, Fp32AskedForByTheServerOverrulesTheSpec) {
  Publish([](SnapshotContents& c) {
    c.spec.set_precision(v1::PRECISION_BF16);
    c.spec.set_bf16_tolerance(0.01);
  });
  LoadOptions options;
  options.precision = Precision::kFp32;
  const auto loaded = LoadModel(root_.path(), "ads", 1, options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->model->precision(), Precision::kFp32);
}

TEST_F(LoadModelTest, MissingVersionIsNotFound) {
  EXPECT_EQ(LoadModel(root_.path(), "ads", 7, {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace din
