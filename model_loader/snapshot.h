// A snapshot on disk: <root>/<model>/<version>/ with model.json, *.safetensors, golden.jsonl and manifest.json.
// The bytes are described in FORMAT.md. Everything read here is untrusted until this file has said otherwise.
#pragma once

#include <cstdint>
#include <functional>
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
class SpareMemory;

struct SnapshotLimits {
  size_t manifest_bytes = 16u << 20;
  size_t spec_bytes = 4u << 20;
  size_t golden_bytes = 256u << 20;
  size_t golden_line_bytes = 16u << 20;
  size_t header_bytes = 1u << 20;  // of each safetensors file
  size_t tensors = 10'000;         // in all files together
  size_t deltas = 64;              // one on top of the other
  uint64_t total_bytes = 0;        // of all files; 0: no limit but memory
};

class Snapshot;

struct ReadOptions {
  SnapshotLimits limits;
  int threads = 2;
  LoadControl* control = nullptr;  // null: nobody looks on
  SpareMemory* spare = nullptr;    // where memory for the files' tensors comes from and goes; null: the system
  bool memory_is_scarce = false;   // spare memory that this does not need is given back first
  // Asked before a delta's changes are merged with what the base holds: a manifest does not say which tensors those
  // are, and but for tables they are copied. Null: there is room.
  std::function<absl::Status(uint64_t bytes)> room_for;
  // What a delta is laid over, for the time of the call. The memory of its tensors is shared, not copied.
  const Snapshot* base = nullptr;
  // The share of a table's rows that may lie outside it, because deltas changed them; beyond it the table is copied.
  // With 0 every tensor is plain, without an overlay.
  double most_overlaid = 0.125;
};

// What a version holds, in memory of our own (huge pages where the kernel gives them): changing or deleting the files
// afterwards changes nothing. A delta shares what it did not change with its base, which may go before it. Immutable;
// any thread.
class Snapshot {
 public:
  // Reads, digests and checks every byte: manifest form and digest, sizes, chunk digests, safetensors headers, JSON
  // without duplicate keys. DATA_LOSS: bytes that are not what the manifest says, with file, offset and reason;
  // INVALID_ARGUMENT: bytes as written, but wrong; NOT_FOUND: no complete snapshot there; UNIMPLEMENTED: a newer
  // format; FAILED_PRECONDITION: a delta on another version than options.base, or one too many on top of each other;
  // CANCELLED by the control.
  static absl::StatusOr<std::unique_ptr<const Snapshot>> Open(const std::string& directory, const ReadOptions& options);
  ~Snapshot();

  const v1::ModelSpec& spec() const;
  const TensorMap& tensors() const;
  const std::vector<v1::GoldenCase>& golden() const;
  const std::string& digest() const;       // of the manifest: 64 hexadecimal characters
  bool unverified() const;                 // published without golden cases, and the manifest says so
  const std::string& base_digest() const;  // empty unless this is a delta
  int deltas() const;                      // that lie over the last full snapshot, this one included
  uint64_t memory_bytes() const;           // held for tensors, what is shared with a base included

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
  std::string base;  // digest of the manifest that this one changes; empty: a full snapshot
  bool unverified = false;
  std::vector<ManifestFile> files;  // ascending by name
  std::string digest;
};
absl::StatusOr<Manifest> ReadManifest(const std::string& directory, const SnapshotLimits& limits);

// Opens a snapshot, and if it is a delta, first those that it is built on, which are looked for by their digests in the
// directories beside it. For a server that has nothing live yet, and for tools. `options.base` must be null. Errors as
// Open, and FAILED_PRECONDITION when a base is not there.
absl::StatusOr<std::unique_ptr<const Snapshot>> OpenWithBases(const std::string& directory, const ReadOptions& options);

// Bytes of memory that a load of these files takes, the model that is built from them included: a little more than it
// will be.
uint64_t ProjectedMemory(const Manifest& manifest);

// The same for the last of a chain, which begins with a full snapshot, when the ones before are in memory: its files,
// the rows that lie outside their tables because of any of the deltas, and, as soon as they may be too many, a copy of
// the tables with the rows in place.
uint64_t ProjectedDeltaMemory(const std::vector<const Manifest*>& chain, double most_overlaid);

}  // namespace din
