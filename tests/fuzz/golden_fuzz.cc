// ParseGolden: what it takes is within the limits, and is taken again as it is formatted.
#include "model_loader/golden.h"

#include <string>

#include "model_loader/json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr din::GoldenLimits kLimits = {.line_bytes = 1 << 20, .memory_bytes = 64 << 20};
  const auto cases = din::ParseGolden(din::AsText(data, size), kLimits);
  if (!cases.ok()) return 0;
  std::string text;
  for (const din::v1::GoldenCase& golden : *cases) {
    FUZZ_CHECK(golden.scores_size() > 0);
    for (const float score : golden.scores()) FUZZ_CHECK(score >= 0 && score <= 1);
    text += din::FormatJson(golden) + "\n";
  }
  const auto again = din::ParseGolden(text, {.line_bytes = 64 << 20, .memory_bytes = 64 << 20});
  FUZZ_CHECK(again.ok() && again->size() == cases->size());
  return 0;
}
