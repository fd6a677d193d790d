// CheckJson: what it takes, a parser takes, and as the same text once more.
#include "model_loader/json.h"

#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = din::AsText(data, size);
  if (!din::CheckJson(text).ok()) return 0;
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  FUZZ_CHECK(!json.is_discarded());
  FUZZ_CHECK(din::CheckJson(json.dump()).ok());
  return 0;
}
