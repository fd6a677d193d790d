// The models of other frameworks, in tests/golden, against the scores that those frameworks gave.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/din_model.h"
#include "model/reference_model.h"
#include "model_loader/snapshot.h"
#include "tests/kernels/arithmetic.h"
#include "tests/model/random_request.h"

namespace din {
namespace {

constexpr const char* kCases[] = {
    "deepctr_tf_a_dice_idmask_transcription",
    "deepctr_torch_a_dice_nosoftmax",
    "fuxictr_a_dice_nosoftmax",
    "recbole_a_default_mean",
    "rechub_a_dice_nosoftmax",
    "tzrec_a_towers_relu_querypad",
    "zhougr1993_a_sigmoid_transcription",
};

// What the whole path may cost in fp32.
constexpr double kTolerance = 1e-5;
// The frameworks computed in fp32 themselves; the reference in double only differs by their rounding.
constexpr double kFrameworkRounding = 1e-6;

std::unique_ptr<const Snapshot> OpenCase(const std::string& name) {
  const char* source = std::getenv("DIN_SOURCE_DIR");
  const std::string root = source != nullptr ? source : ".";
  auto snapshot = Snapshot::Open(root + "/tests/golden/" + name + "/1", ReadOptions());
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return snapshot.ok() ? std::move(*snapshot) : nullptr;
}

// The largest |score - expected| over all golden requests of the reference in T, under a spec that may differ from the
// snapshot's.
template <typename T>
double ReferenceError(const v1::ModelSpec& spec, const Snapshot& snapshot) {
  const auto resolved = ResolveSpec(spec);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  TensorReader reader(snapshot.tensors());
  const auto decoder = InputDecoder::Create(*resolved, reader);
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  double largest = 0;
  for (const v1::GoldenCase& golden : snapshot.golden()) {
    const ScoringInput input = testing::DecodeOrDie(**decoder, golden);
    const auto got = reference::Score<T>(*resolved, snapshot.tensors(), input);
    EXPECT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->scores.size(), static_cast<size_t>(golden.scores_size()));
    for (int c = 0; c < golden.scores_size(); ++c) {
      largest = std::max(largest, std::abs(static_cast<double>(got->scores[c]) - golden.scores(c)));
    }
  }
  return largest;
}

class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, ReferenceReproducesTheFramework) {
  const auto snapshot = OpenCase(GetParam());
  ASSERT_NE(snapshot, nullptr);
  ASSERT_EQ(snapshot->golden().size(), 4u);
  EXPECT_LE(ReferenceError<double>(snapshot->spec(), *snapshot), kFrameworkRounding);
  EXPECT_LE(ReferenceError<float>(snapshot->spec(), *snapshot), kFrameworkRounding);
}

TEST_P(GoldenTest, EveryArithmeticReproducesTheFramework) {
  const auto snapshot = OpenCase(GetParam());
  ASSERT_NE(snapshot, nullptr);
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    const ScopedMatrixUnit scoped(arithmetic.matrix);
    const auto model = DinModel::Create(snapshot->spec(), snapshot->tensors(), arithmetic.isa, arithmetic.precision);
    ASSERT_TRUE(model.ok()) << model.status();
    Workspace workspace;
    double largest = 0;
    for (const v1::GoldenCase& golden : snapshot->golden()) {
      const ScoringInput input = testing::DecodeOrDie((*model)->decoder(), golden);
      std::vector<float> scores(input.candidates);
      (*model)->Score(input, workspace, scores);
      for (int c = 0; c < golden.scores_size(); ++c) {
        EXPECT_NEAR(scores[c], golden.scores(c), kTolerance)
            << arithmetic.Name() << " " << golden.id() << " candidate " << c;
        largest = std::max(largest, std::abs(static_cast<double>(scores[c]) - golden.scores(c)));
      }
    }
    std::cout << arithmetic.Name() << ": largest error " << largest << std::endl;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param); });

TEST(GoldenTest, RunsEveryInstructionSetOfThisCpu) {
  const auto sets = SupportedInstructionSets();
  EXPECT_THAT(sets, ::testing::Contains(InstructionSet::kBaseline));
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    EXPECT_THAT(sets, ::testing::Contains(InstructionSet::kAvx2));
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
    EXPECT_THAT(sets, ::testing::Contains(InstructionSet::kAvx512));
  }
