// golden.jsonl: requests and the scores that the model's own framework gave for them, one GoldenCase a line.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/input.h"
#include "proto/model_spec.pb.h"

namespace din {

// Golden cases come from the publisher, who may know requests larger than this server would take.
inline constexpr InputLimits kGoldenInputLimits = {
    .candidates = 1u << 20, .behaviours = 1u << 20, .list_ids = 1u << 24};

struct GoldenLimits {
  size_t line_bytes = 0;
  size_t memory_bytes = 0;  // that the parsed cases take
};

// INVALID_ARGUMENT begins with "golden.jsonl:<line>". Scores are in [0, 1] and tolerances in (0, 1e-2]; whether a case
// fits the model is seen when it is scored. No lines: no cases.
absl::StatusOr<std::vector<v1::GoldenCase>> ParseGolden(std::string_view text, const GoldenLimits& limits);

}  // namespace din
