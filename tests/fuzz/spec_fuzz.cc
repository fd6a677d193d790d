// ParseJson into a ModelSpec, which comes back the same from its own JSON, and then ResolveSpec.
#include "model/resolved_spec.h"
#include "model_loader/json.h"
#include "proto/model_spec.pb.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  din::v1::ModelSpec spec;
  if (!din::ParseJson(din::AsText(data, size), "model.json", spec).ok()) return 0;
  din::v1::ModelSpec back;
  FUZZ_CHECK(din::ParseJson(din::FormatJson(spec), "model.json", back).ok());
  (void)din::ResolveSpec(std::move(spec));
  return 0;
}
