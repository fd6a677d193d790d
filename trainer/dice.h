// Dice, the data-adaptive activation function: DIN, section 5.3.
#pragma once

#include "trainer/model_shape.h"
#include "trainer/torch.h"

namespace din {

// f(s) = p(s) * s + (1 - p(s)) * alpha * s,  p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps)).
// E and Var are of the mini-batch while training and moving averages of them in evaluation; alpha is learned, one per
// unit. With p a step at 0 instead, it would be PReLU.
class Dice : public torch::nn::Module {
 public:
  static constexpr double kMomentum = 0.01;  // of the moving averages: about the last hundred mini-batches

  explicit Dice(int64_t units) {
    alpha = register_parameter("alpha", torch::zeros({units}));
    mean = register_buffer("mean", torch::zeros({units}));
    var = register_buffer("var", torch::ones({units}));
  }

  // s: [rows, units]. One row has no variance: it is normalised by the moving averages even while training.
  torch::Tensor forward(const torch::Tensor& s) {
    const bool of_batch = is_training() && s.size(0) > 1;
    const torch::Tensor normalised = torch::batch_norm(s, /*weight=*/{}, /*bias=*/{}, mean, var, of_batch, kMomentum,
                                                       kDiceEps, /*cudnn_enabled=*/false);
    const torch::Tensor p = torch::sigmoid(normalised);
    return s * (alpha + (1 - alpha) * p);
  }

  torch::Tensor alpha;
  torch::Tensor mean;
  torch::Tensor var;
};

// s for s > 0, else alpha * s; alpha is learned, one per unit.
class PRelu : public torch::nn::Module {
 public:
  explicit PRelu(int64_t units) {
    constexpr double kInitialSlope = 0.25;  // He et al. 2015, section 2.1
    alpha = register_parameter("alpha", torch::full({units}, kInitialSlope));
  }

  torch::Tensor forward(const torch::Tensor& s) { return torch::prelu(s, alpha); }

  torch::Tensor alpha;
};

}  // namespace din
