// Sees new versions in the model root, loads them off the serving path, makes them live, keeps and retires the old
// ones.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_loader/lifecycle.h"
#include "model_loader/load_control.h"
#include "model_loader/model_holder.h"
#include "model_loader/policy_store.h"
#include "model_loader/root_scanner.h"
#include "model_loader/thread_priority.h"

namespace din {

// What is to be loaded, with what it needs to know.
struct LoadRequest {
  std::string model;
  int64_t version = 0;
  uint64_t bytes = 0;    // of memory that it may take; 0: not known
  ModelHandle live;      // what is live meanwhile; null: nothing
  bool ordered = false;  // goes live by an operator's word
  bool chain = false;    // a delta, to be loaded with all that it is built on
  LoadControl* control = nullptr;
};

// Carries out what the Lifecycle decides: it has the threads, the files and the memory, and no opinion. What goes live,
// is kept and is retired is told there.
//
// Reading, building, checking and freeing happen in Step(), on the thread that calls it, outside of any lock. Start()
// makes a thread that calls Step() and has loads done in the background (thread_priority.h); use one or the other.
// Orders come from any thread and take effect at once where they need no load. A version that was replaced stays here
// until the last request is done with it, so no request ever frees a model. To be destroyed when no request is running
// any more.
class SnapshotWatcher {
 public:
  struct Options {
    std::string root;
    ModelRegistry* registry = nullptr;            // outlives the watcher
    const PolicyStore* store = nullptr;           // null: a restart forgets what operators decided
    std::map<std::string, ModelPolicy> policies;  // from the store
    Lifecycle::Options lifecycle;
    std::function<absl::StatusOr<ModelHandle>(const LoadRequest& request)> load;
    // One at a time, from whichever thread makes it happen; should be quick, and must not call the watcher.
    std::function<void(const LifecycleEvent&)> on_event = [](const LifecycleEvent&) {};
    std::function<MemoryBudget()> memory = [] { return MemoryBudget{}; };
    uint64_t bytes_per_second = 0;             // that a load may read; 0: as fast as it goes
    std::chrono::milliseconds patience{5000};  // BackgroundOptions::patience, of what Start() does
    std::chrono::milliseconds poll_interval{1000};
    std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
  };

  explicit SnapshotWatcher(Options options);
  // Stop().
  ~SnapshotWatcher();

  // Looks at the root, frees, and does at most one load. True when there may be more to do at once.
  bool Step(Lifecycle::Wish wish = Lifecycle::Wish::kAll);

  void Start();
  // From here on nothing is loaded, and a load that is under way is given up before its next chunk.
  void RequestStop();
  // RequestStop, and returns when the thread is gone.
  void Stop();

  // Orders, from any thread; see Lifecycle. On return the decision has been written down, and it has taken effect
  // unless a version must be loaded first. INTERNAL: it has taken effect, but could not be written down, which is
  // tried again with each poll. What was published before the order is known to it: one for a version that
  // the last poll did not see looks at the root itself. One for a known version needs no disk.
  absl::Status Pin(const std::string& model, int64_t version);
  absl::Status Unpin(const std::string& model);
  absl::Status Rollback(const std::string& model, int64_t version);
  absl::Status SetLabel(const std::string& model, const std::string& label, int64_t version);
  absl::Status Unload(const std::string& model, int64_t version);
  absl::Status Load(const std::string& model);
  // True when everything that the orders so far call for has been loaded, refused and freed; waits at most that long.
  // For use with Start().
  bool WaitUntilIdle(std::chrono::milliseconds most);

 private:
  void Scan();
  bool LoadNext(Lifecycle::Wish wish);
  bool FreeRetired();
  absl::StatusOr<ModelHandle> CallLoader(const LoadRequest& request) const;
  absl::StatusOr<ModelHandle> LoadInBackground(const LoadRequest& request, const std::function<void()>& on_look);
  absl::Status Order(const std::string& model, const std::function<absl::Status(Lifecycle&)>& order);
  // What could not be saved, by model.
  std::map<std::string, absl::Status> Save();
  void ReportScan(const std::string& what, const absl::Status& status);
  void Run(std::stop_token stop);
  void Wait(std::stop_token stop);

  // With the mutex held.
  void Apply();
  void Publish(const std::string& name);
  void UpdateStatus(const std::string& name);

  const Options options_;
  std::mutex scanning_;  // taken before the others, so that an older look at the root never follows a newer one
  RootScanner scanner_;
  std::map<std::string, absl::Status> scan_errors_;  // by the model; "" is the root

  // What follows belongs to the mutex. It is held for microseconds: never while anything is loaded, freed or written.
  std::mutex mutex_;
  Lifecycle lifecycle_;
  std::map<std::string, std::map<int64_t, ModelHandle>> handles_;  // of every version in memory
  std::map<std::string, std::chrono::system_clock::time_point> live_since_;
  std::map<std::string, int64_t> published_live_;
  std::map<std::string, std::vector<int64_t>> incomplete_;  // versions in the root, by model
  std::shared_ptr<LoadControl> control_;                    // of the load under way
  std::set<std::string> unsaved_;                           // models whose policy has changed
  bool stopping_ = false;
  bool look_again_ = false;  // an order has come: do not wait for the next poll
  bool idle_ = false;        // the thread has nothing to do before the next poll

  std::mutex saving_;  // taken before the other, so that policies are written in the order of their changes
  std::map<std::string, absl::Status> save_errors_;  // by model; of `saving_`
  std::condition_variable_any wake_;
  std::optional<BackgroundThread> background_;  // of the thread of Start(), while that is there
  std::jthread thread_;
};

}  // namespace din
