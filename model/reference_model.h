// The definition: ModelSpec and raw layers evaluated in plain loops, tiled, unfolded, one pair after the other.
// In double it is the truth that the production path is held to; in float it shows what fp32 rounding alone costs.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "model/input.h"
#include "model/resolved_spec.h"
#include "model/tensor.h"

namespace din::reference {

template <typename T>
struct Scores {
  std::vector<T> logits;  // per candidate
  std::vector<T> scores;  // in (0, 1)
  // [attention][candidate * positions + position]; empty per attention when its sequence counted as empty
  std::vector<std::vector<T>> weights;
};

// T: double or float. INVALID_ARGUMENT as DinModel::Create. Slow by design.
template <typename T>
absl::StatusOr<Scores<T>> Score(const ResolvedSpec& resolved, const TensorMap& tensors, const ScoringInput& input);

}  // namespace din::reference
