// The definition itself, held to models small enough to calculate on paper.
#include "model/reference_model.h"

#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "kernels/gather.h"
#include "tests/model/raw_model.h"

namespace din {
namespace {

using testing::RawModel;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// One field of width 1. Items 0, 1, 2 have the embeddings 1, 2, -1; the candidate is item 1 (q = 2), the behaviours are
// items 0 and 2 (k = 1 and k = -1).
//
//   unit    [q, k, q - k, q * k] W1 + b1,  W1 = [0.5, -1, 1, 0.25], b1 = 0.5, ReLU;  then w = 0.5, b = -0.25
//           k =  1: 0.5*2 - 1*1 + 1*1 + 0.25*2  + 0.5 = 2   ->  0.5*2 - 0.25 = 0.75
//           k = -1: 0.5*2 + 1*1 + 1*3 - 0.25*2  + 0.5 = 5   ->  0.5*5 - 0.25 = 2.25
//   tower   [interest, candidate, interest * candidate], no layers; head w = [1, 0.5, -0.5], b = 0.25
constexpr double kScores[] = {0.75, 2.25};
constexpr double kKeys[] = {1, -1};

double Logit(double interest) { return 1 * interest + 0.5 * 2 - 0.5 * (interest * 2) + 0.25; }

constexpr const char* kSpec = R"pb(
  format: 1
  id_maps {
    name: "item"
    id_type: INT64
    identity { size: 3 }
    out_of_vocabulary: ERROR
  }
  tables { name: "item" rows: 3 dim: 1 }
  features { name: "item" scope: CANDIDATE kind: ID id_map: "item" }
  features { name: "hist" scope: SEQUENCE sequence: "hist" kind: ID id_map: "item" }
  sequences { name: "hist" max_length: 10 keep: KEEP_LAST invalid: DROP }
  slots {
    name: "item"
    embed { feature: "item" table: "item" }
  }
  slots {
    name: "hist"
    embed { feature: "hist" table: "item" }
  }
  attentions {
    name: "interest"
    sequence: "hist"
    query: "item"
    key: "hist"
    query_width: QUERY_WIDTH_EQUAL
    input: [ Q, K, Q_MINUS_K, Q_TIMES_K ]
    layers {
      units: 1
      bias: true
      activation { kind: RELU }
    }
    out_bias: true
    out_activation: NONE
    scale: SCALE_NONE
    normalise: NORMALISE_NONE
    empty: EMPTY_ZERO
  }
  tower {
    input { a { name: "interest" } }
    input { a { name: "item" } }
    input {
      a { name: "interest" }
      b { name: "item" }
    }
    head_bias: true
    classes: 1
  }
)pb";

class ReferenceTest : public ::testing::Test {
 protected:
  ReferenceTest() {
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(kSpec, &model_.spec));
    Add("table.item", {3, 1}, {1, 2, -1});
    Add("att0.l0.w", {1, 4}, {0.5, -1, 1, 0.25});
    Add("att0.l0.b", {1}, {0.5});
    Add("att0.out.w", {1, 1}, {0.5});
    Add("att0.out.b", {1}, {-0.25});
    Add("head.w", {1, 3}, {1, 0.5, -0.5});
    Add("head.b", {1}, {0.25});
    input_.candidates = 1;
    input_.columns.resize(2);
    input_.columns[0].rows = {1};
    input_.columns[1].rows = {0, 2};
    input_.sequences.resize(1);
    input_.sequences[0].positions = {0, 1};
  }

  void Add(const std::string& name, std::initializer_list<int64_t> shape, std::initializer_list<double> values,
           DataType type = DataType::kF32) {
    model_.tensors.erase(name);
    model_.AddWeights(name, shape, std::vector<double>(values), type);
  }

  v1::Attention& attention() { return *model_.spec.mutable_attentions(0); }
  v1::Layer& layer() { return *attention().mutable_layers(0); }
  v1::Tower& tower() { return *model_.spec.mutable_tower(); }

  reference::Scores<double> Scores() {
    const auto scores = Score();
    EXPECT_TRUE(scores.ok()) << scores.status();
    return scores.ok() ? *scores : reference::Scores<double>{{NAN, NAN}, {NAN, NAN}, {{NAN, NAN}}};
  }

  absl::StatusOr<reference::Scores<double>> Score() {
    const auto resolved = ResolveSpec(model_.spec);
    if (!resolved.ok()) return resolved.status();
    return reference::Score<double>(*resolved, model_.tensors, input_);
  }

