// What must hold for every model and every request, tried on random ones: the production path against the definition,
// in every exact arithmetic of this machine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "model/din_model.h"
#include "model/reference_model.h"
#include "tests/kernels/arithmetic.h"
#include "tests/model/allocation_counter.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_model.h"
#include "tests/model/random_request.h"

namespace din {
namespace {

using testing::DecodeOrDie;
using testing::RandomModel;
using testing::RandomRequest;
using testing::RawModel;
using testing::RequestSize;
using testing::Rng;
using testing::ScoresOf;

constexpr double kTolerance = 1e-5;
// Seeds are 0 .. n - 1, so that a failure's seed can be tried alone.
constexpr uint64_t kModels = 400;
constexpr int kRequestsPerModel = 3;
// The roundings of a whole score against moves of two units; measured: 1.5. A factor in fp32-split has a unit 64 times
// as large; measured: 13.
constexpr double kMultiple = 4;
constexpr double kSplitMultiple = 40;

Rng RequestRng(uint64_t seed) { return Rng(seed + 1'000'000); }

// Empty, single and full sequences all occur; few candidates and many.
RequestSize RandomSize(Rng& rng) {
  const size_t candidates[] = {1, 2, 3, 7, 16, 33};
  const size_t behaviours[] = {0, 1, 2, 5, 9, 17};
  return {candidates[rng() % 6], behaviours[rng() % 6], 4};
}

std::unique_ptr<const DinModel> CreateModel(const RawModel& raw, const Arithmetic& arithmetic) {
  const ScopedMatrixUnit scoped(arithmetic.matrix);
  auto model = DinModel::Create(raw.spec, raw.tensors, arithmetic.isa, arithmetic.precision);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? std::move(*model) : nullptr;
}

std::vector<float> ScoresOf(const DinModel& model, const ScoringInput& input, Workspace& workspace) {
  std::vector<float> scores(input.candidates);
  model.Score(input, workspace, scores);
  return scores;
}

template <typename T>
reference::Scores<T> ReferenceScores(const DinModel& model, const RawModel& raw, const ScoringInput& input) {
  auto scores = reference::Score<T>(model.resolved(), raw.tensors, input);
  EXPECT_TRUE(scores.ok()) << scores.status();
  return std::move(scores).value();
}

template <typename A, typename B>
double LargestDifference(const std::vector<A>& a, const std::vector<B>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    // A NaN is infinitely far away.
    largest = std::max(largest, std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
  }
  return largest;
}

// ---------------------------------------------------------------------------------------------------------------------
// The models that are drawn

// Everything that a message and those in it say: "IdMap.hash", "Dice.affine", "Activation.Kind.TANH", ...
void CollectUses(const google::protobuf::Message& message, std::set<std::string>& uses) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    uses.insert(field->full_name());
    const int n = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < n; ++i) {
      if (field->message_type() != nullptr) {
        CollectUses(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                         : reflection.GetMessage(message, field),
                    uses);
      } else if (field->enum_type() != nullptr) {
        const auto* value =
            field->is_repeated() ? reflection.GetRepeatedEnum(message, field, i) : reflection.GetEnum(message, field);
        uses.insert(value->full_name());
      }
    }
  }
}

// What the description can say, fields and enum values.
void CollectPossibleUses(const google::protobuf::Descriptor& type, std::set<std::string>& uses) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto* field = type.field(i);
    if (!uses.insert(field->full_name()).second) continue;
    if (field->message_type() != nullptr) CollectPossibleUses(*field->message_type(), uses);
    if (field->enum_type() == nullptr) continue;
    for (int v = 1; v < field->enum_type()->value_count(); ++v) uses.insert(field->enum_type()->value(v)->full_name());
  }
}

