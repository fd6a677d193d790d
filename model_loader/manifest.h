// The manifest of a snapshot: bytes to Manifest and back. Its form is in FORMAT.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model_loader/sha256.h"
#include "model_loader/snapshot.h"

namespace din {

// Format 2 has a base: it is a delta.
inline constexpr uint32_t kFullFormat = 1;
inline constexpr uint32_t kDeltaFormat = 2;
// Large enough that digests are few, small enough that threads share one file evenly.
inline constexpr uint64_t kChunkBytes = uint64_t{8} << 20;

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kSpecName[] = "model.json";
inline constexpr char kGoldenName[] = "golden.jsonl";

// May a manifest list this name? model.json, golden.jsonl and <[A-Za-z0-9._-]+>.safetensors without a leading dot.
bool IsSnapshotFile(std::string_view name);
bool IsTensorFile(std::string_view name);

// DATA_LOSS: the bytes are not those that were digested. UNIMPLEMENTED: a newer format. INVALID_ARGUMENT: not the one
// canonical form, or files that do not make a snapshot. Messages begin with "manifest.json".
absl::StatusOr<Manifest> ParseManifest(std::string_view bytes);

// The base that a manifest's first bytes name: nothing is checked. Empty: a full snapshot, or no manifest.
std::string ClaimedBase(std::string_view first_bytes);

// The one form; `digest` is computed, not read.
std::string FormatManifest(const Manifest& manifest);

// Digests the bytes of one file, chunk by chunk, as they come. One thread.
class FileDigester {
 public:
  void Update(std::span<const std::byte> bytes);
  // The file's entry; nothing may follow.
  ManifestFile Finish(std::string name);

 private:
  void CloseChunk();

  Sha256 chunk_;
  uint64_t chunk_bytes_ = 0;
  ManifestFile file_;
};

}  // namespace din
