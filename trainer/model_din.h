// The Deep Interest Network: DIN, section 4.3 and figure 2 (right).
//
//                      logit
//                        |
//                      tower                    layers with Dice or PReLU, then one unit
//                        |
//          [ v_U , v_A (, v_U * v_A) ]
//             |      |
//         sum w_j e_j |                         no softmax: the sum keeps the intensity of the interest
//             |      |
//     local activation unit: w_j = a(e_j, v_A)
//             |      |
//   behaviours e_j   candidate v_A              each the concatenation of its fields' embeddings
#pragma once

#include <string>
#include <vector>

#include "trainer/dice.h"
#include "trainer/din_shape.h"
#include "trainer/torch.h"

namespace din {

// What the network sees of a mini-batch of B samples that have P behaviours in all.
struct NetworkInput {
  torch::Tensor candidate;   // [B, D]
  torch::Tensor behaviours;  // [P, D]
  torch::Tensor begin;       // [B + 1] int64: the behaviours of sample b are [begin[b], begin[b + 1])
  torch::Tensor owner;       // [P] int64: the sample of each behaviour
};

// Linear layers, each followed by the activation.
class LayersImpl : public torch::nn::Module {
 public:
  LayersImpl(int64_t in, const std::vector<int64_t>& units, Activation activation) {
    for (size_t i = 0; i < units.size(); ++i) {
      linears.push_back(register_module("linear" + std::to_string(i), torch::nn::Linear(in, units[i])));
      if (activation == Activation::kDice) {
        dices.push_back(register_module("dice" + std::to_string(i), Dice(units[i])));
      } else {
        constexpr double kInitialSlope = 0.25;  // He et al. 2015, section 2.1
        slopes.push_back(register_parameter("slope" + std::to_string(i), torch::full({units[i]}, kInitialSlope)));
      }
      in = units[i];
    }
  }

  // x: [rows, in].
  torch::Tensor forward(const torch::Tensor& x) { return AfterFirstLinear(linears[0](x)); }

  // What is left when the first Linear has been done: x is its output.
  torch::Tensor AfterFirstLinear(torch::Tensor x) {
    for (size_t i = 0; i < linears.size(); ++i) {
      if (i > 0) x = linears[i](x);
      x = dices.empty() ? torch::prelu(x, slopes[i]) : dices[i](x);
    }
    return x;
  }

  std::vector<torch::nn::Linear> linears;
  std::vector<Dice> dices;            // one per layer, or none
  std::vector<torch::Tensor> slopes;  // one per layer, or none
};
TORCH_MODULE(Layers);

class DinImpl : public torch::nn::Module {
 public:
  explicit DinImpl(const DinShape& shape) : product_(shape.product) {
    const int64_t d = shape.width();
    attention = register_module("attention", Layers(4 * d, shape.attention, shape.activation));
    attention_out = register_module("attention_out", torch::nn::Linear(shape.attention.back(), 1));
    tower = register_module("tower", Layers((shape.product ? 3 : 2) * d, shape.tower, shape.activation));
    head = register_module("head", torch::nn::Linear(shape.tower.back(), 1));
  }

  // [B] logits.
  torch::Tensor forward(const NetworkInput& input) {
    const torch::Tensor interest = Interest(input);
    std::vector<torch::Tensor> x = {interest, input.candidate};
    if (product_) x.push_back(interest * input.candidate);
    return head(tower(torch::cat(x, 1))).squeeze(1);
  }

  // v_U(A) = sum_j a(e_j, v_A) e_j, [B, D]; zero where there are no behaviours.
  torch::Tensor Interest(const NetworkInput& input) {
    const torch::Tensor& keys = input.behaviours;
    if (keys.size(0) == 0) return torch::zeros_like(input.candidate);
    const torch::Tensor weights = ActivationWeights(input);
    // embedding_bag over the keys in their own order is the weighted sum over each sample's stretch of them.
    const torch::Tensor each = torch::arange(keys.size(0), torch::kLong);
    return std::get<0>(torch::embedding_bag(keys, each, input.begin, /*scale_grad_by_freq=*/false, /*mode=sum*/ 0,
                                            /*sparse=*/false, weights, /*include_last_offset=*/true));
  }

  // a(e_j, v_A) of every behaviour with the candidate of its sample, [P]. The unit's input is [q, k, q - k, q * k]; its
  // first Linear is taken apart, W q + V k + U (q - k) + P (q * k) = (W + U) q + (V - U) k + P (q * k), so that the
  // part of q is computed once a sample and nothing four times as wide as a behaviour is ever written.
  torch::Tensor ActivationWeights(const NetworkInput& input) {
    const torch::Tensor& q = input.candidate;
    const torch::Tensor& k = input.behaviours;
    const torch::nn::Linear& first = attention->linears[0];
    const std::vector<torch::Tensor> w = first->weight.chunk(4, /*dim=*/1);
    torch::Tensor x = torch::embedding(torch::addmm(first->bias, q, (w[0] + w[2]).t()), input.owner);
    x = torch::addmm(x, k, (w[1] - w[2]).t());
    x = torch::addmm(x, torch::embedding(q, input.owner) * k, w[3].t());
    return attention_out(attention->AfterFirstLinear(x)).squeeze(1);
  }

  Layers attention{nullptr};
  torch::nn::Linear attention_out{nullptr};
  Layers tower{nullptr};
  torch::nn::Linear head{nullptr};

 private:
  bool product_;
};
TORCH_MODULE(Din);

}  // namespace din
