// DeepFM (arXiv 1703.04247): a factorisation machine and a tower on the same embeddings.
//
//                          logit
//                            |
//        tower   +   sum_{i<j} <v_i, v_j>   +   sum of a weight for each id
//          |                 |
//        all v           pairs of v
//
//      v: each field of the candidate, of each pooled behaviour list, of the user and the moment
#pragma once

#include "trainer/network.h"

namespace din {

class DeepFm : public Network {
 public:
  explicit DeepFm(const ModelShape& shape)
      : tower(*this, shape.vectors() * shape.dim, shape),
        pooling_(shape.pooling),
        vectors_(shape.vectors()),
        dim_(shape.dim) {}

  torch::Tensor forward(const NetworkInput& input) override {
    const torch::Tensor all = torch::cat(Pooled(input, input.embeddings, pooling_), 1);
    const torch::Tensor v = all.view({-1, vectors_, dim_});
    // sum_{i<j} v_i * v_j = ((sum v)^2 - sum v^2) / 2
    const torch::Tensor pairs = (v.sum(1).square() - v.square().sum(1)).sum(1) / 2;
    return tower.forward({all}) + pairs + Wide(input, pooling_);
  }

  Tower tower;

 private:
  Pooling pooling_;
  int64_t vectors_;
  int64_t dim_;
};

}  // namespace din
