// ParseManifest, on the bytes as they are and on the bytes with the digest that they would need: a fuzzer finds no
// SHA-256. What it takes has one form.
#include "model_loader/manifest.h"

#include <string>

#include "tests/fuzz/fuzz.h"

namespace {

void Parse(const std::string& bytes) {
  const auto manifest = din::ParseManifest(bytes);
  if (!manifest.ok()) return;
  FUZZ_CHECK(din::FormatManifest(*manifest) == bytes);
  FUZZ_CHECK(!manifest->files.empty());
  for (const din::ManifestFile& file : manifest->files) {
    FUZZ_CHECK(din::IsSnapshotFile(file.name));
    FUZZ_CHECK(file.name.find('/') == std::string::npos);
    FUZZ_CHECK(file.size <= file.chunk_sha256.size() * din::kChunkBytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(din::AsText(data, size));
  Parse(bytes);
  const std::string body = bytes.substr(0, bytes.rfind("\"digest\""));
  Parse(body + "\"digest\":\"" + din::Hex(din::Sha256Of(body)) + "\"}\n");
  return 0;
}
