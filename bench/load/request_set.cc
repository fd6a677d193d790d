#include "bench/load/request_set.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace din::load {
namespace {

// Rows of an ID or ID_LIST column. A DENSE column of several numbers a row says nothing without its width.
size_t CountRows(const v1::Column& column) {
  if (column.offsets_size() > 0) return column.offsets_size() - 1;
  return std::max(column.ids_size(), column.keys_size());
}

size_t MostRows(const google::protobuf::RepeatedPtrField<v1::Column>& columns) {
  size_t rows = 0;
  for (const v1::Column& column : columns) rows = std::max(rows, CountRows(column));
  return rows;
}

}  // namespace

size_t CountCandidates(const v1::ScoreRequest& request) {
  if (request.candidate_ids_size() > 0) return request.candidate_ids_size();
  if (request.candidate_keys_size() > 0) return request.candidate_keys_size();
  return MostRows(request.candidates());
}

void RequestSetBuilder::Add(const v1::ScoreRequest& request) {
  PreparedRequest prepared;
  prepared.bytes = grpc::Slice(request.SerializeAsString());
  prepared.model = request.model();
  prepared.candidates = CountCandidates(request);
  prepared.answers = request.top_k() > 0 ? std::min<size_t>(request.top_k(), prepared.candidates) : prepared.candidates;
  prepared.candidate_ids.assign(request.candidate_ids().begin(), request.candidate_ids().end());
  prepared.candidate_keys.assign(request.candidate_keys().begin(), request.candidate_keys().end());
  set_.mean_bytes += prepared.bytes.size();
  set_.mean_candidates += prepared.candidates;
  size_t behaviours = 0;
  for (const v1::Sequence& sequence : request.sequences()) behaviours += MostRows(sequence.columns());
  set_.mean_behaviours += static_cast<double>(behaviours) / std::max(1, request.sequences_size());
  set_.requests.push_back(std::move(prepared));
}

absl::Status RequestSetBuilder::AddExpecting(const v1::ScoreRequest& request, const v1::GoldenCase& expected) {
  const size_t candidates = CountCandidates(request);
  if (static_cast<size_t>(expected.scores_size()) != candidates) {
    return absl::InvalidArgumentError(absl::StrCat("case \"", expected.id(), "\": ", expected.scores_size(),
                                                   " expected scores for ", candidates, " candidates"));
  }
  if (!(expected.tolerance() > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("case \"", expected.id(), "\": tolerance ", expected.tolerance(), " is not above 0"));
  }
  Add(request);
  set_.requests.back().expected.assign(expected.scores().begin(), expected.scores().end());
  set_.requests.back().tolerance = expected.tolerance();
  return absl::OkStatus();
}

absl::StatusOr<RequestSet> RequestSetBuilder::Build() && {
  if (set_.requests.empty()) return absl::InvalidArgumentError(absl::StrCat(set_.source, ": no requests in it"));
  const auto count = static_cast<double>(set_.requests.size());
  set_.mean_bytes /= count;
  set_.mean_candidates /= count;
  set_.mean_behaviours /= count;
  return std::move(set_);
}

}  // namespace din::load
