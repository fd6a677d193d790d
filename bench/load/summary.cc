#include "bench/load/summary.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace din::load {
namespace {

constexpr double kLagFloorUs = 100;  // below this, lag is noise of the machine
constexpr double kLagOfLatency = 0.05;

double Us(int64_t ns) { return static_cast<double>(ns) / 1000; }

std::vector<std::pair<double, double>> PercentileCurve(const Histogram& latency) {
  std::vector<std::pair<double, double>> curve;
  if (latency.count() == 0) return curve;
  // Nine points to each decade of 1 - q, as far as there are samples to tell.
  for (double rest = 1; rest * static_cast<double>(latency.count()) >= 1; rest /= 10) {
    for (int step = 10; step > 1; --step) {
      const double q = 1 - rest * step / 10;
      curve.emplace_back(q, Us(latency.Quantile(q)));
    }
  }
  curve.emplace_back(1, Us(latency.max()));
  return curve;
}

Timeline TimelineOf(const Measurements& m) {
  Timeline timeline{.slice_seconds = m.slice_seconds};
  for (const Measurements::Slice& slice : m.slices) {
    timeline.sent.push_back(slice.sent);
    timeline.good.push_back(slice.good);
    timeline.errors.push_back(slice.errors);
    timeline.p50_us.push_back(Us(slice.latency.Quantile(0.5)));
    timeline.p99_us.push_back(Us(slice.latency.Quantile(0.99)));
    timeline.max_us.push_back(Us(slice.latency.max()));
    timeline.worst_lag_us.push_back(Us(slice.worst_lag_ns));
  }
  return timeline;
}

// A swap is where the second and every later version answered first; errors are told by the stretch that they lasted.
std::vector<Event> EventsOf(const Measurements& m) {
  std::vector<Event> events;
  std::vector<std::pair<int64_t, int64_t>> firsts;
  for (const auto& [number, version] : m.versions) firsts.emplace_back(version.first_ns, number);
  std::ranges::sort(firsts);
  for (size_t v = 1; v < firsts.size(); ++v) {
    events.push_back(
        {static_cast<double>(firsts[v].first) * 1e-9, Event::Kind::kSwap, absl::StrCat("version ", firsts[v].second)});
  }
  for (size_t s = 0; s < m.slices.size();) {
    if (m.slices[s].errors == 0) {
      ++s;
      continue;
    }
    uint64_t errors = 0;
    const size_t begin = s;
    for (; s < m.slices.size() && m.slices[s].errors > 0; ++s) errors += m.slices[s].errors;
    events.push_back(
        {static_cast<double>(begin) * m.slice_seconds, Event::Kind::kErrors,
         absl::StrFormat("%d errors in %.3g s", errors, static_cast<double>(s - begin) * m.slice_seconds)});
  }
  return events;
}

}  // namespace

Quantiles QuantilesOf(const Histogram& ns) {
  return {.p50 = Us(ns.Quantile(0.5)),
          .p90 = Us(ns.Quantile(0.9)),
          .p95 = Us(ns.Quantile(0.95)),
          .p99 = Us(ns.Quantile(0.99)),
          .p999 = Us(ns.Quantile(0.999)),
          .max = Us(ns.max()),
          .mean = ns.Mean() / 1000,
          .count = ns.count()};
}

std::vector<std::string> WhyInvalid(const RunOutcome& outcome, const std::optional<Objective>& objective) {
  const Measurements& m = outcome.measurements;
  std::vector<std::string> reasons;
  const double lag = Us(m.lag.Quantile(0.99));
  const double told = std::max(Us(m.latency.Quantile(0.99)), objective ? Us(objective->limit_ns) : 0);
  const double limit = std::max(kLagFloorUs, kLagOfLatency * told);
  if (lag > limit) {
    reasons.push_back(absl::StrFormat("send lag p99 %.0f us > %.0f us: the generator could not keep up", lag, limit));
  }
  if (m.outcomes[kNotSent] > 0) {
    reasons.push_back(absl::StrFormat("%d requests were not sent: too many in flight", m.outcomes[kNotSent]));
  }
  if (outcome.stopped) reasons.push_back("stopped before its end");
  if (m.sent() == 0) reasons.push_back("no request was due in the measured time");
  return reasons;
}

RunSummary Summarise(const RunOutcome& outcome, const std::optional<Objective>& objective) {
  const Measurements& m = outcome.measurements;
  RunSummary summary;
  summary.seconds = outcome.seconds;
  summary.invalid = WhyInvalid(outcome, objective);
  summary.sent = m.sent();
  summary.ok = m.ok();
  for (const Measurements::Slice& slice : m.slices) summary.good += slice.good;
  summary.goodput = static_cast<double>(summary.good) / outcome.seconds;
  for (int o = 1; o < kOutcomes; ++o) {
    if (m.outcomes[o] > 0) summary.errors[std::string(Name(o))] = m.outcomes[o];
  }
  summary.wrong = m.wrong;
  summary.latency = QuantilesOf(m.latency);
  summary.refusal = QuantilesOf(m.refusal);
  summary.lag = QuantilesOf(m.lag);
  summary.percentiles = PercentileCurve(m.latency);
  if (objective) {
    const int64_t at = m.latency.AtRank(objective->quantile, m.sent());
    summary.at_objective_us = at == Histogram::kInfinite ? -1 : Us(at);
  }
  summary.timeline = TimelineOf(m);
  summary.events = EventsOf(m);
  for (const auto& [number, version] : m.versions) summary.versions[number] = version.answers;
  return summary;
}

bool Meets(const RunSummary& summary, const Objective& objective) {
  return summary.sent > 0 && summary.at_objective_us >= 0 &&
         summary.at_objective_us * 1000 < static_cast<double>(objective.limit_ns);
}

}  // namespace din::load
