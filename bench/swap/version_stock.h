// Versions of one model, ready to be published within milliseconds, and the scores that each of them gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_loader/snapshot.h"
#include "proto/model_spec.pb.h"
#include "proto/scoring.pb.h"

namespace din::swap {

// What is wrong with a version that must be refused.
enum class Fault {
  kNone,
  kNotFinite,    // a NaN among its weights
  kWrongGolden,  // all bytes as written, but a golden score that it does not reproduce: found at the very end of a load
  kOtherBytes,   // the last chunk of the table is not what the manifest says
};
const char* Name(Fault);

// The paper's shape with an item table as large as wanted. Every version has a digest of its own; what it scores
// repeats after some versions, and neighbours differ in their table and in their layers. A directory consists of hard
// links to the large files and of three small ones, so publishing costs the machine nothing that could be taken for the
// server's doing. A delta changes a share of the rows, drawn uniformly, and a layer.
//
// One thread, but Expected() from any.
class VersionStock {
 public:
  struct Options {
    std::string directory;  // for the large files; on the file system of the model root
    std::string root;       // where <model>/<version>/ goes
    std::string model;
    uint64_t table_bytes = 0;
    size_t requests = 16;
    size_t candidates = 200;
    size_t behaviours = 50;
    double delta_share = 0.01;  // of the rows
    uint64_t seed = 1;
  };
  // Writes the large files and scores all requests with each content, with the forward pass that the server runs.
  static absl::StatusOr<std::unique_ptr<VersionStock>> Create(const Options& options);

  absl::Status Publish(int64_t version, Fault fault);
  // A delta on a version that was published before.
  absl::Status PublishDelta(int64_t version, int64_t base);
  // Bytes of its files.
  uint64_t version_bytes() const { return tables_[0].size + layers_.size; }
  // Directories of `version` and of those that it is built on, itself first.
  std::vector<std::string> Chain(int64_t version) const;
  // Directories before `version` that the server is done with, while `live` is live.
  void RemoveBefore(int64_t version, int64_t live);

  const std::vector<v1::ScoreRequest>& requests() const { return requests_; }
  // By candidate, bit for bit what `version` gives; empty when there is no such version.
  std::span<const float> Expected(int64_t version, size_t request) const;

 private:
  static constexpr int kTables = 2;
  static constexpr int kPatches = 3;  // none, and two to take turns
  static constexpr int kBiases = 4;

  struct Content {
    std::vector<std::vector<float>> scores;  // by request
    std::vector<v1::GoldenCase> golden;
  };
  // Which content a version has.
  struct Published {
    int table = 0;
    int patch = 0;
    int bias = 0;
    int64_t base = 0;  // of a delta
    std::string digest;
  };
  const Content& ContentOf(const Published& version) const {
    return contents_[static_cast<size_t>((version.table * kPatches + version.patch) * kBiases + version.bias)];
  }
  absl::Status Write(int64_t version, Published what, Fault fault);
  std::string DirectoryOf(int64_t version) const;

  explicit VersionStock(Options options) : options_(std::move(options)) {}
  absl::Status Build();

  const Options options_;
  v1::ModelSpec spec_;
  std::vector<v1::ScoreRequest> requests_;
  ManifestFile tables_[kTables];
  ManifestFile patches_[kPatches];
  ManifestFile layers_;
  float head_bias_[kBiases] = {};
  std::vector<Content> contents_;
  mutable std::mutex mutex_;
  std::map<int64_t, Published> published_;
  std::set<int64_t> on_disk_;
};

}  // namespace din::swap
