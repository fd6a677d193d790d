// Which behaviours spoke for a candidate.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "model/din_model.h"
#include "model/input.h"
#include "proto/scoring.pb.h"
#include "server/score_request.h"

namespace din {

// The positions that an ExplainRequest asks for, once it has been scored; the best one where it asks for none.
// INVALID_ARGUMENT: beyond the candidates, asked for twice, or more than the limit.
absl::StatusOr<std::vector<uint32_t>> CandidatesToExplain(const v1::ExplainRequest& request,
                                                          const ScoredRequest& scored, const RequestLimits& limits);

// Runs the attention for one candidate once more and adds it to the response.
void ExplainCandidate(const ScoredRequest& scored, uint32_t candidate, Workspace& workspace,
                      v1::ExplainResponse& response);

// The labels of the behaviours, of every sequence that has any.
void EncodeBehaviourLabels(const ScoredRequest& scored, v1::ExplainResponse& response);

}  // namespace din