  // What the model says when the unit's hidden layer gives h(x) instead of max(x, 0); x is 2 and 5.
  template <typename Hidden>
  static double LogitOfHidden(Hidden h) {
    double interest = 0;
    const double x[] = {2, 5};
    for (int j = 0; j < 2; ++j) interest += (0.5 * h(x[j]) - 0.25) * kKeys[j];
    return Logit(interest);
  }

  RawModel model_;
  ScoringInput input_;
};

TEST_F(ReferenceTest, DinByHand) {
  const auto scores = Scores();
  // interest = 0.75 * 1 + 2.25 * -1 = -1.5;  logit = -1.5 + 0.5*2 - 0.5*(-1.5*2) + 0.25 = 1.25
  EXPECT_DOUBLE_EQ(scores.logits[0], 1.25);
  EXPECT_DOUBLE_EQ(scores.scores[0], 0.77729986117469115);
  EXPECT_EQ(scores.weights[0], (std::vector<double>{0.75, 2.25}));
}

TEST_F(ReferenceTest, EachCandidateIsScoredByItself) {
  input_.candidates = 2;
  input_.columns[0].rows = {2, 1};  // q = -1, then the one above
  const auto scores = Scores();
  // q = -1, k = 1: -0.5 - 1 - 2 - 0.25 + 0.5 < 0 -> -0.25;  k = -1: -0.5 + 1 + 0 + 0.25 + 0.5 = 1.25 -> 0.375
  // interest = -0.25 - 0.375 = -0.625;  logit = -0.625 - 0.5 - 0.5*0.625 + 0.25
  EXPECT_DOUBLE_EQ(scores.logits[0], -1.1875);
  EXPECT_DOUBLE_EQ(scores.logits[1], 1.25);
  EXPECT_EQ(scores.weights[0], (std::vector<double>{-0.25, 0.375, 0.75, 2.25}));
}

TEST_F(ReferenceTest, SoftmaxOverThePositions) {
  attention().set_normalise(v1::Attention::NORMALISE_SOFTMAX);
  const double first = std::exp(kScores[0]) / (std::exp(kScores[0]) + std::exp(kScores[1]));
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(first - (1 - first)));
  EXPECT_DOUBLE_EQ(Scores().weights[0][0], first);
}

TEST_F(ReferenceTest, SigmoidOfEachScore) {
  attention().set_normalise(v1::Attention::NORMALISE_SIGMOID);
  const double expected = Logit(Sigmoid(kScores[0]) - Sigmoid(kScores[1]));
  EXPECT_DOUBLE_EQ(Scores().logits[0], expected);
  attention().set_normalise(v1::Attention::NORMALISE_NONE);
  attention().set_out_activation(v1::Activation::SIGMOID);
  EXPECT_DOUBLE_EQ(Scores().logits[0], expected);
}

// The key twice: width 2, so the scores are divided by sqrt(2); the query is filled up with a zero.
TEST_F(ReferenceTest, ScaleAndZeroPaddedQuery) {
  attention().add_key("hist");
  attention().set_query_width(v1::Attention::QUERY_WIDTH_ZERO_PAD);
  attention().set_scale(v1::Attention::SCALE_INVERSE_SQRT_WIDTH);
  // [q, 0 | k, k | q - k, -k | q k, 0]; the new columns weigh 0 but the -k, which weighs 1.
  Add("att0.l0.w", {1, 8}, {0.5, 0, -1, 0, 1, 1, 0.25, 0});
  tower().mutable_input(0)->mutable_a()->set_end(1);
  tower().mutable_input(2)->mutable_a()->set_begin(1);
  tower().mutable_input(2)->mutable_a()->set_end(2);
  // k = 1: 2 - 1 = 1 -> 0.25;  k = -1: 5 + 1 = 6 -> 2.75
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit((0.25 - 2.75) / std::sqrt(2.0)));
}

TEST_F(ReferenceTest, NoBehaviours) {
  input_.columns[1].rows = {};
  input_.sequences[0] = {.sent = 0, .positions = {}, .empty = true};
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(0));
  EXPECT_TRUE(Scores().weights[0].empty());
}

