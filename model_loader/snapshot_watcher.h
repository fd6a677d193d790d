// Sees new versions in the model root, loads them off the serving path, makes them live, and retires the old ones.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_loader/file.h"
#include "model_loader/model_holder.h"

namespace din {

// What happened, for logs and health. Reported after the fact, except kLoading.
struct WatcherEvent {
  enum class Kind {
    kLoading,     // `version` is about to be loaded
    kLive,        // `version` is live
    kRefused,     // `version` was not loaded; `status` says why
    kRetired,     // `version` is not in memory any more
    kScanFailed,  // the root or a model's directory cannot be listed; once for each new reason
  };
  Kind kind = Kind::kLoading;
  std::string model;
  int64_t version = 0;
  absl::Status status;
};

// "loading", "live", …
const char* Name(WatcherEvent::Kind);

// For each <root>/<model>/: the highest complete version above the live one is loaded and swapped in; when it is
// refused, the next lower one above the live one is tried, and the live one goes on serving. It never goes back by
// itself, and a live version does not mind when its directory disappears. A version that was refused is tried again
// when one of its files changes, or, when memory or the disk was the reason, after a while.
//
// At most two versions of a model are in memory: live and loading. One that was replaced is kept here until the last
// request is done with it, so that no request ever frees a model, and the next load waits until then.
//
// Everything happens in Step(), on the thread that calls it: loading, checking, freeing. Start() makes a thread of the
// lowest priority that does so; use one or the other. To be destroyed when no request is running any more.
class SnapshotWatcher {
 public:
  struct Options {
    std::string root;
    ModelRegistry* registry = nullptr;  // outlives the watcher
    std::function<absl::StatusOr<ModelHandle>(const std::string& name, int64_t version)> load;
    std::function<void(const WatcherEvent&)> on_event = [](const WatcherEvent&) {};  // from Step(); should be quick
    std::chrono::milliseconds poll_interval{1000};
    std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
  };

  explicit SnapshotWatcher(Options options);
  // Stop().
  ~SnapshotWatcher();

  // One round over all models; at most one load for each.
  void Step();

  void Start();
  // Returns when the thread is gone; a load that is under way is finished first.
  void Stop();

 private:
  // A version that was not loaded, until it changes.
  struct Refusal {
    std::string stamp;
    int attempts = 0;
    std::chrono::steady_clock::time_point retry_at;
  };
  struct Model {
    ModelHolder* holder = nullptr;
    ModelHandle retired;
    std::map<int64_t, Refusal> refusals;
  };

  void StepModel(const Directory& root, const std::string& name);
  absl::StatusOr<std::vector<int64_t>> NewVersions(const Directory& root, const std::string& name, int64_t live) const;
  // True when there was something to load, whatever became of it.
  bool TryVersion(const Directory& root, const std::string& name, int64_t version, Model& model);
  void Load(const std::string& name, int64_t version, const std::string& stamp, Model& model);
  absl::StatusOr<ModelHandle> CallLoader(const std::string& name, int64_t version) const;
  void Refuse(const std::string& name, int64_t version, const std::string& stamp, const absl::Status& why,
              Model& model);
  void FreeRetired(const std::string& name, Model& model);
  void ReportScan(const std::string& what, const absl::Status& status);
  void Run(std::stop_token stop);

  const Options options_;
  std::map<std::string, Model> models_;
  std::map<std::string, absl::Status> scan_errors_;  // by the model; "" is the root
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace din
