// The networks against finite differences and plain loops, in double.
#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "trainer/model_deepfm.h"
#include "trainer/model_din.h"
#include "trainer/model_pnn.h"

namespace din {
namespace {

using torch::Tensor;

// `gradient` against central differences of `loss` at every element of `at`, which is changed in place and restored.
void ExpectGradient(const std::function<Tensor()>& loss, Tensor at, const Tensor& gradient, const char* what) {
  const torch::NoGradGuard no_gradients;
  constexpr double kStep = 1e-6;
  Tensor flat = at.view(-1);
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const double x = flat[i].item<double>();
    flat[i] = x + kStep;
    const double above = loss().item<double>();
    flat[i] = x - kStep;
    const double below = loss().item<double>();
    flat[i] = x;
    const double expected = (above - below) / (2 * kStep);
    EXPECT_NEAR(gradient.view(-1)[i].item<double>(), expected, 1e-6 * std::max(1.0, std::abs(expected)))
        << what << "[" << i << "]";
  }
}

class NetworkTest : public ::testing::Test {
 protected:
  NetworkTest() {
    torch::manual_seed(kSeed);
    torch::set_default_dtype(caffe2::TypeMeta::Make<double>());
    RecordProperty("seed", kSeed);
  }
  ~NetworkTest() override { torch::set_default_dtype(caffe2::TypeMeta::Make<float>()); }

  // Three samples with 3, 0 and 2 behaviours in each list.
  static NetworkInput Input(const ModelShape& shape) {
    const auto vectors = [&](int64_t n) {
      NetworkInput::Vectors v{.candidate = torch::randn({3, shape.item_fields * n}).set_requires_grad(true)};
      for (int64_t s = 0; s < shape.sequences; ++s) {
        v.behaviours.push_back(torch::randn({5, shape.item_fields * n}).set_requires_grad(true));
      }
      if (shape.side_fields > 0) v.side = torch::randn({3, shape.side_fields * n}).set_requires_grad(true);
      return v;
    };
    NetworkInput input;
    if (shape.has_embeddings()) input.embeddings = vectors(shape.dim);
    if (shape.has_wide()) input.wide = vectors(1);
    for (int64_t s = 0; s < shape.sequences; ++s) {
      input.sequences.push_back(
          {.begin = torch::tensor({0, 3, 3, 5}, torch::kLong), .owner = torch::tensor({0, 0, 0, 2, 2}, torch::kLong)});
    }
    return input;
  }

