// Fully connected layers whose weights stay in the caches: our own kernel, for dense.cc to choose.
#pragma once

#include <memory>

#include "kernels/dense.h"

namespace din {

// As DenseLayer::Create. Allocates nothing in Run and needs no scratch; a row's sums run in the order of the inputs,
// whatever rows are computed with it.
std::unique_ptr<const DenseLayer> CreateSmallDenseLayer(const DenseLayerWeights& weights, InstructionSet isa);

}  // namespace din
