#include "model_loader/drift.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/golden.h"
#include "model_loader/load_control.h"

namespace din {
namespace {

// Scores of one request. What the model's own decoder says about it is the error.
absl::Status Score(const DinModel& model, const v1::GoldenCase& request, Workspace& workspace,
                   std::vector<float>& scores) {
  ScoringInput input;
  const RequestColumns columns{request.features(), request.sequences(), request.candidates()};
  DIN_RETURN_IF_ERROR(model.decoder().Decode(columns, kGoldenInputLimits, input));
  scores.resize(input.candidates);
  model.Score(input, workspace, scores);
  return absl::OkStatus();
}

// From 0; equal scores share the mean of their ranks.
std::vector<double> Ranks(const std::vector<float>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  std::vector<double> ranks(scores.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end - 1) / 2;
  }
  return ranks;
}

// Spearman's rho: the correlation of the ranks. Nothing where there was no order to keep; 0 where it is gone.
std::optional<double> RankCorrelation(const std::vector<float>& before, const std::vector<float>& after) {
  const std::vector<double> x = Ranks(before), y = Ranks(after);
  const double mean = (static_cast<double>(x.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  if (xx == 0) return std::nullopt;
  if (yy == 0) return 0;
  return xy / std::sqrt(xx * yy);
}

}  // namespace

absl::StatusOr<Drift> MeasureDrift(const DinModel& live, const DinModel& next, const std::vector<v1::GoldenCase>& cases,
                                   const LoadControl* control) {
  Drift drift;
  Workspace workspace;
  std::vector<float> before, after;
  double sum = 0, correlations = 0;
  size_t scores = 0, correlated = 0;
  for (const v1::GoldenCase& request : cases) {
    if (control != nullptr) DIN_RETURN_IF_ERROR(control->Check());
    DIN_RETURN_IF_ERROR(Score(next, request, workspace, after));
    if (const absl::Status status = Score(live, request, workspace, before); !status.ok()) {
      return absl::FailedPreconditionError(absl::StrCat("drift: the live version cannot score golden case \"",
                                                        request.id(), "\": ", std::string(status.message())));
    }
    for (size_t c = 0; c < after.size(); ++c) {
      const double change = std::abs(static_cast<double>(after[c]) - static_cast<double>(before[c]));
      sum += change;
      if (change <= drift.largest_change) continue;
      drift.largest_change = change;
      drift.largest_case = absl::StrCat("\"", request.id(), "\", candidate ", c);
    }
    scores += after.size();
    if (const std::optional<double> rho = RankCorrelation(before, after)) {
      correlations += *rho;
      ++correlated;
    }
  }
  if (scores > 0) drift.mean_change = sum / static_cast<double>(scores);
  if (correlated > 0) drift.rank_correlation = correlations / static_cast<double>(correlated);
  return drift;
}

absl::Status CheckDrift(const Drift& drift, const DriftBounds& bounds) {
  std::string passed;
  const auto pass = [&](const char* what, double bound) {
    absl::StrAppend(&passed, passed.empty() ? "" : ", ", what, " ", bound);
  };
  // Not the other way round, so that a NaN passes no bound.
  if (!(drift.largest_change <= bounds.largest_change)) pass("largest change", bounds.largest_change);
  if (!(drift.mean_change <= bounds.mean_change)) pass("mean change", bounds.mean_change);
  if (!(drift.rank_correlation >= bounds.rank_correlation)) pass("rank correlation", bounds.rank_correlation);
  if (passed.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "drift from the live version: largest change ", drift.largest_change, " (golden case ", drift.largest_case,
      "), mean change ", drift.mean_change, ", rank correlation ", drift.rank_correlation, "; bound: ", passed));
}

}  // namespace din