TEST_F(ReferenceTest, EmptyIsTheMeanOfAllPositions) {
  attention().set_normalise(v1::Attention::NORMALISE_SOFTMAX);
  attention().set_empty(v1::Attention::EMPTY_POSITIONS_MEAN);
  constexpr uint32_t kPad = ScoringInput::kPaddingPosition;
  input_.columns[1].rows = {1, 1, 2, 2};  // two masked behaviours and two positions of padding
  input_.sequences[0] = {.sent = 2, .positions = {0, 1, kPad, kPad}, .empty = true};
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit((2.0 + 2.0 - 1.0 - 1.0) / 4));
}

TEST_F(ReferenceTest, PostIsAppliedToAnEmptyHistoryToo) {
  v1::Attention::Post& post = *attention().mutable_post();
  post.mutable_bn()->set_eps(1);
  post.mutable_bn()->set_affine(true);
  post.set_units(1);
  post.set_bias(true);
  Add("att0.post.bn.mean", {1}, {0.5});
  Add("att0.post.bn.var", {1}, {3});
  Add("att0.post.bn.gamma", {1}, {2});
  Add("att0.post.bn.beta", {1}, {0.25});
  Add("att0.post.w", {1, 1}, {4});
  Add("att0.post.b", {1}, {-1});
  const auto apply = [](double x) { return 4 * ((x - 0.5) / 2 * 2 + 0.25) - 1; };
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(apply(-1.5)));
  input_.columns[1].rows = {};
  input_.sequences[0] = {.sent = 0, .positions = {}, .empty = true};
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(apply(0)));
}

TEST_F(ReferenceTest, DiceWithStoredStatistics) {
  layer().mutable_activation()->set_kind(v1::Activation::DICE);
  v1::Dice& dice = *layer().mutable_activation()->mutable_dice();
  dice.set_statistics(v1::Dice::RUNNING);
  dice.set_eps(1);
  dice.set_affine(true);
  dice.set_slope(true);
  dice.set_alpha(v1::Dice::ALPHA_TENSOR);
  Add("att0.l0.act.mean", {1}, {1});
  Add("att0.l0.act.var", {1}, {3});
  Add("att0.l0.act.gamma", {1}, {0.5});
  Add("att0.l0.act.beta", {1}, {0.125});
  Add("att0.l0.act.slope", {1}, {3});
  Add("att0.l0.act.alpha", {1}, {0.25});
  const auto f = [](double x) {
    const double p = Sigmoid(3 * ((x - 1) / 2 * 0.5 + 0.125));  // sqrt(3 + 1) = 2
    return p * x + (1 - p) * 0.25 * x;
  };
  EXPECT_DOUBLE_EQ(Scores().logits[0], LogitOfHidden(f));
}

// Two units that see x and 3 x - 1 for x = 2 and 5; the row's mean and sum decide.
TEST_F(ReferenceTest, DiceOverTheUnitsOfARow) {
  layer().set_units(2);
  layer().mutable_activation()->set_kind(v1::Activation::DICE);
  v1::Dice& dice = *layer().mutable_activation()->mutable_dice();
  dice.set_statistics(v1::Dice::PER_ROW);
  dice.set_eps(0.25);
  dice.set_alpha(v1::Dice::ALPHA_TENSOR);
  Add("att0.l0.w", {2, 4}, {0.5, -1, 1, 0.25, 1.5, -3, 3, 0.75});
  Add("att0.l0.b", {2}, {0.5, 0.5});
  Add("att0.l0.act.alpha", {1}, {0.5});
  Add("att0.out.w", {1, 2}, {0.5, 0.125});
  double interest = 0;
  const double x[] = {2, 5};
  for (int j = 0; j < 2; ++j) {
    const double u = x[j];
    const double v = 3 * x[j] - 1;
    const double mean = (u + v) / 2;
    const double root = std::sqrt((u - mean) * (u - mean) + (v - mean) * (v - mean) + 2 * 0.25);
    const auto f = [&](double s) {
      const double p = Sigmoid((s - mean) / root);
      return p * s + (1 - p) * 0.5 * s;
    };
    interest += (0.5 * f(u) + 0.125 * f(v) - 0.25) * kKeys[j];
  }
  EXPECT_NEAR(Scores().logits[0], Logit(interest), 1e-14);
}

TEST_F(ReferenceTest, DiceWithoutStatisticsAndSiluAgree) {
  layer().mutable_activation()->set_kind(v1::Activation::DICE);
  layer().mutable_activation()->mutable_dice()->set_statistics(v1::Dice::IDENTITY);
  layer().mutable_activation()->mutable_dice()->set_alpha(v1::Dice::ALPHA_CONSTANT);
  const double expected = LogitOfHidden([](double x) { return x * Sigmoid(x); });
  EXPECT_DOUBLE_EQ(Scores().logits[0], expected);
  layer().mutable_activation()->clear_dice();
  layer().mutable_activation()->set_kind(v1::Activation::SILU);
  EXPECT_DOUBLE_EQ(Scores().logits[0], expected);
}

