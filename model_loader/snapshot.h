// A snapshot on disk: <root>/<model>/<version>/ with model.json, *.safetensors, golden.jsonl and manifest.json.
// The bytes are described in FORMAT.md. Everything read here is untrusted until this file has said otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"

namespace din {

class LoadControl;

struct SnapshotLimits {
  size_t manifest_bytes = 16u << 20;
  size_t spec_bytes = 4u << 20;
  size_t golden_bytes = 256u << 20;
  size_t golden_line_bytes = 16u << 20;
  size_t header_bytes = 1u << 20;  // of each safetensors file
  size_t tensors = 10'000;         // in all files together
  uint64_t total_bytes = 0;        // of all files; 0: no limit but memory
};

struct ReadOptions {
  SnapshotLimits limits;
  int threads = 2;
  LoadControl* control = nullptr;  // null: nobody looks on
};

// What a version holds, in memory of its own (huge pages where the kernel gives them): changing or deleting the files
// afterwards changes nothing. Immutable; any thread.
class Snapshot {
 public:
  // Reads, digests and checks every byte: manifest form and digest, sizes, chunk digests, safetensors headers, JSON
  // without duplicate keys. DATA_LOSS: bytes that are not what the manifest says, with file, offset and reason;
  // INVALID_ARGUMENT: bytes as written, but wrong; NOT_FOUND: no complete snapshot there; UNIMPLEMENTED: a newer
  // format; CANCELLED by the control.
  static absl::StatusOr<std::unique_ptr<const Snapshot>> Open(const std::string& directory, const ReadOptions& options);
  ~Snapshot();

  const v1::ModelSpec& spec() const;
  const TensorMap& tensors() const;
  const std::vector<v1::GoldenCase>& golden() const;
  const std::string& digest() const;  // of the manifest: 64 hexadecimal characters
  bool unverified() const;            // published without golden cases, and the manifest says so
  uint64_t memory_bytes() const;      // held for tensors

 private:
  struct Impl;
  explicit Snapshot(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// The manifest alone, checked in itself but not against the files: what `inspect` and the watcher need first.
struct ManifestFile {
  std::string name;
  uint64_t size = 0;
  std::vector<std::string> chunk_sha256;  // of each 8 MiB chunk
  std::string root_sha256;                // over the chunk digests
};
struct Manifest {
  uint32_t format = 1;
  bool unverified = false;
  std::vector<ManifestFile> files;  // ascending by name
  std::string digest;
};
absl::StatusOr<Manifest> ReadManifest(const std::string& directory, const SnapshotLimits& limits);

// Bytes of memory that a load of these files takes, the model that is built from them included: a little more than it
// will be.
uint64_t ProjectedMemory(const Manifest& manifest);

}  // namespace din