TEST(RandomModelTest, DrawsEverythingThatASpecCanSay) {
  std::set<std::string> possible;
  CollectPossibleUses(*v1::ModelSpec::descriptor(), possible);
  // Refused by ResolveSpec.
  possible.erase("din.v1.Dice.BATCH");
  possible.erase("din.v1.Activation.POSITIONWISE_PRELU");
  possible.insert({"no tower", "factorisation machine"});  // of no field alone
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < kModels; ++seed) {
    const v1::ModelSpec spec = RandomModel(seed).spec;
    CollectUses(spec, seen);
    if (spec.tower().input().empty()) seen.insert("no tower");
    for (const v1::Interaction& interaction : spec.interactions()) {
      const auto& wide = spec.tower().wide();
      if (interaction.kind() == v1::Interaction::BI_INTERACTION &&
          std::any_of(wide.begin(), wide.end(), [&](const auto& v) { return v.name() == interaction.name(); })) {
        seen.insert("factorisation machine");
      }
    }
  }
  std::vector<std::string> missing;
  std::set_difference(possible.begin(), possible.end(), seen.begin(), seen.end(), std::back_inserter(missing));
  EXPECT_THAT(missing, ::testing::IsEmpty());
}

TEST(RandomModelTest, SameSeedSameModel) {
  const RawModel a = RandomModel(7);
  const RawModel b = RandomModel(7);
  EXPECT_EQ(a.spec.SerializeAsString(), b.spec.SerializeAsString());
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    const Tensor& other = b.tensors.at(name);
    ASSERT_EQ(tensor.bytes, other.bytes) << name;
    EXPECT_TRUE(std::equal(tensor.data, tensor.data + tensor.bytes, other.data)) << name;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Score

// One model for each exact arithmetic of this machine.
std::vector<std::unique_ptr<const DinModel>> CreateModels(const RawModel& raw) {
  std::vector<std::unique_ptr<const DinModel>> models;
  for (const Arithmetic& arithmetic : ExactArithmetics()) models.push_back(CreateModel(raw, arithmetic));
  return models;
}

// fp32 alone costs little, and no model is out of the range for which exactness is promised: then a difference is an
// error of the production path.
TEST(PropertyTest, ScoresMatchTheReferenceInEveryArithmetic) {
  const std::vector<Arithmetic> arithmetics = ExactArithmetics();
  std::vector<double> largest(arithmetics.size());
  double largest_in_float = 0;
  Workspace workspace;
  for (uint64_t seed = 0; seed < kModels; ++seed) {
    const RawModel raw = RandomModel(seed);
    const auto models = CreateModels(raw);
    ASSERT_THAT(models, ::testing::Each(::testing::NotNull())) << "seed " << seed;
    Rng rng = RequestRng(seed);
    for (int r = 0; r < kRequestsPerModel; ++r) {
      const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, RandomSize(rng));
      const ScoringInput input = DecodeOrDie(models[0]->decoder(), request);
      const auto exact = ReferenceScores<double>(*models[0], raw, input);
      for (double logit : exact.logits) EXPECT_LE(std::abs(logit), 15) << "seed " << seed;
      const double in_float = LargestDifference(ReferenceScores<float>(*models[0], raw, input).scores, exact.scores);
      EXPECT_LE(in_float, kTolerance / 5) << "seed " << seed << ", request " << r;
      largest_in_float = std::max(largest_in_float, in_float);
      for (size_t i = 0; i < arithmetics.size(); ++i) {
        const double error = LargestDifference(ScoresOf(*models[i], input, workspace), exact.scores);
        EXPECT_LE(error, kTolerance) << arithmetics[i].Name() << ", seed " << seed << ", request " << r;
        largest[i] = std::max(largest[i], error);
      }
    }
  }
  std::cout << kModels << " models, " << kModels * kRequestsPerModel << " requests; largest error: reference in float "
            << largest_in_float;
  for (size_t i = 0; i < arithmetics.size(); ++i) std::cout << ", " << arithmetics[i].Name() << " " << largest[i];
  std::cout << std::endl;
}

