// Wide & Deep (arXiv 1606.07792): the base model and a logistic regression, trained together.
//
//                 logit
//                   |
//     BaseModel  +  sum of a weight for each id
#pragma once

#include "trainer/model_base.h"

namespace din {

class WideDeep : public BaseModel {
 public:
  explicit WideDeep(const ModelShape& shape) : BaseModel(shape), pooling_(shape.pooling) {}

  torch::Tensor forward(const NetworkInput& input) override {
    return BaseModel::forward(input) + Wide(input, pooling_);
  }

 private:
  Pooling pooling_;
};

}  // namespace din
