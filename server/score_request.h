// Wire to model and back: everything about a ScoreRequest that is neither gRPC nor arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/din_model.h"
#include "model/input.h"
#include "model_loader/model_holder.h"
#include "proto/scoring.pb.h"
#include "server/request_limits.h"

namespace din {

// Pins the model that a request names, and the version that it chooses. An empty name is the only model served.
// NOT_FOUND, or INVALID_ARGUMENT for an empty name among several or a version beside a label, with what there is, and
// why a model is not live.
absl::StatusOr<ModelHandle> PinModel(const ModelRegistry& models, const std::string& name, const VersionChoice& choice);

// The only judge of untrusted input. INVALID_ARGUMENT names the field, the value and the limit. Does not allocate for a
// good request that is no larger than one which `input` has held.
absl::Status DecodeScoreRequest(const v1::ScoreRequest& request, const DinModel& model, const RequestLimits& limits,
                                ScoringInput& input);

// INTERNAL for a score that is not in [0, 1]: no reply ever holds a NaN.
absl::Status CheckScores(std::span<const float> scores);
// The same, but INVALID_ARGUMENT for a score that is no finite number when the request sent DENSE values: they are
// finite, but so large that the model's arithmetic overflows.
absl::Status CheckScores(const v1::ScoreRequest& request, std::span<const float> scores);

// Positions of the `top_k` best scores (0: all), best first; equal scores keep the order of the request. `scores` are
// in [0, 1]. A position is in the low 32 bits of an entry; RankedPosition takes it out.
void Rank(std::span<const float> scores, uint32_t top_k, std::vector<uint64_t>& ranking);
inline uint32_t RankedPosition(uint64_t entry) { return static_cast<uint32_t>(entry); }

// Everything that a response is made from, borrowed for the call.
struct ScoredRequest {
  const v1::ScoreRequest& request;
  const LoadedModel& model;
  const ScoringInput& input;
  std::span<const float> scores;      // by position
  std::span<const uint64_t> ranking;  // from Rank
};
void EncodeScoreResponse(const ScoredRequest& scored, v1::ScoreResponse& response);

inline RequestColumns ColumnsOf(const v1::ScoreRequest& request) {
  return {request.features(), request.sequences(), request.candidates()};
}

}  // namespace din
