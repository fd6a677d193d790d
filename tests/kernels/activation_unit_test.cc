#include "kernels/activation_unit.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "gtest/gtest.h"
#include "kernels/flush_denormals.h"
#include "kernels/reference.h"
#include "tests/kernels/arithmetic.h"
#include "tests/kernels/test_data.h"

namespace din {
namespace {

struct Shape {
  size_t width;
  std::vector<size_t> units;  // of the hidden layers
};

ActivationUnitWeights RandomUnit(Random& random, const Shape& shape, const std::vector<ActivationKind>& kinds) {
  ActivationUnitWeights w;
  w.width = shape.width;
  const auto scaled = [&](size_t out, size_t in) {
    return random.Normal(out * in, 1 / std::sqrt(static_cast<float>(in)));
  };
  w.query_weight = scaled(shape.units[0], w.width);
  w.key_weight = scaled(shape.units[0], w.width);
  w.product_weight = scaled(shape.units[0], w.width);
  size_t in = w.width;
  for (size_t i = 0; i < shape.units.size(); ++i) {
    const size_t units = shape.units[i];
    w.hidden.push_back({units, i == 0 ? std::vector<float>() : scaled(units, in), random.Normal(units, 0.3f),
                        random.OfKind(kinds[i % kinds.size()], units)});
    in = units;
  }
  w.out_weight = scaled(1, in);
  w.out_bias = random.Uniform(-1, 1);
  return w;
}

// Queries, keys and outputs of one call, none of them aligned to more than a float.
struct Call {
  Call(Random& random, size_t width, size_t candidates, size_t behaviours)
      : width(width),
        stride(width + 3),
        query_memory(random.Normal(candidates * stride + 1, 1)),
        key_memory(random.Normal(behaviours * width + 1, 1)),
        pooled(candidates * stride, 5),
        weights(candidates * behaviours, 9) {
    args = {.queries = query_memory.data() + 1,
            .query_stride = stride,
            .candidates = candidates,
            .keys = key_memory.data() + 1,
            .behaviours = behaviours,
            .pooled = pooled.data(),
            .pooled_stride = stride,
            .weights = weights.data()};
  }
  size_t width;
  size_t stride;
  std::vector<float> query_memory;
  std::vector<float> key_memory;
  GuardedFloats pooled;
  GuardedFloats weights;
  AttentionArgs args;
};

void Pool(const ActivationUnit& unit, const AttentionArgs& args) {
  GuardedFloats scratch(unit.ScratchFloats(args.candidates, args.behaviours));
  unit.Pool(args, scratch.data());
  ASSERT_TRUE(scratch.GuardsIntact());
}

// Everything is of size 1: inputs, and by the scaling of the weights the sums too. A chain of n multiply-adds then errs
// by about sqrt(n) 2^-24, 7e-7 for the widest, and each of up to four layers passes on what it gets, the widest
// activations (a Dice of slope 3) a few times larger: 1e-5 for a weight. A pooled number adds up its weights' errors.
constexpr double kExactWeightTolerance = 1e-5;

// bf16 against its own definition: where an output between two layers lies near the middle of two bf16 numbers, the
// error of a float, or of the coarse sigmoid, makes it the other one, off by 2^-8. Some of 80 are.
constexpr double kBf16WeightTolerance = 1e-2;

// fp32-split keeps 2^-18 of each factor, 4e-6, where a float keeps 2^-24, but errors add up like sqrt(n), and the same
// layers pass them on.
constexpr double kSplitWeightTolerance = 5e-5;

std::unique_ptr<const ActivationUnit> CreateUnit(const ActivationUnitWeights& w, const Arithmetic& arithmetic) {
  const ScopedMatrixUnit scoped(arithmetic.matrix);
  return ActivationUnit::Create(w, arithmetic.isa, arithmetic.precision);
}

double Tolerance(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return kExactWeightTolerance;
    case Precision::kFp32Split:
      return kSplitWeightTolerance;
    case Precision::kBf16:
      return kBf16WeightTolerance;
  }
  return 0;
}

void ExpectReference(const ActivationUnitWeights& w, Call& call) {
  const auto expect = [&](auto score) {
    std::vector<reference::Pooled<double>> pooled;
    for (size_t c = 0; c < call.args.candidates; ++c) {
      pooled.push_back(reference::Pool<double>(w, call.args, c, score));
    }
    return pooled;
  };
  const auto exact = expect(reference::Score<double>);
  const auto bf16 = expect(reference::ScoreBf16<double>);
  for (const Arithmetic& arithmetic : SupportedArithmetics()) {
    SCOPED_TRACE(arithmetic.Name());
    const auto& expected = arithmetic.precision == Precision::kBf16 ? bf16 : exact;
    const double tolerance = Tolerance(arithmetic.precision);
    const auto unit = CreateUnit(w, arithmetic);
    Pool(*unit, call.args);
    for (size_t c = 0; c < call.args.candidates; ++c) {
      const auto& [pooled, weights] = expected[c];
      for (size_t j = 0; j < call.args.behaviours; ++j) {
        ASSERT_NEAR(call.weights[c * call.args.behaviours + j], weights[j],
                    tolerance * std::max(1.0, std::abs(weights[j])))
            << "candidate " << c << " behaviour " << j;
      }
      for (size_t d = 0; d < w.width; ++d) {
        double size = 0;
        for (size_t j = 0; j < call.args.behaviours; ++j) {
          size += std::max(1.0, std::abs(weights[j])) * std::abs(call.args.keys[j * w.width + d]);
        }
        ASSERT_NEAR(call.pooled[c * call.stride + d], pooled[d], tolerance * size) << "candidate " << c;
      }
      ASSERT_TRUE(call.pooled.IsUntouched(c * call.stride + w.width, (c + 1) * call.stride));
    }
    ASSERT_TRUE(call.pooled.GuardsIntact());
    ASSERT_TRUE(call.weights.GuardsIntact());
  }
}

constexpr size_t kLengths[] = {0, 1, 2, 7, 15, 16, 17, 31, 48, 50, 100, 1000};
constexpr size_t kWidths[] = {1, 3, 8, 12, 36, 48, 64, 128, 130};
constexpr size_t kUnits[] = {1, 5, 8, 16, 36, 40, 80};
constexpr Normalise kAllNormalisations[] = {Normalise::kNone, Normalise::kSoftmax, Normalise::kSigmoid};

TEST(ActivationUnitTest, IsTheReferenceOnEveryLengthAndWidth) {
  Random random(31);
  for (const size_t behaviours : kLengths) {
    for (const size_t width : kWidths) {
      Shape shape{width, std::vector<size_t>(1 + random.Below(3))};
      for (size_t& units : shape.units) units = kUnits[random.Below(std::size(kUnits))];
      std::vector<ActivationKind> kinds;
      for (size_t i = 0; i < shape.units.size(); ++i) kinds.push_back(kAllActivations[random.Below(6)]);
      ActivationUnitWeights w = RandomUnit(random, shape, kinds);
      w.normalise = kAllNormalisations[random.Below(3)];
      w.out_sigmoid = random.Below(2) == 0;
      Call call(random, width, behaviours >= 1000 ? 2 : 5, behaviours);
      ASSERT_NO_FATAL_FAILURE(ExpectReference(w, call)) << "H " << behaviours << " D " << width;
    }
  }
}

TEST(ActivationUnitTest, IsTheReferenceForEveryNumberOfUnitsAndLayers) {
  Random random(32);
  for (const size_t first : kUnits) {
    for (const size_t second : {size_t{0}, size_t{5}, size_t{40}}) {
      for (const size_t third : {size_t{0}, size_t{9}}) {
        Shape shape{12, {first}};
        if (second > 0) shape.units.push_back(second);
        if (third > 0) shape.units.push_back(third);
        const auto w = RandomUnit(random, shape, {ActivationKind::kDice});
        Call call(random, 12, 3, 21);
        ASSERT_NO_FATAL_FAILURE(ExpectReference(w, call)) << first << " " << second << " " << third;
      }
    }
  }
}

TEST(ActivationUnitTest, IsTheReferenceForEveryActivationAndNormalisation) {
  Random random(33);
  for (const ActivationKind kind : kAllActivations) {
    for (const Normalise normalise : kAllNormalisations) {
      for (const bool out_sigmoid : {false, true}) {
        ActivationUnitWeights w = RandomUnit(random, {36, {36, 20}}, {kind});
        w.normalise = normalise;
        w.out_sigmoid = out_sigmoid;
        Call call(random, 36, 4, 50);
        ASSERT_NO_FATAL_FAILURE(ExpectReference(w, call))
            << "kind " << static_cast<int>(kind) << " normalise " << static_cast<int>(normalise);
      }
    }
  }
}

// What was measured on a Sapphire Rapids, 200 candidates and 50 or 100 behaviours: fp32 by fp32-split.
TEST(ActivationUnitTest, TheFastestExactPrecisionIsSplitWhereTilesAreMoreThanHalfFull) {
  Random random(5);
  const auto of = [&](const Shape& shape) { return RandomUnit(random, shape, {ActivationKind::kDice}); };
  const ActivationUnitWeights paper = of({128, {80, 40}});  // 1.55, 1.69
  const ActivationUnitWeights compact = of({36, {36}});     // 0.82, 0.93
  const ActivationUnitWeights tiny = of({16, {36}});        // 0.72, 0.85
  const auto fastest = [](std::vector<ActivationUnitWeights> units) { return std::string(Name(FastestExact(units))); };
  EXPECT_EQ(fastest({paper}), "fp32-split");
  EXPECT_EQ(fastest({of({36, {80, 40}})}), "fp32-split");  // 1.12, 1.17
  EXPECT_EQ(fastest({of({32, {36}})}), "fp32-split");      // 1.11, 1.21
  EXPECT_EQ(fastest({compact}), "fp32");
  EXPECT_EQ(fastest({tiny}), "fp32");
  EXPECT_EQ(fastest({of({16, {64}})}), "fp32") << "just half";  // 0.86, 0.92
  EXPECT_EQ(fastest({tiny, paper}), "fp32-split") << "what most of the work wants";
  EXPECT_EQ(fastest({}), "fp32");
}

TEST(ActivationUnitTest, UniformWeighsEveryBehaviourAlike) {
  Random random(34);
  ActivationUnitWeights w = RandomUnit(random, {36, {16}}, {ActivationKind::kSigmoid});
  w.normalise = Normalise::kSoftmax;
  for (const size_t behaviours : {0, 1, 7, 50}) {
    Call call(random, 36, 3, behaviours);
    call.args.uniform = true;
    ASSERT_NO_FATAL_FAILURE(ExpectReference(w, call)) << behaviours;
  }
}

class ActivationUnitOnTest : public testing::TestWithParam<Arithmetic> {
 protected:
  void SetUp() override { std::cout << "arithmetic " << GetParam().Name() << "\n"; }
  std::unique_ptr<const ActivationUnit> Create(const ActivationUnitWeights& w) const {
    return CreateUnit(w, GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(AllInstructionSets, ActivationUnitOnTest, testing::ValuesIn(SupportedArithmetics()),
                         [](const auto& info) { return info.param.Name(); });

TEST_P(ActivationUnitOnTest, NoBehavioursPoolToZero) {
  Random random(41);
  const auto unit = Create(RandomUnit(random, {36, {8}}, {ActivationKind::kTanh}));
  Call call(random, 36, 3, 0);
  call.args.keys = nullptr;
  call.args.weights = nullptr;
  Pool(*unit, call.args);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t d = 0; d < 36; ++d) EXPECT_EQ(call.pooled[c * call.stride + d], 0.0f);
  }
}

TEST_P(ActivationUnitOnTest, NoCandidatesIsNoWork) {
  Random random(42);
  const auto unit = Create(RandomUnit(random, {36, {8}}, {ActivationKind::kTanh}));
  Call call(random, 36, 0, 50);
  Pool(*unit, call.args);
  EXPECT_TRUE(call.pooled.GuardsIntact());
}

// The promise on which caching, replay and splitting a request rest.
TEST_P(ActivationUnitOnTest, ACandidateIsTheSameBitForBitAloneInABatchAndInAnyPart) {
  Random random(43);
  for (const Normalise normalise : kAllNormalisations) {
    for (const size_t behaviours : {1, 17, 50, 100}) {
      ActivationUnitWeights w = RandomUnit(random, {36, {40, 9}}, {ActivationKind::kDice, ActivationKind::kDiceRow});
      w.normalise = normalise;
      const auto unit = Create(w);
      const size_t candidates = 21;
      Call batch(random, 36, candidates, behaviours);
      Pool(*unit, batch.args);
      for (const size_t part : {1, 2, 8, 13}) {
        for (size_t first = 0; first < candidates; first += part) {
          const size_t count = std::min(part, candidates - first);
          AttentionArgs args = batch.args;
          args.queries += first * batch.stride;
          args.candidates = count;
          GuardedFloats pooled(count * 36);
          GuardedFloats weights(count * behaviours);
          args.pooled = pooled.data();
          args.pooled_stride = 36;
          args.weights = weights.data();
          Pool(*unit, args);
          for (size_t c = 0; c < count; ++c) {
            ASSERT_EQ(std::memcmp(&pooled[c * 36], &batch.pooled[(first + c) * batch.stride], 36 * sizeof(float)), 0);
          }
          ASSERT_EQ(std::memcmp(weights.data(), &batch.weights[first * behaviours], count * behaviours * sizeof(float)),
                    0);
        }
      }
    }
  }
}

TEST_P(ActivationUnitOnTest, AskingForTheWeightsChangesNothing) {
  Random random(44);
  const auto unit = Create(RandomUnit(random, {36, {40}}, {ActivationKind::kSlope}));
  Call call(random, 36, 4, 33);
  Pool(*unit, call.args);
  GuardedFloats pooled(4 * call.stride);
  AttentionArgs args = call.args;
  args.pooled = pooled.data();
  args.weights = nullptr;
  Pool(*unit, args);
  for (size_t c = 0; c < 4; ++c) {
    EXPECT_EQ(std::memcmp(&pooled[c * call.stride], &call.pooled[c * call.stride], 36 * sizeof(float)), 0);
  }
}

// Padding is up to a vector and a half of lanes: if it entered, a softmax over equal scores would show it at once.
TEST_P(ActivationUnitOnTest, PaddingTakesNoPartInTheSoftmax) {
  Random random(45);
  ActivationUnitWeights w = RandomUnit(random, {8, {8}}, {ActivationKind::kTanh});
  std::fill(w.key_weight.begin(), w.key_weight.end(), 0.0f);
  std::fill(w.product_weight.begin(), w.product_weight.end(), 0.0f);
  w.out_bias = -40;  // a padded lane's score, were it zero, would take everything
  w.normalise = Normalise::kSoftmax;
  const auto unit = Create(w);
  for (size_t behaviours = 1; behaviours <= 70; ++behaviours) {
    Call call(random, 8, 1, behaviours);
    Pool(*unit, call.args);
    for (size_t j = 0; j < behaviours; ++j) {
      ASSERT_NEAR(call.weights[j], 1.0 / static_cast<double>(behaviours), 1e-6) << behaviours;
    }
  }
}

TEST_P(ActivationUnitOnTest, ExtremeScoresGiveWeightsThatAreNumbers) {
  Random random(46);
  for (const Normalise normalise : {Normalise::kSoftmax, Normalise::kSigmoid}) {
    for (const ActivationKind kind : kAllActivations) {
      for (const float size : {1e-42f, 1e-20f, 1e3f, 1e15f, 1e28f}) {
        ActivationUnitWeights w = RandomUnit(random, {36, {36}}, {kind});
        w.normalise = normalise;
        for (float& v : w.out_weight) v *= size;
        const auto unit = Create(w);
        Call call(random, 36, 2, 37);
        Pool(*unit, call.args);
        for (size_t c = 0; c < 2; ++c) {
          double sum = 0;
          for (size_t j = 0; j < 37; ++j) {
            const float weight = call.weights[c * 37 + j];
            ASSERT_TRUE(weight >= 0 && weight <= 1.000001f) << "size " << size << " weight " << weight;
            sum += weight;
          }
          if (normalise == Normalise::kSoftmax) {
            ASSERT_NEAR(sum, 1, 1e-5);
          }
          for (size_t d = 0; d < 36; ++d) ASSERT_TRUE(std::isfinite(call.pooled[c * call.stride + d]));
        }
      }
    }
  }
}

TEST_P(ActivationUnitOnTest, DenormalAndHugeKeysStayFiniteWithDenormalsFlushedOrNot) {
  Random random(47);
  const ActivationUnitWeights w = RandomUnit(random, {36, {36, 8}}, {ActivationKind::kSigmoid});
  const auto unit = Create(w);
  for (const float size : {1e-44f, 1e-38f, 1e15f}) {
    Call call(random, 36, 2, 20);
    for (float& v : call.key_memory) v *= size;
    const auto expect_finite = [&] {
      for (size_t c = 0; c < 2; ++c) {
        for (size_t d = 0; d < 36; ++d) ASSERT_TRUE(std::isfinite(call.pooled[c * call.stride + d])) << size;
      }
    };
    Pool(*unit, call.args);
    expect_finite();
    {
      const ScopedFlushDenormals flush;
      Pool(*unit, call.args);
    }
    expect_finite();
  }
}

}  // namespace
}  // namespace din
