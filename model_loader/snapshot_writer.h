// Publishes a version: files under a temporary name, the manifest last, fsync, rename.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"

namespace din {

struct SnapshotContents {
  v1::ModelSpec spec;
  TensorMap tensors;                   // borrowed memory, written to weights.safetensors
  std::vector<v1::GoldenCase> golden;  // empty only with `unverified`
  bool unverified = false;
  // Digest of the version that this one changes: then `tensors` are those of a delta (DiffTensors, in delta.h). Empty:
  // a full snapshot.
  std::string base;
};

// Writes <model_directory>/<version>/ (the model directory is made when missing). ALREADY_EXISTS when that version is
// there; INVALID_ARGUMENT for a version below 1, no golden cases without `unverified`, or tensors that no file can
// hold or that have an overlay. A crash at any point leaves no directory that Open would accept, and at most a `.tmp-…`
// one that the next publication of this version removes. The contents are not checked against each other: Open and the
// golden cases do. Tensors are written from where they are: no memory beyond the headers, whatever their size.
absl::Status WriteSnapshot(const std::string& model_directory, int64_t version, const SnapshotContents& contents);

// Writes manifest.json over the files that are in `directory` (model.json, *.safetensors, golden.jsonl), for snapshots
// that other tools laid out. The files are synced first, the manifest is written last, synced, and atomically; one that
// is there is replaced. INVALID_ARGUMENT when the files do not make a snapshot; what is in them is not looked at.
absl::Status SealSnapshot(const std::string& directory, bool unverified);

}  // namespace din
