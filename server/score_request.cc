#include "server/score_request.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"

namespace din {
namespace {

std::string Served(std::vector<std::string> names) {
  constexpr size_t kMost = 20;
  if (names.empty()) return "no model is served";
  const size_t all = names.size();
  names.resize(std::min(all, kMost));
  return absl::StrCat("served: ", absl::StrJoin(names, ", "), all > kMost ? ", …" : "");
}

absl::Status WhyNotLive(const ModelStatus& model) {
  std::string why = "no complete version was found";
  if (!model.incomplete.empty()) {
    absl::StrAppend(&why, "; without a manifest.json: ", absl::StrJoin(model.incomplete, ", "));
  }
  if (model.policy.unloaded) {
    why = "it was unloaded";
  } else if (model.loading_version != 0) {
    why = absl::StrCat("version ", model.loading_version, " is loading");
  } else if (model.refused_version != 0) {
    why = absl::StrCat("version ", model.refused_version, " was refused: ", model.refused.message());
  } else if (const int64_t target = TargetOf(model.policy); target != 0) {
    why = absl::StrCat("version ", target, ", which is ", model.policy.pinned != 0 ? "pinned" : "labelled stable",
                       ", is not loaded; is it complete in the model root?");
  }
  return absl::NotFoundError(absl::StrCat("model: ", Quote(model.name), " is not live: ", why));
}

absl::Status CheckNames(const v1::ScoreRequest& request, size_t candidates) {
  if (!request.candidate_ids().empty() && !request.candidate_keys().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("candidate_keys: ", request.candidate_keys_size(),
                                                   " sent beside candidate_ids, expected at most one of the two"));
  }
  const auto check = [&](const char* field, int sent) {
    if (sent == 0 || static_cast<size_t>(sent) == candidates) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", sent, " sent, expected ", candidates, ", one for each candidate, or none"));
  };
  DIN_RETURN_IF_ERROR(check("candidate_ids", request.candidate_ids_size()));
  return check("candidate_keys", request.candidate_keys_size());
}

// The DENSE value of a request that is largest in size; no column when it sent none.
struct LargestValue {
  const v1::Column* column = nullptr;
  float value = 0;

  void Look(const google::protobuf::RepeatedPtrField<v1::Column>& columns) {
    for (const v1::Column& c : columns) {
      for (const float v : c.values()) {
        if (column == nullptr || std::abs(v) > std::abs(value)) *this = {&c, v};
      }
    }
  }
};

LargestValue LargestOf(const v1::ScoreRequest& request) {
  LargestValue largest;
  largest.Look(request.features());
  for (const v1::Sequence& sequence : request.sequences()) largest.Look(sequence.columns());
  largest.Look(request.candidates());
  return largest;
}

}  // namespace

absl::StatusOr<ModelHandle> PinModel(const ModelRegistry& models, const std::string& name,
                                     const VersionChoice& choice) {
  if (choice.version < 0) {
    return absl::InvalidArgumentError(absl::StrCat("version: ", choice.version, " < 0; 0 is the live one"));
  }
  if (choice.version != 0 && !choice.label.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("label: ", Quote(choice.label), " beside version ", choice.version,
                                                   ", expected at most one of the two"));
  }
  if (name.empty()) {
    std::vector<std::string> names = models.Names();
    if (names.size() == 1) return PinModel(models, names[0], choice);
    if (names.empty()) return absl::NotFoundError("model: no model is served");
    return absl::InvalidArgumentError(absl::StrCat("model: empty, but ", names.size(), " are served; ", Served(names)));
  }
  if (ModelHandle pinned = models.Find(name, choice)) return pinned;
  const std::optional<ModelStatus> status = models.StatusOf(name);
  if (!status) {
    return absl::NotFoundError(absl::StrCat("model: ", Quote(name), " is not served; ", Served(models.Names())));
  }
  if (status->live_version == 0) return WhyNotLive(*status);
  const std::string what =
      choice.label.empty() ? absl::StrCat("version: ", choice.version) : absl::StrCat("label: ", Quote(choice.label));
  return absl::NotFoundError(
      absl::StrCat(what, " of model ", Quote(name), " is not served; live: ", status->live_version,
                   status->kept.empty() ? "" : absl::StrCat(", kept: ", absl::StrJoin(status->kept, ", "))));
}

absl::Status DecodeScoreRequest(const v1::ScoreRequest& request, const DinModel& model, const RequestLimits& limits,
                                ScoringInput& input) {
  DIN_RETURN_IF_ERROR(model.decoder().Decode(ColumnsOf(request), limits.input, input));
  return CheckNames(request, input.candidates);
}

absl::Status CheckScores(std::span<const float> scores) {
  const auto bad = std::find_if_not(scores.begin(), scores.end(), [](float s) { return s >= 0.0f && s <= 1.0f; });
  if (bad == scores.end()) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("score of candidate ", bad - scores.begin(), ": ", *bad, " is not in [0, 1]"));
}

absl::Status CheckScores(const v1::ScoreRequest& request, std::span<const float> scores) {
  absl::Status status = CheckScores(scores);
  if (status.ok()) return status;
  const LargestValue largest = LargestOf(request);
  const auto bad = std::find_if_not(scores.begin(), scores.end(), [](float s) { return std::isfinite(s); });
  if (bad == scores.end() || largest.column == nullptr) return status;
  return absl::InvalidArgumentError(absl::StrCat("score of candidate ", bad - scores.begin(), ": ", *bad,
                                                 ": the DENSE values sent overflow the model; the largest is ",
                                                 largest.value, ", of ", Quote(largest.column->name())));
}

// The bits of floats that are not negative ascend with their values. So one integer holds what is compared: the score,
// turned round, then the position.
void Rank(std::span<const float> scores, uint32_t top_k, std::vector<uint64_t>& ranking) {
  ranking.resize(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    ranking[i] = uint64_t{~std::bit_cast<uint32_t>(scores[i] + 0.0f)} << 32 | i;  // -0 + 0 is 0
  }
  if (top_k == 0 || top_k >= scores.size()) {
    std::sort(ranking.begin(), ranking.end());
    return;
  }
  std::partial_sort(ranking.begin(), ranking.begin() + top_k, ranking.end());
  ranking.resize(top_k);
}

void EncodeScoreResponse(const ScoredRequest& scored, v1::ScoreResponse& response) {
  const v1::ScoreRequest& request = scored.request;
  const auto ranks = static_cast<int>(scored.ranking.size());
  response.set_model(scored.model.name);
  response.set_version(scored.model.version);
  response.mutable_index()->Reserve(ranks);
  response.mutable_scores()->Reserve(ranks);
  response.mutable_candidate_ids()->Reserve(request.candidate_ids().empty() ? 0 : ranks);
  response.mutable_candidate_keys()->Reserve(request.candidate_keys().empty() ? 0 : ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    const uint32_t position = RankedPosition(scored.ranking[static_cast<size_t>(rank)]);
    const auto c = static_cast<int>(position);
    response.add_index(position);
    response.add_scores(scored.scores[position]);
    if (!request.candidate_ids().empty()) response.add_candidate_ids(request.candidate_ids(c));
    if (!request.candidate_keys().empty()) response.add_candidate_keys(request.candidate_keys(c));
    if (scored.input.out_of_vocabulary[position]) response.add_out_of_vocabulary(static_cast<uint32_t>(rank));
    if (!request.labels()) continue;
    const std::string_view label = scored.model.model->decoder().CandidateLabel(ColumnsOf(request), position);
    response.add_labels(std::string(label));
  }
}

}  // namespace din
