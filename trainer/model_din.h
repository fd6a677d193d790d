// The Deep Interest Network: DIN, section 4.3 and figure 2 (right).
//
//                      logit
//                        |
//                      tower                    layers with Dice or PReLU, then one unit
//                        |
//     [ v_U , v_A (, v_U * v_A) , user , context ]
//        |      |
//    sum w_j e_j |                              no softmax: the sum keeps the intensity of the interest
//        |      |
//    local activation unit: w_j = a(e_j, v_A)
//        |      |
//   behaviours e_j   candidate v_A              each the concatenation of its fields' embeddings
//
// With several behaviour lists there is a unit and a v_U for each.
#pragma once

#include "trainer/network.h"

namespace din {

// a(e, v) of the paper: a small network over a behaviour and the candidate.
class ActivationUnit : public torch::nn::Module {
 public:
  explicit ActivationUnit(const ModelShape& shape)
      : layers(shape.width() * (shape.attention_input == AttentionInput::kProduct ? 3 : 4), shape.attention,
               shape.activation),
        input_(shape.attention_input) {
    // The layers are named as if they were the unit's own: att0.l0.w.
    for (size_t i = 0; i < layers.layers.size(); ++i) register_module("l" + std::to_string(i), layers.layers[i]);
    out = register_module("out", std::make_shared<Linear>(shape.attention.back(), 1));
    // At first every behaviour counts fully, as in BaseModel's sum; what to leave out is learnt.
    const torch::NoGradGuard no_gradients;
    out->b.fill_(1);
  }

  // a(e_j, v_A) of every behaviour [P, D] with the candidate [B, D] of its sample, [P]. The unit's input is
  // [q, k, q - k, q * k] or [q, k, q * k]; its first Linear is taken apart, W q + V k + U (q - k) + P (q * k) =
  // (W + U) q + (V - U) k + P (q * k), so that the part of q is computed once a sample and nothing four times as wide
  // as a behaviour is ever written.
  torch::Tensor forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& owner) {
    const Linear& first = *layers.layers[0];
    torch::Tensor of_q, of_k, of_product;
    if (input_ == AttentionInput::kWithDifference) {
      const std::vector<torch::Tensor> w = first.w.chunk(4, /*dim=*/1);
      of_q = w[0] + w[2];
      of_k = w[1] - w[2];
      of_product = w[3];
    } else {
      const std::vector<torch::Tensor> w = first.w.chunk(3, /*dim=*/1);
      of_q = w[0];
      of_k = w[1];
      of_product = w[2];
    }
    torch::Tensor x = torch::embedding(torch::addmm(first.b, q, of_q.t()), owner);
    x = torch::addmm(x, k, of_k.t());
    x = torch::addmm(x, torch::embedding(q, owner) * k, of_product.t());
    return out->forward(layers.AfterFirstLinear(x)).squeeze(1);
  }

  Layers layers;
  std::shared_ptr<Linear> out;

 private:
  AttentionInput input_;
};

class Din : public Network {
 public:
  explicit Din(const ModelShape& shape)
      : tower(*this, shape.width() * (1 + shape.sequences * (shape.product ? 2 : 1)) + shape.side_width(), shape),
        product_(shape.product) {
    for (int64_t s = 0; s < shape.sequences; ++s) {
      attentions.push_back(register_module("att" + std::to_string(s), std::make_shared<ActivationUnit>(shape)));
    }
  }

  torch::Tensor forward(const NetworkInput& input) override {
    const torch::Tensor& candidate = input.embeddings.candidate;
    std::vector<torch::Tensor> x;
    for (size_t s = 0; s < attentions.size(); ++s) x.push_back(Interest(input, s));
    x.push_back(candidate);
    for (size_t s = 0; s < attentions.size() && product_; ++s) x.push_back(x[s] * candidate);
    if (input.embeddings.side.defined()) x.push_back(input.embeddings.side);
    return tower.forward(x);
  }

  // v_U(A) = sum_j a(e_j, v_A) e_j of the s-th behaviour list, [B, D]; zero where there are no behaviours.
  torch::Tensor Interest(const NetworkInput& input, size_t s) {
    const torch::Tensor& keys = input.embeddings.behaviours[s];
    const NetworkInput::Owners& owners = input.sequences[s];
    if (keys.size(0) == 0) return torch::zeros_like(input.embeddings.candidate);
    const torch::Tensor weights = attentions[s]->forward(input.embeddings.candidate, keys, owners.owner);
    return Pool(keys, owners.begin, Pooling::kSum, weights);
  }

  std::vector<std::shared_ptr<ActivationUnit>> attentions;
  Tower tower;

 private:
  bool product_;
};

}  // namespace din
