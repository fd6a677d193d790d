// Product-based network with inner products, IPNN (arXiv 1611.00144).
//
//                    logit
//                      |
//                    tower
//                      |
//      [ v_1 , ... , v_n , <v_i, v_j> for i < j ]
//                      |
//      v: each field of the candidate, of each pooled behaviour list, of the user and the moment
#pragma once

#include "trainer/network.h"

namespace din {

class Pnn : public Network {
 public:
  explicit Pnn(const ModelShape& shape)
      : tower(*this, shape.vectors() * shape.dim + shape.vectors() * (shape.vectors() - 1) / 2, shape),
        pooling_(shape.pooling),
        vectors_(shape.vectors()),
        dim_(shape.dim) {
    std::vector<int64_t> upper;  // (0, 1), (0, 2), …, (n - 2, n - 1) in an n x n matrix
    for (int64_t i = 0; i < vectors_; ++i) {
      for (int64_t j = i + 1; j < vectors_; ++j) upper.push_back(i * vectors_ + j);
    }
    upper_ = torch::tensor(upper, torch::kLong);
  }

  torch::Tensor forward(const NetworkInput& input) override {
    const torch::Tensor all = torch::cat(Pooled(input, input.embeddings, pooling_), 1);
    const torch::Tensor v = all.view({-1, vectors_, dim_});
    const torch::Tensor products = torch::bmm(v, v.transpose(1, 2)).flatten(1).index_select(1, upper_);
    return tower.forward({all, products});
  }

  Tower tower;

 private:
  Pooling pooling_;
  int64_t vectors_;
  int64_t dim_;
  torch::Tensor upper_;
};

}  // namespace din
