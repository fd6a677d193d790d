// The networks against finite differences and plain loops, in double.
#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "trainer/model_din.h"

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

  // Three samples with 3, 0 and 2 behaviours.
  NetworkInput Input(const DinShape& shape) {
    return {.candidate = torch::randn({3, shape.width()}).set_requires_grad(true),
            .behaviours = torch::randn({5, shape.width()}).set_requires_grad(true),
            .begin = torch::tensor({0, 3, 3, 5}, torch::kLong),
            .owner = torch::tensor({0, 0, 0, 2, 2}, torch::kLong)};
  }

  static constexpr int kSeed = 5;
};

TEST_F(NetworkTest, DiceGradientEqualsFiniteDifferencesThroughTheBatchStatistics) {
  Dice dice(4);
  Tensor s = torch::randn({6, 4}).set_requires_grad(true);
  const Tensor mix = torch::randn({6, 4});
  {
    const torch::NoGradGuard no_gradients;
    dice->alpha.copy_(torch::randn({4}));
  }
  const auto loss = [&] { return (dice(s) * mix).sum(); };
  loss().backward();
  ExpectGradient(loss, s, s.grad(), "s");
  ExpectGradient(loss, dice->alpha, dice->alpha.grad(), "alpha");
}

TEST_F(NetworkTest, DiceTrainsOnTheBatchAndEvaluatesOnMovingAverages) {
  Dice dice(1);
  const Tensor s = torch::tensor({{1.0}, {2.0}, {6.0}});
  const double mean = 3, var = 14.0 / 3;  // of the batch, as the paper's formula takes them
  const Tensor trained = dice(s);
  for (int i = 0; i < 3; ++i) {
    const double x = s[i].item<double>();
    EXPECT_NEAR(trained[i].item<double>(), x / (1 + std::exp(-(x - mean) / std::sqrt(var + kDiceEps))), 1e-12);
  }
  for (int step = 0; step < 3000; ++step) dice(s);
  EXPECT_NEAR(dice->mean.item<double>(), mean, 1e-6);
  dice->eval();
  const double x = 2.5, running_mean = dice->mean.item<double>(), running_var = dice->var.item<double>();
  EXPECT_NEAR(dice(torch::tensor({{x}})).item<double>(),
              x / (1 + std::exp(-(x - running_mean) / std::sqrt(running_var + kDiceEps))), 1e-12);
  EXPECT_EQ(dice->mean.item<double>(), running_mean);
}

TEST_F(NetworkTest, DiceOfOneRowStaysFinite) {
  Dice dice(3);
  EXPECT_TRUE(torch::isfinite(dice(torch::randn({1, 3}))).all().item<bool>());
  EXPECT_TRUE(torch::isfinite(dice->var).all().item<bool>());
}

TEST_F(NetworkTest, GradientsEqualFiniteDifferences) {
  for (Activation activation : {Activation::kDice, Activation::kPRelu}) {
    const DinShape shape{.dim = 2, .attention = {3}, .tower = {4, 3}, .activation = activation, .product = true};
    Din din(shape);
    NetworkInput input = Input(shape);
    const Tensor labels = torch::tensor({1.0, 0.0, 1.0});
    const auto loss = [&] {
      return torch::binary_cross_entropy_with_logits(din(input), labels, {}, {}, at::Reduction::Mean);
    };
    loss().backward();
    ExpectGradient(loss, input.candidate, input.candidate.grad(), "candidate");
    ExpectGradient(loss, input.behaviours, input.behaviours.grad(), "behaviours");
    for (const auto& parameter : din->named_parameters()) {
      ExpectGradient(loss, parameter.value(), parameter.value().grad(), parameter.key().c_str());
    }
  }
}

TEST_F(NetworkTest, InterestIsTheSumWeighedByTheActivationUnitOfQKDifferenceAndProduct) {
  const DinShape shape{.dim = 2, .attention = {3, 2}, .tower = {4}};
  Din din(shape);
  din->eval();
  const NetworkInput input = Input(shape);
  const Tensor interest = din->Interest(input);
  for (int64_t sample = 0; sample < 3; ++sample) {
    Tensor sum = torch::zeros({shape.width()});
    for (int64_t j = input.begin[sample].item<int64_t>(); j < input.begin[sample + 1].item<int64_t>(); ++j) {
      const Tensor q = input.candidate[sample];
      const Tensor k = input.behaviours[j];
      const Tensor weight = din->attention_out(din->attention(torch::cat({q, k, q - k, q * k}).unsqueeze(0)));
      sum += weight.squeeze() * k;
    }
    EXPECT_TRUE(torch::allclose(interest[sample], sum, 1e-12, 1e-12)) << "sample " << sample;
  }
}

TEST_F(NetworkTest, NoBehavioursAtAllIsNoInterest) {
  const DinShape shape{.dim = 2};
  Din din(shape);
  const NetworkInput input{.candidate = torch::randn({2, shape.width()}),
                           .behaviours = torch::empty({0, shape.width()}),
                           .begin = torch::zeros({3}, torch::kLong),
                           .owner = torch::empty({0}, torch::kLong)};
  EXPECT_EQ(din->Interest(input).abs().sum().item<double>(), 0);
  EXPECT_TRUE(torch::isfinite(din(input)).all().item<bool>());
}

}  // namespace
}  // namespace din
