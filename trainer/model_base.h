// The paper's base model, Embedding & MLP: DIN, section 4.2 and figure 2 (left).
//
//                    logit
//                      |
//                    tower
//                      |
//      [ v_A , pool e_j , user , context ]      the same interest whatever the candidate
#pragma once

#include "trainer/network.h"

namespace din {

class BaseModel : public Network {
 public:
  explicit BaseModel(const ModelShape& shape)
      : tower(*this, shape.width() * (1 + shape.sequences) + shape.side_width(), shape), pooling_(shape.pooling) {}

  torch::Tensor forward(const NetworkInput& input) override {
    return tower.forward(Pooled(input, input.embeddings, pooling_));
  }

  Tower tower;

 private:
  Pooling pooling_;
};

}  // namespace din
