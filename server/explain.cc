#include "server/explain.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

void EncodeWeights(const ScoringInput::Sequence& sequence, const AttentionWeights& attention,
                   v1::ExplainResponse::Weights& out) {
  std::vector<bool> attended(sequence.sent, false);
  out.mutable_weights()->Resize(static_cast<int>(sequence.sent), 0.0f);
  float padding = 0;
  for (size_t i = 0; i < attention.weights.size(); ++i) {
    const uint32_t position = sequence.positions[i];
    if (position == ScoringInput::kPaddingPosition) {
      padding += attention.weights[i];
      continue;
    }
    out.set_weights(static_cast<int>(position), attention.weights[i]);
    attended[position] = true;
  }
  out.set_padding_weight(padding);
  for (size_t p = 0; p < attended.size(); ++p) {
    if (!attended[p]) out.add_not_attended(static_cast<uint32_t>(p));
  }
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> CandidatesToExplain(const v1::ExplainRequest& request,
                                                          const ScoredRequest& scored, const RequestLimits& limits) {
  if (request.candidates().empty()) return std::vector<uint32_t>{RankedPosition(scored.ranking[0])};
  const auto asked = static_cast<size_t>(request.candidates_size());
  if (asked > limits.explained) {
    return absl::InvalidArgumentError(absl::StrCat("candidates: ", asked, " to explain > limit ", limits.explained));
  }
  std::vector<uint32_t> positions(request.candidates().begin(), request.candidates().end());
  for (size_t i = 0; i < asked; ++i) {
    if (positions[i] >= scored.scores.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("candidates[", i, "]: ", positions[i], ", but the request has ", scored.scores.size()));
    }
    if (std::find(positions.begin(), positions.begin() + static_cast<ptrdiff_t>(i), positions[i]) !=
        positions.begin() + static_cast<ptrdiff_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat("candidates[", i, "]: ", positions[i], " is asked for twice"));
    }
  }
  return positions;
}

void ExplainCandidate(const ScoredRequest& scored, uint32_t candidate, Workspace& workspace,
                      v1::ExplainResponse& response) {
  const DinModel& model = *scored.model.model;
  v1::ExplainResponse::Candidate& out = *response.add_candidates();
  out.set_index(candidate);
  out.set_score(scored.scores[candidate]);
  out.set_label(std::string(model.decoder().CandidateLabel(ColumnsOf(scored.request), candidate)));
  const std::vector<AttentionWeights> attentions = model.Explain(scored.input, candidate, workspace);
  for (size_t g = 0; g < attentions.size(); ++g) {
    const v1::Attention& spec = model.spec().attentions(static_cast<int>(g));
    v1::ExplainResponse::Weights& weights = *out.add_attentions();
    weights.set_attention(spec.name());
    weights.set_sequence(spec.sequence());
    const auto sequence = static_cast<size_t>(model.resolved().attentions[g].sequence);
    EncodeWeights(scored.input.sequences[sequence], attentions[g], weights);
  }
}

void EncodeBehaviourLabels(const ScoredRequest& scored, v1::ExplainResponse& response) {
  const DinModel& model = *scored.model.model;
  for (size_t s = 0; s < scored.input.sequences.size(); ++s) {
    v1::ExplainResponse::SequenceLabels labels;
    labels.set_sequence(model.spec().sequences(static_cast<int>(s)).name());
    bool any = false;
    for (size_t position = 0; position < scored.input.sequences[s].sent; ++position) {
      const std::string_view label =
          model.decoder().BehaviourLabel(ColumnsOf(scored.request), static_cast<int>(s), position);
      labels.add_labels(std::string(label));
      any = any || !label.empty();
    }
    if (any) *response.add_labels() = std::move(labels);
  }
}

}  // namespace din