// A model beyond what is promised: logits of thousands, less `shift`, Dice of a scale of 1e5, attention scores of
// hundreds.
RawModel SpoiltModel(uint64_t seed, double shift) {
  RawModel raw = RandomModel(seed);
  const auto multiply = [&raw](const std::string& name, float factor) {
    for (float& value : raw.Floats(name)) value *= factor;
  };
  for (const auto& [name, tensor] : raw.tensors) {
    if (tensor.type != DataType::kF32) continue;
    if (absl::EndsWith(name, ".act.var") || absl::EndsWith(name, ".bn.var")) multiply(name, 1e-8f);
    if (absl::StartsWith(name, "att") && absl::EndsWith(name, ".out.w")) multiply(name, 100);
    if (name == "head.w") multiply(name, 1000);
    if (name == "head.b") raw.Floats(name)[raw.spec.tower().positive_class()] -= static_cast<float>(shift);
  }
  return raw;
}

// Each weight is moved by at most two units in its last place: no fp32 arithmetic need know the difference.
void MoveInTheLastPlace(Rng& rng, RawModel& raw) {
  std::uniform_real_distribution<double> draw(-1, 1);
  for (const auto& [name, tensor] : raw.tensors) {
    if (tensor.type != DataType::kF32) continue;
    for (float& value : raw.Floats(name)) value = static_cast<float>(value * (1 + 0x1p-22 * draw(rng)));
  }
}

// Outside the promised range no fp32 score can be exact. It is as near as the model's condition lets it be: about what
// moving the weights in their last place does to the exact score. And it is a number in [0, 1].
TEST(PropertyTest, IllConditionedModelsAreAsWrongAsTheirConditionAndStayFinite) {
  constexpr uint64_t kSpoilt = 100;
  constexpr int kMoves = 6;
  const std::vector<Arithmetic> arithmetics = ExactArithmetics();
  double largest_error = 0, largest_ratio = 0, largest_condition = 0;
  Workspace workspace;
  for (uint64_t seed = 0; seed < kSpoilt; ++seed) {
    RawModel raw = SpoiltModel(seed, 0);
    Rng rng = RequestRng(seed);
    const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, RandomSize(rng));
    const auto decoder = CreateModel(raw, {.isa = InstructionSet::kBaseline});
    ASSERT_NE(decoder, nullptr) << "seed " << seed;
    const ScoringInput input = DecodeOrDie(decoder->decoder(), request);
    // The thousands cancel for the first candidate, where the head has a bias: its score is not simply 0 or 1.
    const double shift = ReferenceScores<double>(*decoder, raw, input).logits[0];
    raw = SpoiltModel(seed, shift);
    const auto models = CreateModels(raw);
    ASSERT_THAT(models, ::testing::Each(::testing::NotNull())) << "seed " << seed;
    const std::vector<double> exact = ReferenceScores<double>(*models[0], raw, input).scores;
    std::vector<double> condition(exact.size(), kTolerance);
    for (int move = 0; move < kMoves; ++move) {
      RawModel moved = SpoiltModel(seed, shift);
      MoveInTheLastPlace(rng, moved);
      const std::vector<double> scores = ReferenceScores<double>(*models[0], moved, input).scores;
      for (size_t c = 0; c < exact.size(); ++c) condition[c] = std::max(condition[c], std::abs(scores[c] - exact[c]));
    }
    for (size_t i = 0; i < arithmetics.size(); ++i) {
      const std::vector<float> scores = ScoresOf(*models[i], input, workspace);
      for (size_t c = 0; c < exact.size(); ++c) {
        largest_condition = std::max(largest_condition, condition[c]);
        ASSERT_TRUE(scores[c] >= 0 && scores[c] <= 1)
            << arithmetics[i].Name() << ", seed " << seed << ": " << scores[c];
        const double error = std::abs(scores[c] - exact[c]);
        const double multiple = arithmetics[i].precision == Precision::kFp32 ? kMultiple : kSplitMultiple;
        EXPECT_LE(error, multiple * condition[c]) << arithmetics[i].Name() << ", seed " << seed << ", candidate " << c;
        largest_error = std::max(largest_error, error);
        largest_ratio = std::max(largest_ratio, error / condition[c]);
      }
    }
  }
  EXPECT_GT(largest_condition, 10 * kTolerance) << "the models are not ill-conditioned any more";
  std::cout << "largest error " << largest_error << ", condition " << largest_condition << ", multiple of it "
            << largest_ratio << std::endl;
}

