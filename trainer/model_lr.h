// Logistic regression: a weight for each id in each role, and nothing else.
//
//                 logit
//                   |
//    bias + w[candidate] + pool w[behaviours] + w[user, context]
#pragma once

#include "trainer/network.h"

namespace din {

class Lr : public Network {
 public:
  explicit Lr(const ModelShape& shape) : pooling_(shape.pooling) {
    bias = register_module("bias", std::make_shared<GlobalBias>());
  }

  torch::Tensor forward(const NetworkInput& input) override { return Wide(input, pooling_) + bias->global; }

  class GlobalBias : public torch::nn::Module {
   public:
    GlobalBias() { global = register_parameter("global", torch::zeros({1})); }
    torch::Tensor global;
  };
  std::shared_ptr<GlobalBias> bias;

 private:
  Pooling pooling_;
};

}  // namespace din
