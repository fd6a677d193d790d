// What a service promises of its latency: "p99<5ms".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace din::load {

struct Objective {
  std::string text;     // as given
  double quantile = 0;  // in (0, 1)
  int64_t limit_ns = 0;
};

// "p50<2ms", "p99.9<20ms". INVALID_ARGUMENT names what is wrong.
absl::StatusOr<Objective> ParseObjective(std::string_view text);

}  // namespace din::load
