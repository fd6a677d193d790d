// The judge of a request's columns: which feature each one is, whether it has the right type and as many rows as it
// should. After it, decoding meets nothing but ids that the model may not know.
#pragma once

#include "absl/status/status.h"
#include "model/input.h"
#include "model/input_plan.h"

namespace din {

// Fills out.candidates, out.sequences[..].sent and out.sent. INVALID_ARGUMENT names column, position, value and limit.
// Does not allocate for a well-formed request once `out` has seen one of the same model.
absl::Status MatchColumns(const InputPlan& plan, const RequestColumns& request, const InputLimits& limits,
                          ScoringInput& out);

}  // namespace din