// The candidates at these positions alone.
v1::GoldenCase TakeCandidates(const v1::ModelSpec& spec, const v1::GoldenCase& request,
                              const std::vector<size_t>& positions) {
  v1::GoldenCase out = request;
  out.clear_candidates();
  for (const v1::Column& from : request.candidates()) {
    v1::Column& to = *out.add_candidates();
    to.set_name(from.name());
    const auto feature = std::find_if(spec.features().begin(), spec.features().end(),
                                      [&](const v1::Feature& f) { return f.name() == from.name(); });
    const bool is_list = feature->kind() == v1::ID_LIST;
    const size_t width = feature->kind() == v1::DENSE ? feature->width() : 1;
    if (is_list) to.add_offsets(0);
    for (size_t p : positions) {
      const size_t begin = is_list ? from.offsets(static_cast<int>(p)) : p * width;
      const size_t end = is_list ? from.offsets(static_cast<int>(p) + 1) : (p + 1) * width;
      for (auto i = static_cast<int>(begin); i < static_cast<int>(end); ++i) {
        if (from.ids_size() > 0) to.add_ids(from.ids(i));
        if (from.keys_size() > 0) to.add_keys(from.keys(i));
        if (from.values_size() > 0) to.add_values(from.values(i));
      }
      if (is_list) to.add_offsets(static_cast<uint32_t>(to.ids_size() + to.keys_size()));
    }
  }
  return out;
}

// Bit for bit: alone, in a part of the batch, in the whole batch in another order.
TEST(PropertyTest, ScoreDoesNotDependOnTheOtherCandidates) {
  constexpr size_t kCandidates = 70;  // more than one block of any kernel, and a remainder
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      const RawModel raw = RandomModel(seed);
      const auto model = CreateModel(raw, arithmetic);
      ASSERT_NE(model, nullptr) << "seed " << seed;
      Rng rng = RequestRng(seed);
      const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, {kCandidates, rng() % 20, 4});
      const std::vector<float> whole = ScoresOf(*model, request);

      std::vector<size_t> order(kCandidates);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), rng);
      for (size_t part : {size_t{1}, size_t{2}, size_t{9}, size_t{17}, size_t{33}, kCandidates}) {
        const std::vector<size_t> taken(order.begin(), order.begin() + part);
        const std::vector<float> scores = ScoresOf(*model, TakeCandidates(raw.spec, request, taken));
        for (size_t i = 0; i < part; ++i) {
          ASSERT_EQ(scores[i], whole[taken[i]])
              << arithmetic.Name() << ", seed " << seed << ", candidate " << taken[i] << " among " << part;
        }
      }
    }
  }
}

TEST(PropertyTest, WithoutAPrecisionItIsTheFastestExactOneOfThisCpu) {
  const auto precision_of = [](const testing::RawModel& model) {
    return testing::OrDie(DinModel::Create(model.spec, model.tensors, BestInstructionSet(), std::nullopt))->precision();
  };
  const auto paper = testing::PaperModel(), compact = testing::CompactModel();
  {
    const ScopedMatrixUnit none(nullptr);
    EXPECT_EQ(precision_of(paper), Precision::kFp32);
    EXPECT_EQ(precision_of(compact), Precision::kFp32);
  }
  if (BestInstructionSet() != InstructionSet::kAvx512) GTEST_SKIP() << "no AVX-512";
  const ScopedMatrixUnit emulated(&EmulatedMatrixUnit());
  EXPECT_EQ(precision_of(paper), Precision::kFp32Split);
  EXPECT_EQ(precision_of(compact), Precision::kFp32);
}

