// What is live: one ModelHolder for each model, and the registry in which requests find them.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model_loader/left_right.h"
#include "model_loader/load_model.h"

namespace din {

enum class ModelState {
  kEmpty,    // nothing was found yet
  kLoading,  // nothing is live; a version is being loaded
  kLive,
  kRefused,  // nothing is live; what was found was refused
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
  int64_t refused_version = 0;  // the last one; a newer live one does not erase it
  absl::Status refused;         // why
  int64_t retired_version = 0;  // not live any more, but requests still use it

  ModelState state() const;
};

// One served model: the live version, and its status. Every method from any thread; the const ones wait for nobody.
class ModelHolder {
 public:
  explicit ModelHolder(const std::string& name);

  // Pins the live version; null when there is none.
  ModelHandle Current() const;
  // Makes `next` live and returns what was. When it returns, nobody gets the old version any more, and who has it is
  // counted in use_count().
  ModelHandle Swap(ModelHandle next);

  ModelStatus Status() const;
  void SetLoading(int64_t version);  // 0: done, whatever became of it
  void SetRefused(int64_t version, const absl::Status& why);
  void SetRetired(int64_t version);  // 0: gone

 private:
  LeftRight<ModelHandle> live_;
  LeftRight<ModelStatus> status_;
};

// Models by name. They are added and never removed. Every method from any thread; the const ones wait for nobody.
class ModelRegistry {
 public:
  // Pins a version (0: the live one) of a model. Null when it is not live.
  ModelHandle Find(const std::string& name, int64_t version) const;
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
