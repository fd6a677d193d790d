// The requests of a run, serialised before it begins so that sending one costs no more than sending bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/support/slice.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/scoring.pb.h"

namespace din::load {

// One request, and what a right answer to it looks like.
struct PreparedRequest {
  grpc::Slice bytes;
  std::string model;  // "" where the server chooses
  size_t candidates = 0;
  size_t answers = 0;  // candidates, or top_k where that is less
  std::vector<int64_t> candidate_ids;
  std::vector<std::string> candidate_keys;
  std::vector<float> expected;  // per candidate of the request; empty: not known
  double tolerance = 0;
};

// Immutable after it is made. Sent in order, and again from the start when the run is longer.
struct RequestSet {
  std::vector<PreparedRequest> requests;
  std::string source;  // for people: the file, or the distribution
  double mean_bytes = 0;
  double mean_candidates = 0;
  double mean_behaviours = 0;  // per sequence
};

class RequestSetBuilder {
 public:
  explicit RequestSetBuilder(std::string source) { set_.source = std::move(source); }
  void Add(const v1::ScoreRequest& request);
  // With the scores that it must get, one per candidate. INVALID_ARGUMENT: their number, or the tolerance.
  absl::Status AddExpecting(const v1::ScoreRequest& request, const v1::GoldenCase& expected);
  // INVALID_ARGUMENT when there are none.
  absl::StatusOr<RequestSet> Build() &&;

 private:
  RequestSet set_;
};

// The number of rows of scope CANDIDATE: what the server counts as candidates.
size_t CountCandidates(const v1::ScoreRequest& request);

}  // namespace din::load
