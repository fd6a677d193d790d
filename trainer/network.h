// What the models are made of. Modules are named so that a parameter's full name is the tensor's in a snapshot:
// tower.l0.w, tower.l0.act.alpha, att0.out.b, head.w (proto/model_spec.proto).
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "trainer/dice.h"
#include "trainer/model_shape.h"
#include "trainer/torch.h"

namespace din {

// What a network sees of a mini-batch of B samples that have P_s behaviours in their s-th list in all. Of each id an
// n-wide vector, those of an item's fields side by side.
struct NetworkInput {
  struct Vectors {
    torch::Tensor candidate;                // [B, item fields * n]
    std::vector<torch::Tensor> behaviours;  // [P_s, item fields * n]
    torch::Tensor side;                     // [B, side fields * n], the user's and the moment's
  };
  Vectors embeddings;  // n = dim
  Vectors wide;        // n = 1: the weights of the wide part
  struct Owners {
    torch::Tensor begin;  // [B + 1] int64: the behaviours of sample b are [begin[b], begin[b + 1])
    torch::Tensor owner;  // [P_s] int64: the sample of each behaviour
  };
  std::vector<Owners> sequences;
};

class Network : public torch::nn::Module {
 public:
  // [B] logits.
  virtual torch::Tensor forward(const NetworkInput& input) = 0;
};

std::shared_ptr<Network> MakeNetwork(const ModelShape& shape);

// Both as torch::nn::Linear, uniform in 1 / sqrt(in).
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t units) {
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    w = register_parameter("w", torch::empty({units, in}).uniform_(-bound, bound));
    b = register_parameter("b", torch::empty({units}).uniform_(-bound, bound));
  }

  torch::Tensor forward(const torch::Tensor& x) { return torch::addmm(b, x, w.t()); }

  torch::Tensor w;  // [units, in]
  torch::Tensor b;  // [units]
};

// A linear layer and its activation.
class Layer : public Linear {
 public:
  Layer(int64_t in, int64_t units, Activation activation) : Linear(in, units) {
    if (activation == Activation::kDice) {
      dice = register_module("act", std::make_shared<Dice>(units));
    } else {
      prelu = register_module("act", std::make_shared<PRelu>(units));
    }
  }

  torch::Tensor forward(const torch::Tensor& x) { return Activate(Linear::forward(x)); }
  torch::Tensor Activate(const torch::Tensor& s) { return dice ? dice->forward(s) : prelu->forward(s); }

  std::shared_ptr<Dice> dice;  // one of the two
  std::shared_ptr<PRelu> prelu;
};

class Layers : public torch::nn::Module {
 public:
  Layers(int64_t in, const std::vector<int64_t>& units, Activation activation) {
    for (const int64_t n : units) {
      const std::string name = "l" + std::to_string(layers.size());
      layers.push_back(register_module(name, std::make_shared<Layer>(in, n, activation)));
      in = n;
    }
  }

  torch::Tensor forward(const torch::Tensor& x) { return AfterFirstLinear(layers[0]->Linear::forward(x)); }

  // What is left when the first Linear has been done: x is its output.
  torch::Tensor AfterFirstLinear(torch::Tensor x) {
    x = layers[0]->Activate(x);
    for (size_t i = 1; i < layers.size(); ++i) x = layers[i]->forward(x);
    return x;
  }

  std::vector<std::shared_ptr<Layer>> layers;
};

// The tower and the unit on top of it: [rows, in] -> [rows].
class Tower {
 public:
  Tower(torch::nn::Module& owner, int64_t in, const ModelShape& shape)
      : layers(owner.register_module("tower", std::make_shared<Layers>(in, shape.tower, shape.activation))),
        head(owner.register_module("head", std::make_shared<Linear>(shape.tower.back(), 1))) {}

  torch::Tensor forward(const std::vector<torch::Tensor>& input) {
    return head->forward(layers->forward(torch::cat(input, 1))).squeeze(1);
  }

  std::shared_ptr<Layers> layers;
  std::shared_ptr<Linear> head;
};

// sum_j w_j e_j over each sample's behaviours, or their mean (without weights only): [P, D] -> [B, D]; zero where there
// are none. `weights` [P] may be undefined: all 1.
inline torch::Tensor Pool(const torch::Tensor& behaviours, const torch::Tensor& begin, Pooling pooling,
                          const torch::Tensor& weights = {}) {
  if (behaviours.size(0) == 0) return torch::zeros({begin.size(0) - 1, behaviours.size(1)}, behaviours.options());
  // embedding_bag over the behaviours in their own order pools each sample's stretch of them.
  const torch::Tensor each = torch::arange(behaviours.size(0), torch::kLong);
  return std::get<0>(torch::embedding_bag(behaviours, each, begin, /*scale_grad_by_freq=*/false,
                                          /*mode=*/pooling == Pooling::kSum ? 0 : 1, /*sparse=*/false, weights,
                                          /*include_last_offset=*/true));
}

// What BaseModel and its kin see, side by side: the candidate, each pooled behaviour list, the side fields; [B, *].
inline std::vector<torch::Tensor> Pooled(const NetworkInput& input, const NetworkInput::Vectors& vectors,
                                         Pooling pooling) {
  std::vector<torch::Tensor> x = {vectors.candidate};
  for (size_t s = 0; s < input.sequences.size(); ++s) {
    x.push_back(Pool(vectors.behaviours[s], input.sequences[s].begin, pooling));
  }
  if (vectors.side.defined()) x.push_back(vectors.side);
  return x;
}

// The wide part: the sum of the weights of all ids that a sample has, those of behaviours pooled; [B].
inline torch::Tensor Wide(const NetworkInput& input, Pooling pooling) {
  return torch::cat(Pooled(input, input.wide, pooling), 1).sum(1);
}

}  // namespace din
