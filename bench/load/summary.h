// A run in figures, and whether they may be believed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/load/engine.h"
#include "bench/load/objective.h"
#include "bench/load/recorder.h"

namespace din::load {

// Microseconds.
struct Quantiles {
  double p50 = 0, p90 = 0, p95 = 0, p99 = 0, p999 = 0, max = 0, mean = 0;
  uint64_t count = 0;
};
Quantiles QuantilesOf(const Histogram& nanoseconds);

// Something to mark on the time axis.
struct Event {
  double seconds = 0;  // of the measured time
  enum class Kind { kSwap, kErrors } kind = Kind::kErrors;
  std::string text;
};

struct Timeline {
  double slice_seconds = 0;
  std::vector<uint64_t> sent, good, errors;
  std::vector<double> p50_us, p99_us, max_us, worst_lag_us;
};

struct RunSummary {
  std::string role;         // "run", "sweep", "probe", "best"
  double offered_rate = 0;  // requests/s as scheduled, mean over the measured time
  double seconds = 0;
  std::vector<std::string> invalid;  // reasons; empty: the figures may be believed
  uint64_t sent = 0;
  uint64_t ok = 0;                         // right answers
  uint64_t good = 0;                       // right answers within the deadline
  double goodput = 0;                      // the latter per second
  std::map<std::string, uint64_t> errors;  // by name of the outcome
  std::vector<std::string> wrong;          // examples
  Quantiles latency;                       // of right answers, from the intended send time
  Quantiles refusal;                       // of all other answers
  Quantiles lag;                           // of the sends
  // (q, us): what the percentile plot shows.
  std::vector<std::pair<double, double>> percentiles;
  // At the objective's quantile, over all requests: one that failed counts as infinitely slow (a negative value here).
  double at_objective_us = 0;
  Timeline timeline;
  std::vector<Event> events;
  std::map<int64_t, uint64_t> versions;  // answers by model version
  double client_cores = 0;               // CPU seconds per second, warm-up included
  std::optional<double> server_cores;
  std::optional<int64_t> server_bytes;
};

// The reasons for which a run says nothing of the server: the generator was late (send lag p99 above 100 µs and above
// 5 % of the latency's p99, or, of a run that is only held to an objective, of that), could not send, or was stopped.
std::vector<std::string> WhyInvalid(const RunOutcome& outcome, const std::optional<Objective>& objective = {});

RunSummary Summarise(const RunOutcome& outcome, const std::optional<Objective>& objective);

// Whether the objective was kept over all requests that were sent.
bool Meets(const RunSummary& summary, const Objective& objective);

}  // namespace din::load