TEST_F(ReferenceTest, SimpleActivations) {
  // -(x - 3): 1 for the first behaviour and -2 for the second.
  Add("att0.l0.w", {1, 4}, {-0.5, 1, -1, -0.25});
  Add("att0.l0.b", {1}, {2.5});
  Add("att0.l0.act.alpha", {1}, {0.125});
  const auto expect = [&](v1::Activation::Kind kind, double at_1, double at_minus_2) {
    layer().mutable_activation()->set_kind(kind);
    EXPECT_DOUBLE_EQ(Scores().logits[0], Logit((0.5 * at_1 - 0.25) - (0.5 * at_minus_2 - 0.25)))
        << v1::Activation::Kind_Name(kind);
  };
  expect(v1::Activation::NONE, 1, -2);
  expect(v1::Activation::RELU, 1, 0);
  expect(v1::Activation::SIGMOID, Sigmoid(1), Sigmoid(-2));
  expect(v1::Activation::TANH, std::tanh(1), std::tanh(-2));
  expect(v1::Activation::PRELU, 1, -0.25);
  layer().mutable_activation()->set_leaky_slope(0.25);
  expect(v1::Activation::LEAKY_RELU, 1, -0.5);
}

TEST_F(ReferenceTest, BatchNormBeforeAndAfterTheActivation) {
  layer().mutable_bn()->set_eps(1);
  layer().mutable_out_bn()->set_eps(1);
  layer().mutable_out_bn()->set_affine(true);
  Add("att0.l0.bn.mean", {1}, {3});
  Add("att0.l0.bn.var", {1}, {3});
  Add("att0.l0.out_bn.mean", {1}, {0.5});
  Add("att0.l0.out_bn.var", {1}, {15});
  Add("att0.l0.out_bn.gamma", {1}, {-2});
  Add("att0.l0.out_bn.beta", {1}, {0.75});
  // x = 2: (2 - 3) / 2 -> ReLU 0;  x = 5: (5 - 3) / 2 = 1
  EXPECT_DOUBLE_EQ(Scores().logits[0], LogitOfHidden([](double x) { return ((x > 3 ? 1 : 0) - 0.5) / 4 * -2 + 0.75; }));
}

TEST_F(ReferenceTest, TwoClassesAreTheSoftmaxOfThePositiveOne) {
  tower().set_classes(2);
  tower().set_positive_class(0);
  Add("head.w", {2, 3}, {1, 0.5, -0.5, 0.25, 0, 0});
  Add("head.b", {2}, {0.25, 1});
  const double other = 0.25 * -1.5 + 1;
  EXPECT_DOUBLE_EQ(Scores().scores[0], std::exp(1.25) / (std::exp(1.25) + std::exp(other)));
  tower().set_positive_class(1);
  EXPECT_DOUBLE_EQ(Scores().scores[0], std::exp(other) / (std::exp(1.25) + std::exp(other)));
}

TEST_F(ReferenceTest, BiasesAddToTheLogit) {
  tower().set_global_bias(true);
  v1::Tower::IdBias& bias = *tower().add_id_biases();
  bias.set_feature("item");
  bias.set_table("item");  // item 1: 2
  Add("bias.global", {1}, {-0.5});
  EXPECT_DOUBLE_EQ(Scores().logits[0], 1.25 - 0.5 + 2);
}

TEST_F(ReferenceTest, UnknownIdIsAVectorOfZeros) {
  input_.columns[0].rows = {kZeroRow};
  // q = 0: k = 1: -1 - 1 + 0.5 < 0 -> -0.25;  k = -1: 1 + 1 + 0.5 = 2.5 -> 1;  interest = -0.25 - 1
  EXPECT_DOUBLE_EQ(Scores().logits[0], -1.25 + 0.25);
}

