// Versions of one model, ready to be published within milliseconds, and the scores that each of them gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
// repeats after kContents versions, and neighbours differ in their table and in their layers. A directory consists of
// hard links to the large files and of three small ones, so publishing costs the machine nothing that could be taken
// for the server's doing.
//
// One thread, but Expected() from any.
class VersionStock {
 public:
  static constexpr int64_t kContents = 8;

  struct Options {
    std::string directory;  // for the large files; on the file system of the model root
    std::string root;       // where <model>/<version>/ goes
    std::string model;
    uint64_t table_bytes = 0;
    size_t requests = 16;
    size_t candidates = 200;
    size_t behaviours = 50;
    uint64_t seed = 1;
  };
  // Writes the large files and scores all requests with each content, with the forward pass that the server runs.
  static absl::StatusOr<std::unique_ptr<VersionStock>> Create(const Options& options);

  absl::Status Publish(int64_t version, Fault fault) const;
  // A directory that the server is done with.
  void Remove(int64_t version) const;

  const std::vector<v1::ScoreRequest>& requests() const { return requests_; }
  // By candidate, bit for bit what `version` gives.
  std::span<const float> Expected(int64_t version, size_t request) const {
    return contents_[static_cast<size_t>(version % kContents)].scores[request];
  }

 private:
  struct Content {
    float head_bias = 0;
    std::vector<std::vector<float>> scores;  // by request
    std::vector<v1::GoldenCase> golden;
  };

  explicit VersionStock(Options options) : options_(std::move(options)) {}
  absl::Status Build();

  const Options options_;
  v1::ModelSpec spec_;
  std::vector<v1::ScoreRequest> requests_;
  ManifestFile tables_[2];
  ManifestFile layers_;
  std::vector<Content> contents_;
};

}  // namespace din::swap