// Two threads' workspaces, in ranges of any size: as when a request is shared.
TEST(PropertyTest, ScoreDoesNotDependOnHowTheCandidatesAreSplit) {
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    for (uint64_t seed = 0; seed < 100; ++seed) {
      const RawModel raw = RandomModel(seed);
      const auto model = CreateModel(raw, arithmetic);
      ASSERT_NE(model, nullptr) << "seed " << seed;
      Rng rng = RequestRng(seed);
      const RequestSize size{1 + rng() % 40, rng() % 20, 4};
      const ScoringInput input = DecodeOrDie(model->decoder(), RandomRequest(rng, raw.spec, raw.tensors, size));
      Workspace user, helper;
      const std::vector<float> whole = ScoresOf(*model, input, user);
      std::vector<float> split(input.candidates);
      model->PrepareUser(input, user);
      for (size_t first = 0; first < input.candidates;) {
        const size_t count = std::min(1 + rng() % 13, input.candidates - first);
        model->ScoreCandidates(input, user, first, rng() % 2 == 0 ? user : helper,
                               std::span(split).subspan(first, count));
        first += count;
      }
      ASSERT_EQ(split, whole) << arithmetic.Name() << ", seed " << seed;
    }
  }
}

// What a workspace was used for before leaves no trace: other models, larger and smaller requests.
TEST(PropertyTest, ScoreDoesNotDependOnTheWorkspace) {
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    Workspace used;
    for (uint64_t seed = 0; seed < 100; ++seed) {
      const RawModel raw = RandomModel(seed);
      const auto model = CreateModel(raw, arithmetic);
      ASSERT_NE(model, nullptr) << "seed " << seed;
      Rng rng = RequestRng(seed);
      for (int r = 0; r < 3; ++r) {
        const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, RandomSize(rng));
        const ScoringInput input = DecodeOrDie(model->decoder(), request);
        Workspace fresh;
        ASSERT_EQ(ScoresOf(*model, input, used), ScoresOf(*model, input, fresh))
            << arithmetic.Name() << ", seed " << seed << ", request " << r;
      }
    }
  }
}

TEST(PropertyTest, ScoreDoesNotAllocateOnceWarm) {
  if (!AllocationCounter::Works()) GTEST_SKIP() << "a sanitizer owns the allocator";
  size_t in_onednn = 0;
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      const RawModel raw = RandomModel(seed);
      const auto model = CreateModel(raw, arithmetic);
      ASSERT_NE(model, nullptr) << "seed " << seed;
      Rng rng = RequestRng(seed);
      const RequestSize largest{40, 17, 4};
      const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, largest);
      const ScoringInput input = DecodeOrDie(model->decoder(), request);
      std::vector<size_t> half(largest.candidates / 2);
      std::iota(half.begin(), half.end(), 0);
      const ScoringInput smaller = DecodeOrDie(model->decoder(), TakeCandidates(raw.spec, request, half));
      std::vector<float> scores(input.candidates);
      const std::span<float> smaller_scores = std::span(scores).first(smaller.candidates);
      Workspace workspace;
      model->Score(input, workspace, scores);  // warms up

      const AllocationCounter counter;
      model->Score(input, workspace, scores);
      model->Score(smaller, workspace, smaller_scores);
      model->ScoreCandidates(smaller, workspace, 3, workspace, smaller_scores.subspan(3, 5));
      EXPECT_EQ(counter.count(), 0u) << arithmetic.Name() << ", seed " << seed;
      in_onednn += counter.in_onednn();
    }
  }
  std::cout << "oneDNN's own: " << in_onednn << std::endl;
}

TEST(PropertyTest, AllocationsAreSeen) {
  if (!AllocationCounter::Works()) GTEST_SKIP() << "a sanitizer owns the allocator";
  const AllocationCounter counter;
  const auto number = std::make_unique<float>();
  void* const memory = std::aligned_alloc(64, 6400);
  EXPECT_NE(number.get(), memory);
  EXPECT_EQ(counter.count(), 2u);
  std::free(memory);
}

