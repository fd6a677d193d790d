// From the raw layers of a snapshot to what the kernels run: BatchNorm, Dice statistics, score scale and the ordering
// of the attention's input disappear into weights, in fp64, at load (DESIGN.md, "Folding").
//
//   Linear, BatchNorm                  -> one Linear
//   BatchNorm before a Linear          -> that Linear
//   Dice with running statistics       -> p = sigmoid(scale * x + shift)
//   [q, k, q - k, k - q, q o k] W      -> Wq q + Wk k + Wp (q o k)
//   1 / sqrt(D) on the score           -> the unit's last Linear
//   two classes and a softmax          -> one logit, w[positive] - w[other]
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "model/resolved_spec.h"
#include "model/tensor_reader.h"

namespace din {

// Each takes its tensors out of the reader; errors name the tensor. A folded weight that does not fit a float is an
// error, too.

// attentions[g].
absl::StatusOr<ActivationUnitWeights> FoldActivationUnit(const ResolvedSpec& spec, int g, TensorReader& tensors);

// attentions[g].post: empty, or one layer.
absl::StatusOr<std::vector<DenseLayerWeights>> FoldPost(const ResolvedSpec& spec, int g, TensorReader& tensors);

// pre_towers[p].
absl::StatusOr<std::vector<DenseLayerWeights>> FoldPreTower(const ResolvedSpec& spec, int p, TensorReader& tensors);

// The tower, its head and the global bias: the last layer has one output, the logit. Empty without an input.
absl::StatusOr<std::vector<DenseLayerWeights>> FoldTower(const ResolvedSpec& spec, TensorReader& tensors);

// The global bias where there is no tower that takes it, otherwise 0.
absl::StatusOr<float> FoldLogitBias(const ResolvedSpec& spec, TensorReader& tensors);

// Whether a network has terms of the user alone and terms of the candidate.
bool IsMixed(const ResolvedSpec::Network& network);

// Takes the columns of the user's terms and the bias out of a network's first layer, and gives them as a layer of their
// own that runs once for all candidates. For networks that are mixed.
DenseLayerWeights SplitOffUser(const ResolvedSpec::Network& network, DenseLayerWeights& layer);

}  // namespace din
