// What is in the model root right now.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model_loader/file.h"
#include "model_loader/lifecycle.h"
#include "model_loader/snapshot.h"

namespace din {

// Lists <root>/<model>/<version>/. A version counts as soon as it has a manifest; whether the rest is what the manifest
// says is for the load to find out. One thread.
class RootScanner {
 public:
  explicit RootScanner(std::string root) : root_(std::move(root)) {}

  struct Model {
    std::string name;
    // Complete versions, ascending; an error when the directory cannot be listed.
    absl::StatusOr<std::vector<FoundVersion>> versions;
    std::vector<int64_t> incomplete;  // ascending; without a manifest: under way, or never sealed
  };
  // Every entry of the root that does not begin with a dot, ascending by name.
  absl::StatusOr<std::vector<Model>> Scan();

 private:
  // What a manifest said when its version's files bore this stamp.
  struct Peeked {
    std::string stamp;
    std::optional<Manifest> manifest;  // none where it cannot be read
    absl::Status status;               // why, where that may pass: then it is looked at again
  };
  using Versions = std::map<int64_t, Peeked>;

  absl::StatusOr<std::vector<FoundVersion>> ScanModel(const Directory& root, const std::string& name,
                                                      std::vector<int64_t>& incomplete);
  Peeked Peek(const std::string& model, int64_t version, const std::string& stamp) const;
  static FoundVersion Describe(const Versions& versions, int64_t version);

  const std::string root_;
  std::map<std::string, Versions> peeked_;  // by model
};

}  // namespace din