// ---------------------------------------------------------------------------------------------------------------------
// Explain

TEST(PropertyTest, ExplainGivesTheWeightsOfTheReference) {
  for (const Arithmetic& arithmetic : ExactArithmetics()) {
    double largest = 0;
    for (uint64_t seed = 0; seed < 150; ++seed) {
      const RawModel raw = RandomModel(seed);
      const auto model = CreateModel(raw, arithmetic);
      ASSERT_NE(model, nullptr) << "seed " << seed;
      Rng rng = RequestRng(seed);
      const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, RandomSize(rng));
      const ScoringInput input = DecodeOrDie(model->decoder(), request);
      const auto expected = ReferenceScores<double>(*model, raw, input);
      Workspace workspace;
      const size_t candidate = rng() % input.candidates;
      const std::vector<AttentionWeights> got = model->Explain(input, candidate, workspace);
      ASSERT_EQ(got.size(), expected.weights.size());
      for (size_t g = 0; g < got.size(); ++g) {
        const size_t positions = expected.weights[g].size() / input.candidates;
        const auto first = expected.weights[g].begin() + static_cast<std::ptrdiff_t>(candidate * positions);
        const std::vector<double> weights(first, first + static_cast<std::ptrdiff_t>(positions));
        // Weights that no softmax or sigmoid bounds are as exact as they are large.
        double scale = 1;
        for (double w : weights) scale = std::max(scale, std::abs(w));
        const double error = LargestDifference(got[g].weights, weights) / scale;
        EXPECT_LE(error, kTolerance) << arithmetic.Name() << ", seed " << seed << ", attention " << g;
        largest = std::max(largest, error);
      }
    }
    std::cout << arithmetic.Name() << ": largest error of a weight " << largest << std::endl;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The shapes of the benchmarks

class BenchModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  static RawModel Create() {
    return GetParam() == std::string("paper") ? testing::PaperModel() : testing::CompactModel();
  }
};

TEST_P(BenchModelTest, MatchesTheReferenceAtEverySize) {
  const std::vector<Arithmetic> arithmetics = ExactArithmetics();
  std::vector<double> largest(arithmetics.size());
  const RawModel raw = Create();
  const auto models = CreateModels(raw);
  ASSERT_THAT(models, ::testing::Each(::testing::NotNull()));
  Rng rng(5);
  for (const RequestSize& size : {RequestSize{1, 50, 0}, {17, 50, 0}, {3, 101, 0}, {1, 1000, 0}}) {
    const v1::GoldenCase request = RandomRequest(rng, raw.spec, raw.tensors, size);
    const ScoringInput input = DecodeOrDie(models[0]->decoder(), request);
    const auto exact = ReferenceScores<double>(*models[0], raw, input);
    Workspace workspace;
    for (size_t i = 0; i < arithmetics.size(); ++i) {
      const double error = LargestDifference(ScoresOf(*models[i], input, workspace), exact.scores);
      EXPECT_LE(error, kTolerance) << arithmetics[i].Name() << ", " << size.candidates << " x " << size.behaviours;
      largest[i] = std::max(largest[i], error);
    }
  }
  std::cout << "largest error:";
  for (size_t i = 0; i < arithmetics.size(); ++i) std::cout << " " << arithmetics[i].Name() << " " << largest[i];
  std::cout << std::endl;
}

TEST_P(BenchModelTest, LogitsSpreadAsPromised) {
  const RawModel raw = Create();
  Rng rng(6);
  double sum = 0;
  double squares = 0;
  const std::vector<double> logits = testing::ScoreRandomRequests(rng, raw, 40, {2, 50, 0}).logits;
  for (double logit : logits) {
    sum += logit;
    squares += logit * logit;
  }
  const auto n = static_cast<double>(logits.size());
  const double spread = std::sqrt(squares / n - sum / n * sum / n);
  EXPECT_GT(spread, 1.1);
  EXPECT_LT(spread, 2.0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, BenchModelTest, ::testing::Values("paper", "compact"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace din
