// Requests that were kept in a file.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/scoring.pb.h"

namespace din::load {

// A name that ends in ".jsonl" or ".json" holds proto3 JSON, one message a line; any other holds binary messages, each
// behind its length (a varint: protobuf's delimited form). INVALID_ARGUMENT names the file and the line or the offset.
absl::StatusOr<std::vector<v1::ScoreRequest>> ReadRequests(const std::string& path);
absl::Status WriteRequests(const std::string& path, const std::vector<v1::ScoreRequest>& requests);

// The golden cases of a snapshot (golden.jsonl) or of any file in that form, always JSON.
absl::StatusOr<std::vector<v1::GoldenCase>> ReadCases(const std::string& path);

// The request of a golden case, for `model`.
v1::ScoreRequest RequestOf(const v1::GoldenCase& golden, const std::string& model);

}  // namespace din::load
