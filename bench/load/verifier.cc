#include "bench/load/verifier.h"

#include <cmath>
#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/strings/str_cat.h"

namespace din::load {

Verifier::Verifier(const RequestSet& requests, std::set<int64_t> versions)
    : requests_(requests), versions_(std::move(versions)) {}

absl::StatusOr<int64_t> Verifier::Check(size_t request, grpc::ByteBuffer& answer) {
  if (!grpc::SerializationTraits<v1::ScoreResponse>::Deserialize(&answer, &response_).ok()) {
    return absl::DataLossError("the answer is not a ScoreResponse");
  }
  if (absl::Status status = Check(request, response_); !status.ok()) return status;
  return response_.version();
}

absl::Status Verifier::Check(size_t request, const v1::ScoreResponse& response) {
  const PreparedRequest& asked = requests_.requests[request];
  if (!asked.model.empty() && response.model() != asked.model) {
    return absl::DataLossError(absl::StrCat("model: \"", response.model(), "\" answered for \"", asked.model, "\""));
  }
  if (response.version() < 1 || (!versions_.empty() && !versions_.contains(response.version()))) {
    return absl::DataLossError(absl::StrCat("version: ", response.version(), " is not one that may answer"));
  }
  if (static_cast<size_t>(response.index_size()) != asked.answers || response.scores_size() != response.index_size()) {
    return absl::DataLossError(absl::StrCat("answers: ", response.index_size(), " indices and ", response.scores_size(),
                                            " scores, asked for ", asked.answers));
  }
  seen_.assign(asked.candidates, false);
  for (const uint32_t index : response.index()) {
    if (index >= asked.candidates || seen_[index]) {
      return absl::DataLossError(
          absl::StrCat("index: ", index, index < asked.candidates ? " came twice" : " is not a candidate"));
    }
    seen_[index] = true;
  }
  if (absl::Status status = CheckScores(asked, response); !status.ok()) return status;
  return CheckNames(asked, response);
}

absl::Status Verifier::CheckScores(const PreparedRequest& request, const v1::ScoreResponse& response) const {
  for (int rank = 0; rank < response.scores_size(); ++rank) {
    const float score = response.scores(rank);
    if (!(score >= 0 && score <= 1)) {
      return absl::DataLossError(absl::StrCat("scores[", rank, "]: ", score, " is not in [0, 1]"));
    }
    if (rank > 0 && score > response.scores(rank - 1)) {
      return absl::DataLossError(
          absl::StrCat("scores[", rank, "]: ", score, " comes after the smaller ", response.scores(rank - 1)));
    }
    if (request.expected.empty()) continue;
    const float expected = request.expected[response.index(rank)];
    if (!(std::abs(double{score} - expected) <= request.tolerance)) {
      return absl::DataLossError(absl::StrCat("scores[", rank, "]: ", score, " for candidate ", response.index(rank),
                                              ", expected ", expected, " within ", request.tolerance));
    }
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckNames(const PreparedRequest& request, const v1::ScoreResponse& response) const {
  const auto echoed = [&](const auto& sent, const auto& got) {
    if (sent.empty()) return got.empty();
    if (got.size() != response.index_size()) return false;
    for (int rank = 0; rank < got.size(); ++rank) {
      if (got.Get(rank) != sent[response.index(rank)]) return false;
    }
    return true;
  };
  if (echoed(request.candidate_ids, response.candidate_ids()) &&
      echoed(request.candidate_keys, response.candidate_keys())) {
    return absl::OkStatus();
  }
  return absl::DataLossError("candidate_ids, candidate_keys: not those that were sent");
}

}  // namespace din::load