TEST_F(ReferenceTest, TablesInSixteenBits) {
  for (DataType type : {DataType::kF16, DataType::kBF16}) {
    Add("table.item", {3, 1}, {1, 2, -1}, type);
    EXPECT_DOUBLE_EQ(Scores().logits[0], 1.25) << Name(type);
  }
  Add("table.item", {3, 1}, {1, std::ldexp(3, -24), -1}, DataType::kF16);  // subnormal
  attention().set_normalise(v1::Attention::NORMALISE_SOFTMAX);
  tower().mutable_input()->DeleteSubrange(0, 1);
  tower().mutable_input()->DeleteSubrange(1, 1);
  Add("head.w", {1, 1}, {std::ldexp(1, 24)});
  EXPECT_DOUBLE_EQ(Scores().logits[0], 3.25);
}

TEST_F(ReferenceTest, TablesInEightBits) {
  Add("table.item", {3, 1}, {127, 2 * 127, -127}, DataType::kI8);  // -> 127 times 1, 2 and 1, the last negative
  std::span<float> scales = model_.Floats("table.item.scale");
  EXPECT_EQ(std::vector<float>(scales.begin(), scales.end()), (std::vector<float>{1, 2, 1}));
  for (float& scale : scales) scale /= 127;  // as floats: 127 * float(1 / 127) rounds to 1
  EXPECT_DOUBLE_EQ(Scores().logits[0], 1.25);
  model_.tensors.erase("table.item.scale");
  EXPECT_EQ(Score().status().message(), "tensor table.item.scale: missing");
}

// A table that is a window on a tensor: rows 2, 3, 4 of it.
TEST_F(ReferenceTest, TableIsAWindow) {
  model_.tensors.erase("table.item");
  model_.spec.mutable_tables(0)->set_tensor("shared");
  model_.spec.mutable_tables(0)->set_row_offset(2);
  Add("shared", {6, 1}, {50, 60, 1, 2, -1, 70});
  EXPECT_DOUBLE_EQ(Scores().logits[0], 1.25);
}

TEST_F(ReferenceTest, SumAndMeanOfTheSequence) {
  v1::SequencePool& pool = *model_.spec.add_sequence_pools();
  pool.set_name("pool");
  pool.set_sequence("hist");
  pool.add_key("hist");
  tower().mutable_input(0)->mutable_a()->set_name("pool");
  tower().mutable_input(2)->mutable_a()->set_name("pool");
  input_.columns[1].rows = {0, 1, 1};  // 1 + 2 + 2
  input_.sequences[0].positions = {0, 1, 2};
  pool.set_kind(v1::SequencePool::SUM);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(5));
  pool.set_kind(v1::SequencePool::MEAN);
  pool.set_divisor_epsilon(0.5);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(5 / 3.5));
  input_.sequences[0].empty = true;
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(0));
}

// Beside the candidate's vector 2: a user's with 3, and the sum of the behaviours' 1 and -1.
class InteractionTest : public ReferenceTest {
 protected:
  InteractionTest() {
    v1::Feature& user = *model_.spec.add_features();
    user.set_name("user");
    user.set_scope(v1::USER);
    user.set_kind(v1::DENSE);
    user.set_width(1);
    v1::Slot& slot = *model_.spec.add_slots();
    slot.set_name("user");
    slot.mutable_dense()->set_feature("user");
    v1::SequencePool& pool = *model_.spec.add_sequence_pools();
    pool.set_name("sum");
    pool.set_sequence("hist");
    pool.add_key("hist");
    pool.set_kind(v1::SequencePool::SUM);
    input_.columns.resize(3);
    input_.columns[1].rows = {0, 1};  // 1 and 2
    input_.columns[2].values = {3};
    interaction().set_name("pairs");
    for (const char* name : {"user", "item", "sum"}) interaction().add_vectors()->set_name(name);
  }

  v1::Interaction& interaction() {
    if (model_.spec.interactions().empty()) model_.spec.add_interactions();
    return *model_.spec.mutable_interactions(0);
  }

  // What is left is the wide part.
  void WithoutTower() {
    model_.spec.clear_attentions();
    tower().clear_input();
    tower().clear_head_bias();
  }
};

TEST_F(InteractionTest, FactorisationMachineByHand) {
  WithoutTower();
  interaction().set_kind(v1::Interaction::BI_INTERACTION);
  for (const char* name : {"user", "item", "sum", "pairs"}) tower().add_wide()->set_name(name);
  // user 3, item 2, sum 1 + 2 = 3; pairs 3*2 + 3*3 + 2*3 = 21 = 0.5 ((3 + 2 + 3)^2 - 9 - 4 - 9)
  EXPECT_DOUBLE_EQ(Scores().logits[0], 3 + 2 + 3 + 21);
  tower().set_global_bias(true);
  Add("bias.global", {1}, {-9});
  EXPECT_DOUBLE_EQ(Scores().logits[0], 3 + 2 + 3 + 21 - 9);
}

