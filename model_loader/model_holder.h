// What is served: one ModelHolder for each model, and the registry in which requests find them.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model_loader/left_right.h"
#include "model_loader/lifecycle.h"
#include "model_loader/load_control.h"
#include "model_loader/load_model.h"

namespace din {

enum class ModelState {
  kEmpty,    // nothing was found yet
  kLoading,  // nothing is live; a version is being loaded
  kLive,
  kRefused,   // nothing is live; what was found was refused
  kUnloaded,  // by an operator
};

// "empty", "loading", …
const char* Name(ModelState);

// A model as an operator wants to see it. Versions are 0 where there is none.
struct ModelStatus {
  std::string name;
  int64_t live_version = 0;
  std::string live_digest;  // of its manifest
  std::chrono::system_clock::time_point live_since;
  int64_t loading_version = 0;
  bool verifying = false;                       // and it has come as far as its golden cases
  std::shared_ptr<const LoadControl> progress;  // of the load; null where there is none
  int64_t refused_version = 0;                  // the last one; a newer live one does not erase it
  absl::Status refused;                         // why
  std::vector<int64_t> kept;                    // in memory besides the live one; may be asked for
  std::vector<int64_t> incomplete;              // in the root, without a manifest
  std::vector<int64_t> retiring;                // served to nobody, but requests still use them
  ModelPolicy policy;

  ModelState state() const;
};

// Which version of a model a request wants: a number, a label, or, without either, the live one.
struct VersionChoice {
  int64_t version = 0;
  std::string label;
};

// All versions of one model that requests may get.
struct ServedVersions {
  ModelHandle live;               // null: none
  std::vector<ModelHandle> kept;  // may be asked for by version or label
  std::map<std::string, int64_t> labels;

  // Null when it is not there.
  ModelHandle Find(const VersionChoice& choice) const;
};

// One model: what is served, and its status. Every method from any thread; the const ones wait for nobody.
class ModelHolder {
 public:
  explicit ModelHolder(const std::string& name);

  // Pins the live version; null when there is none.
  ModelHandle Current() const { return Find({}); }
  ModelHandle Find(const VersionChoice& choice) const;
  // When it returns, nobody gets any other version any more, and who has one is counted in its use_count().
  void Publish(const ServedVersions& next);
  // Publish with one live version alone, and a status that says so: for a program that has no watcher.
  void Swap(ModelHandle next);

  ModelStatus Status() const;
  void SetStatus(const ModelStatus& status);

 private:
  LeftRight<ServedVersions> served_;
  LeftRight<ModelStatus> status_;
};

// Models by name. They are added and never removed. Every method from any thread; the const ones wait for nobody.
class ModelRegistry {
 public:
  // Pins a version of a model. Null when it is not served.
  ModelHandle Find(const std::string& name, const VersionChoice& choice = {}) const;
  // Of the models with a live version, ascending.
  std::vector<std::string> Names() const;

  // Of all models, by ascending name.
  std::vector<ModelStatus> Statuses() const;
  std::optional<ModelStatus> StatusOf(const std::string& name) const;

  // The holder of this name, added when it is new. Lives as long as the registry.
  ModelHolder& GetOrAdd(const std::string& name);

 private:
  using Index = std::map<std::string, ModelHolder*>;

  const ModelHolder* HolderOf(const std::string& name) const;

  LeftRight<Index> index_;
  std::mutex adding_;
  std::deque<ModelHolder> holders_;
};

}  // namespace din