#endif
}

// Each case is there for what other readings of its framework get wrong: those must be seen.
struct Misreading {
  const char* name;
  const char* golden;
  void (*apply)(v1::ModelSpec&);
};

void PrintTo(const Misreading& misreading, std::ostream* out) { *out << misreading.name; }

v1::Attention& FirstAttention(v1::ModelSpec& spec) { return *spec.mutable_attentions(0); }
v1::Dice& FirstDice(v1::ModelSpec& spec) {
  return *FirstAttention(spec).mutable_layers(0)->mutable_activation()->mutable_dice();
}

const Misreading kMisreadings[] = {
    {"DiceEpsilonOfBatchNorm", "deepctr_torch_a_dice_nosoftmax",
     [](v1::ModelSpec& spec) { FirstDice(spec).set_eps(1e-5); }},
    {"PaddingCountsInAMean", "deepctr_torch_a_dice_nosoftmax",
     [](v1::ModelSpec& spec) {
       for (v1::Slot& slot : *spec.mutable_slots()) {
         if (slot.has_pool()) slot.mutable_pool()->set_divisor_epsilon(1);
       }
     }},
    {"TorchEpsilonInKerasBatchNorm", "deepctr_tf_a_dice_idmask_transcription",
     [](v1::ModelSpec& spec) { spec.mutable_tower()->mutable_layers(0)->mutable_bn()->set_eps(1e-5); }},
    {"MaskOfTheFirstFieldOnly", "deepctr_tf_a_dice_idmask_transcription",
     [](v1::ModelSpec& spec) { spec.mutable_sequences(0)->mutable_valid_when_not_padding()->RemoveLast(); }},
    {"SoftmaxIsNotTheDefault", "fuxictr_a_dice_nosoftmax",
     [](v1::ModelSpec& spec) { FirstAttention(spec).set_normalise(v1::Attention::NORMALISE_SOFTMAX); }},
    {"DifferenceTurnedAround", "fuxictr_a_dice_nosoftmax",
     [](v1::ModelSpec& spec) { FirstAttention(spec).set_input(2, v1::Attention::K_MINUS_Q); }},
    {"ScaleForgotten", "recbole_a_default_mean",
     [](v1::ModelSpec& spec) { FirstAttention(spec).set_scale(v1::Attention::SCALE_NONE); }},
    {"RowOffsetForgotten", "recbole_a_default_mean",
     [](v1::ModelSpec& spec) { spec.mutable_tables(1)->set_row_offset(0); }},
    {"DiceOfTheRowWithSmallEpsilon", "rechub_a_dice_nosoftmax",
     [](v1::ModelSpec& spec) {
       for (v1::Layer& layer : *spec.mutable_tower()->mutable_layers()) {
         layer.mutable_activation()->mutable_dice()->set_eps(1e-8);
       }
     }},
    {"OneTableForQueryAndTower", "tzrec_a_towers_relu_querypad",
     [](v1::ModelSpec& spec) {
       for (v1::Slot& slot : *spec.mutable_slots()) {
         if (slot.name() == "query_item") slot.mutable_embed()->set_table("item");
       }
     }},
    {"ItemBiasForgotten", "zhougr1993_a_sigmoid_transcription",
     [](v1::ModelSpec& spec) { spec.mutable_tower()->clear_id_biases(); }},
    {"SoftmaxForgotten", "zhougr1993_a_sigmoid_transcription",
     [](v1::ModelSpec& spec) { FirstAttention(spec).set_normalise(v1::Attention::NORMALISE_NONE); }},
};

class MisreadingTest : public ::testing::TestWithParam<Misreading> {};

TEST_P(MisreadingTest, MovesTheScores) {
  const auto snapshot = OpenCase(GetParam().golden);
  ASSERT_NE(snapshot, nullptr);
  v1::ModelSpec spec = snapshot->spec();
  GetParam().apply(spec);
  EXPECT_GT(ReferenceError<double>(spec, *snapshot), 1.5 * kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Golden, MisreadingTest, ::testing::ValuesIn(kMisreadings),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace din
