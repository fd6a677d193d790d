// The highest rate at which a service keeps its promise.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace din::load {

enum class Verdict {
  kMet,
  kMissed,
  kUnproven,  // the generator could not keep up, so nothing is known of the server
};

struct FindMaxOptions {
  double start = 1000;  // requests/s, tried first
  double least = 1;
  double most = 1e6;
  double precision = 0.03;  // the answer lies this close below a rate that did not pass
};

struct FindMaxResult {
  double rate = 0;         // 0: not even `least` passed
  std::string bounded_by;  // "the objective", "the generator", "--max-rate"
};

// Doubles or halves from `start` until the answer is bracketed, then bisects in ratios. A shared machine has bad
// seconds and bad minutes, so every rate has the best of three tries, and the rate that bounds the answer is tried
// again at the end: if it passes then, the search goes on from there, at most three times. `probe` runs one try; its
// errors end the search. Unproven counts as not passed, but is told.
absl::StatusOr<FindMaxResult> FindMax(const FindMaxOptions& options,
                                      const std::function<absl::StatusOr<Verdict>(double rate)>& probe);

}  // namespace din::load
