#include "model_loader/golden.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/manifest.h"

namespace din {
namespace {

// Beyond it a golden score would not tell a right model from a wrong one.
constexpr double kLargestTolerance = 1e-2;

template <typename... Parts>
absl::Status Invalid(const std::string& where, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", parts...));
}

absl::Status CheckCase(const std::string& where, const v1::GoldenCase& golden) {
  if (golden.scores().empty()) return Invalid(where, "scores: none");
  for (int i = 0; i < golden.scores_size(); ++i) {
    const float score = golden.scores(i);
    if (!(score >= 0 && score <= 1)) return Invalid(where, "scores[", i, "]: ", score, " is not in [0, 1]");
  }
  if (!(golden.tolerance() > 0 && golden.tolerance() <= kLargestTolerance)) {
    return Invalid(where, "tolerance: ", golden.tolerance(), " is not in (0, ", kLargestTolerance, "]");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<v1::GoldenCase>> ParseGolden(std::string_view text, const GoldenLimits& limits) {
  std::vector<v1::GoldenCase> cases;
  size_t memory = 0;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string where = absl::StrCat(kGoldenName, ":", number);
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) return Invalid(where, "an empty line");
    if (line.size() > limits.line_bytes)
      return Invalid(where, "line: ", line.size(), " bytes > limit ", limits.line_bytes);
    v1::GoldenCase& golden = cases.emplace_back();
    DIN_RETURN_IF_ERROR(ParseJson(line, where, golden));
    DIN_RETURN_IF_ERROR(CheckCase(where, golden));
    // A few bytes of JSON can take many in memory ("{}" is a whole message).
    memory += golden.SpaceUsedLong();
    if (memory > limits.memory_bytes) return Invalid(where, "memory: ", memory, " bytes > limit ", limits.memory_bytes);
  }
  return cases;
}

}  // namespace din
