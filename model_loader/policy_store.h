// What operators decided, written down, so that a restart knows it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_loader/file.h"
#include "model_loader/lifecycle.h"

namespace din {

// One file <directory>/<model>.json for each model, replaced as a whole: a crash at any moment leaves the old one or
// the new one. The directory is locked against a second process. One thread at a time.
class PolicyStore {
 public:
  // Makes the directory where it is missing. FAILED_PRECONDITION when another process uses it.
  static absl::StatusOr<std::unique_ptr<PolicyStore>> Open(const std::string& directory);

  // By model. A file that cannot be understood is left out and told in `problems`: it must not keep a server from
  // starting.
  absl::StatusOr<std::map<std::string, ModelPolicy>> Load(std::vector<absl::Status>& problems) const;
  // On disk when it returns.
  absl::Status Save(const std::string& model, const ModelPolicy& policy) const;

 private:
  explicit PolicyStore(Directory directory) : directory_(std::move(directory)) {}

  const Directory directory_;
};

// The file's text, and back.
std::string FormatPolicy(const ModelPolicy& policy);
absl::StatusOr<ModelPolicy> ParsePolicy(std::string_view text);

}  // namespace din