  static constexpr int kSeed = 5;
};

TEST_F(NetworkTest, DiceGradientEqualsFiniteDifferencesThroughTheBatchStatistics) {
  Dice dice(4);
  Tensor s = torch::randn({6, 4}).set_requires_grad(true);
  const Tensor mix = torch::randn({6, 4});
  {
    const torch::NoGradGuard no_gradients;
    dice.alpha.copy_(torch::randn({4}));
  }
  const auto loss = [&] { return (dice.forward(s) * mix).sum(); };
  loss().backward();
  ExpectGradient(loss, s, s.grad(), "s");
  ExpectGradient(loss, dice.alpha, dice.alpha.grad(), "alpha");
}

TEST_F(NetworkTest, DiceTrainsOnTheBatchAndEvaluatesOnMovingAverages) {
  Dice dice(1);
  const Tensor s = torch::tensor({{1.0}, {2.0}, {6.0}});
  const double mean = 3, var = 14.0 / 3;  // of the batch, as the paper's formula takes them
  const Tensor trained = dice.forward(s);
  for (int i = 0; i < 3; ++i) {
    const double x = s[i].item<double>();
    EXPECT_NEAR(trained[i].item<double>(), x / (1 + std::exp(-(x - mean) / std::sqrt(var + kDiceEps))), 1e-12);
  }
  for (int step = 0; step < 3000; ++step) dice.forward(s);
  EXPECT_NEAR(dice.mean.item<double>(), mean, 1e-6);
  dice.eval();
  const double x = 2.5, running_mean = dice.mean.item<double>(), running_var = dice.var.item<double>();
  EXPECT_NEAR(dice.forward(torch::tensor({{x}})).item<double>(),
              x / (1 + std::exp(-(x - running_mean) / std::sqrt(running_var + kDiceEps))), 1e-12);
  EXPECT_EQ(dice.mean.item<double>(), running_mean);
}

TEST_F(NetworkTest, DiceOfOneRowStaysFinite) {
  Dice dice(3);
  EXPECT_TRUE(torch::isfinite(dice.forward(torch::randn({1, 3}))).all().item<bool>());
  EXPECT_TRUE(torch::isfinite(dice.var).all().item<bool>());
}

void ExpectGradients(const std::function<Tensor()>& loss, const NetworkInput::Vectors& vectors, const char* what) {
  if (vectors.candidate.defined()) ExpectGradient(loss, vectors.candidate, vectors.candidate.grad(), what);
  for (const Tensor& list : vectors.behaviours) ExpectGradient(loss, list, list.grad(), what);
  if (vectors.side.defined()) ExpectGradient(loss, vectors.side, vectors.side.grad(), what);
}

TEST_F(NetworkTest, GradientsOfEveryModelEqualFiniteDifferences) {
  for (const Model model : {Model::kLr, Model::kBase, Model::kWideDeep, Model::kPnn, Model::kDeepFm, Model::kDin}) {
    for (const Activation activation : {Activation::kDice, Activation::kPRelu}) {
      SCOPED_TRACE(static_cast<int>(model));
      const bool dice = activation == Activation::kDice;
      const ModelShape shape{.model = model,
                             .dim = 2,
                             .attention = {3},
                             .tower = {4, 3},
                             .activation = activation,
                             .attention_input = dice ? AttentionInput::kWithDifference : AttentionInput::kProduct,
                             .product = dice,
                             .pooling = dice ? Pooling::kMean : Pooling::kSum,
                             .side_fields = dice ? 1 : 0,
                             .sequences = dice ? 2 : 1};
      const std::shared_ptr<Network> network = MakeNetwork(shape);
      const NetworkInput input = Input(shape);
      const Tensor labels = torch::tensor({1.0, 0.0, 1.0});
      const auto loss = [&] {
        return torch::binary_cross_entropy_with_logits(network->forward(input), labels, {}, {}, at::Reduction::Mean);
      };
      loss().backward();
      ExpectGradients(loss, input.embeddings, "embeddings");
      ExpectGradients(loss, input.wide, "wide");
      for (const auto& parameter : network->named_parameters()) {
        ExpectGradient(loss, parameter.value(), parameter.value().grad(), parameter.key().c_str());
      }
    }
  }
}

TEST_F(NetworkTest, InterestIsTheSumWeighedByTheActivationUnit) {
  for (const AttentionInput pieces : {AttentionInput::kWithDifference, AttentionInput::kProduct}) {
    const ModelShape shape{.dim = 2, .attention = {3, 2}, .tower = {4}, .attention_input = pieces};
    Din din(shape);
    din.eval();
    const NetworkInput input = Input(shape);
    const Tensor interest = din.Interest(input, 0);
    const Tensor& begin = input.sequences[0].begin;
    ActivationUnit& unit = *din.attentions[0];
    for (int64_t sample = 0; sample < 3; ++sample) {
      Tensor sum = torch::zeros({shape.width()});
      for (int64_t j = begin[sample].item<int64_t>(); j < begin[sample + 1].item<int64_t>(); ++j) {
        const Tensor q = input.embeddings.candidate[sample];
        const Tensor k = input.embeddings.behaviours[0][j];
        const Tensor x =
            pieces == AttentionInput::kWithDifference ? torch::cat({q, k, q - k, q * k}) : torch::cat({q, k, q * k});
        sum += unit.out->forward(unit.layers.forward(x.unsqueeze(0))).squeeze() * k;
      }
      EXPECT_TRUE(torch::allclose(interest[sample], sum, 1e-12, 1e-12)) << "sample " << sample;
    }
  }
}

TEST_F(NetworkTest, NoBehavioursAtAllIsNoInterest) {
  const ModelShape shape{.dim = 2};
  Din din(shape);
  NetworkInput input = Input(shape);
  input.embeddings.behaviours[0] = torch::empty({0, shape.width()});
  input.sequences[0] = {.begin = torch::zeros({4}, torch::kLong), .owner = torch::empty({0}, torch::kLong)};
  EXPECT_EQ(din.Interest(input, 0).abs().sum().item<double>(), 0);
  EXPECT_TRUE(torch::isfinite(din.forward(input)).all().item<bool>());
}

// DeepFM's second-order term is written as half the square of the sum less the squares; here pair by pair.
TEST_F(NetworkTest, DeepFmAddsTheInnerProductOfEveryPairAndEveryWeight) {
  const ModelShape shape{.model = Model::kDeepFm, .dim = 3, .tower = {4}, .side_fields = 1};
  DeepFm deepfm(shape);
  deepfm.eval();
  const NetworkInput input = Input(shape);
  const auto& e = input.embeddings;
  for (int64_t sample : {0, 1, 2}) {
    const int64_t begin = sample == 2 ? 3 : 0, count = sample == 0 ? 3 : sample == 1 ? 0 : 2;
    const auto mean = [&](const Tensor& list) {
      return count == 0 ? torch::zeros({list.size(1)}) : list.narrow(0, begin, count).mean(0);
    };
    const Tensor all = torch::cat({e.candidate[sample], mean(e.behaviours[0]), e.side[sample]});
    Tensor logit = deepfm.tower.forward({all.unsqueeze(0)}).squeeze();
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = i + 1; j < 5; ++j) logit = logit + all.narrow(0, 3 * i, 3).dot(all.narrow(0, 3 * j, 3));
    }
    logit = logit + input.wide.candidate[sample].sum() + mean(input.wide.behaviours[0]).sum() +
            input.wide.side[sample].sum();
    EXPECT_NEAR(deepfm.forward(input)[sample].item<double>(), logit.item<double>(), 1e-12);
  }
}

TEST_F(NetworkTest, PnnShowsTheTowerEveryPairInOrder) {
  const ModelShape shape{.model = Model::kPnn, .dim = 2, .tower = {4}, .pooling = Pooling::kSum};
  Pnn pnn(shape);
  pnn.eval();
  const NetworkInput input = Input(shape);
  const auto& e = input.embeddings;
  const Tensor all = torch::cat({e.candidate[2], e.behaviours[0].narrow(0, 3, 2).sum(0)});
  std::vector<Tensor> x = {all};
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = i + 1; j < 4; ++j) {
      x.push_back(all.narrow(0, 2 * i, 2).dot(all.narrow(0, 2 * j, 2)).unsqueeze(0));
    }
  }
  EXPECT_NEAR(pnn.forward(input)[2].item<double>(), pnn.tower.forward({torch::cat(x).unsqueeze(0)}).item<double>(),
              1e-12);
}

}  // namespace
}  // namespace din
