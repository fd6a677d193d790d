#include "bench/load/objective.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace din::load {

absl::StatusOr<Objective> ParseObjective(std::string_view text) {
  const std::pair<std::string, std::string> halves = absl::StrSplit(std::string(text), absl::MaxSplits('<', 1));
  double percent = 0;
  absl::Duration limit;
  if (halves.first.empty() || halves.first[0] != 'p' || !absl::SimpleAtod(halves.first.substr(1), &percent) ||
      !(percent > 0 && percent < 100) || !absl::ParseDuration(halves.second, &limit) || limit <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("objective: \"", std::string(text), "\" is not pPERCENT<TIME, as in p99<5ms"));
  }
  return Objective{std::string(text), percent / 100, absl::ToInt64Nanoseconds(limit)};
}

}  // namespace din::load
