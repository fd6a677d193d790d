// Is this answer right? Fast and wrong is worthless, so every answer is looked at unless told otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/load/request_set.h"
#include "proto/scoring.pb.h"

namespace din::load {

// Holds answers to the contract of scoring.proto: as many as asked for, each candidate at most once, scores in [0, 1],
// best first, the caller's names echoed, a version that exists, and the expected scores where they are known.
// One per thread: reuses its memory.
class Verifier {
 public:
  // `versions`: those that may answer; empty: any from 1 on.
  Verifier(const RequestSet& requests, std::set<int64_t> versions);

  // The version that scored. DATA_LOSS says what is wrong with the answer to requests.requests[request].
  absl::StatusOr<int64_t> Check(size_t request, grpc::ByteBuffer& answer);
  absl::Status Check(size_t request, const v1::ScoreResponse& response);
  // The answer that Check deserialised last.
  const v1::ScoreResponse& response() const { return response_; }

 private:
  absl::Status CheckNames(const PreparedRequest& request, const v1::ScoreResponse& response) const;
  absl::Status CheckScores(const PreparedRequest& request, const v1::ScoreResponse& response) const;

  const RequestSet& requests_;
  std::set<int64_t> versions_;
  v1::ScoreResponse response_;
  std::vector<bool> seen_;
};

}  // namespace din::load