TEST_F(InteractionTest, InnerProductsComeInTheOrderOfThePairs) {
  WithoutTower();
  interaction().set_kind(v1::Interaction::INNER_PRODUCTS);
  tower().add_input()->mutable_a()->set_name("pairs");
  Add("head.w", {1, 3}, {1, 100, 10'000});
  EXPECT_DOUBLE_EQ(Scores().logits[0], 1 * (3 * 2) + 100 * (3 * 3) + 10'000 * (2 * 3));
}

TEST_F(InteractionTest, ElementsOfAVectorAreAddedToTheTower) {
  Add("table.item", {3, 1}, {1, 2, -1});
  input_.columns[1].rows = {0, 2};
  interaction().set_kind(v1::Interaction::INNER_PRODUCTS);
  v1::VectorRef& wide = *tower().add_wide();
  wide.set_name("pairs");
  wide.set_begin(0);
  wide.set_end(2);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(-1.5) + 3 * 2 + 3 * 0);
}

TEST_F(ReferenceTest, PreTowerRunsBeforeTheConcat) {
  v1::PreTower& pre = *model_.spec.add_pre_towers();
  pre.set_name("pre");
  pre.add_input()->mutable_a()->set_name("item");
  pre.mutable_in_bn()->set_eps(1);
  v1::Layer& pre_layer = *pre.add_layers();
  pre_layer.set_units(1);
  pre_layer.mutable_activation()->set_kind(v1::Activation::RELU);
  Add("pre0.in_bn.mean", {1}, {1});
  Add("pre0.in_bn.var", {1}, {3});
  Add("pre0.l0.w", {1, 1}, {6});
  tower().mutable_input(0)->mutable_a()->set_name("pre");
  tower().mutable_input(2)->mutable_a()->set_name("pre");
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(6 * (2.0 - 1) / 2));
}

// A list of the user (items 0, 1, 1 and a padding id) and a number, in place of the interest.
TEST_F(ReferenceTest, PooledListsAndScaledVectors) {
  v1::Feature& list = *model_.spec.add_features();
  list.set_name("list");
  list.set_scope(v1::USER);
  list.set_kind(v1::ID_LIST);
  list.set_id_map("item");
  list.mutable_padding()->set_id(2);
  v1::Feature& number = *model_.spec.add_features();
  number.set_name("number");
  number.set_scope(v1::USER);
  number.set_kind(v1::DENSE);
  number.set_width(1);
  v1::Slot& slot = *model_.spec.add_slots();
  slot.set_name("slot");
  for (int i : {0, 2}) tower().mutable_input(i)->mutable_a()->set_name("slot");
  input_.columns.resize(4);
  input_.columns[2].rows = {0, 1, 1, 2};
  input_.columns[2].offsets = {0, 4};
  input_.columns[2].is_padding = {0, 0, 0, 1};
  input_.columns[3].values = {0.5f};

  v1::Slot::Pool& pool = *slot.mutable_pool();
  pool.set_feature("list");
  pool.set_table("item");
  pool.set_empty_value(7);
  pool.set_kind(v1::Slot::Pool::MAX);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(2));
  pool.set_kind(v1::Slot::Pool::SUM);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(1 + 2 + 2 - 1));
  pool.set_skip_padding(true);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(1 + 2 + 2));
  pool.set_kind(v1::Slot::Pool::MEAN);
  pool.set_divisor_epsilon(0.5);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit((1 + 2 + 2) / 3.5));
  input_.columns[2].is_padding = {1, 1, 1, 1};
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(7));
  pool.set_kind(v1::Slot::Pool::SUM);
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(0));

  v1::Slot::Scaled& scaled = *slot.mutable_scaled();
  scaled.set_value("number");
  scaled.set_table("item");
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(0.5 * 1));  // row 0
  slot.mutable_dense()->set_feature("number");
  EXPECT_DOUBLE_EQ(Scores().logits[0], Logit(0.5));
}

TEST_F(ReferenceTest, MissingTensorIsNamed) {
  model_.tensors.erase("att0.out.w");
  const auto scores = Score();
  EXPECT_EQ(scores.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(scores.status().message().find("att0.out.w"), absl::string_view::npos) << scores.status();
}

}  // namespace
}  // namespace din
