#include "model_loader/snapshot_watcher.h"

#include <algorithm>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"

namespace din {
namespace {

// How often it is looked whether the last request is done with a retiring version.
constexpr std::chrono::milliseconds kRetiringPoll{10};

}  // namespace

SnapshotWatcher::SnapshotWatcher(Options options)
    : options_(std::move(options)), scanner_(options_.root), lifecycle_(options_.lifecycle) {
  for (const auto& [model, policy] : options_.policies) lifecycle_.Restore(model, policy);
}

SnapshotWatcher::~SnapshotWatcher() { Stop(); }

bool SnapshotWatcher::Step(Lifecycle::Wish wish) {
  bool busy = FreeRetired();
  Scan();
  busy |= LoadNext(wish);
  busy |= FreeRetired();
  Save();
  return busy;
}

void SnapshotWatcher::Scan() {
  const std::lock_guard scanning(scanning_);
  absl::StatusOr<std::vector<RootScanner::Model>> models = scanner_.Scan();
  ReportScan("", models.status());
  if (!models.ok()) return;
  for (const RootScanner::Model& model : *models) ReportScan(model.name, model.versions.status());
  const std::lock_guard lock(mutex_);
  std::set<std::string> gone;
  for (const auto& [name, model] : lifecycle_.models()) {
    if (model.seen) gone.insert(name);
  }
  for (RootScanner::Model& model : *models) {
    gone.erase(model.name);
    if (!model.versions.ok()) continue;
    lifecycle_.Found(model.name, *std::move(model.versions));
    const std::vector<int64_t> before = std::exchange(incomplete_[model.name], model.incomplete);
    if (before != model.incomplete) UpdateStatus(model.name);
  }
  for (const std::string& name : gone) {
    lifecycle_.Found(name, {});
    if (incomplete_.erase(name) > 0) UpdateStatus(name);
  }
  Apply();
}

bool SnapshotWatcher::LoadNext(Lifecycle::Wish wish) {
  LoadRequest request;
  std::shared_ptr<LoadControl> control;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    const std::optional<Lifecycle::LoadOrder> order = lifecycle_.NextLoad(options_.now(), options_.memory(), wish);
    if (order) {
      control = control_ =
          std::make_shared<LoadControl>(LoadControl::Options{.bytes_per_second = options_.bytes_per_second});
    }
    Apply();
    if (!order) return false;
    const auto& live = handles_[order->model].find(lifecycle_.models().at(order->model).live);
    request = {.model = order->model,
               .version = order->version,
               .bytes = order->bytes,
               .live = live == handles_[order->model].end() ? nullptr : live->second,
               .ordered = order->ordered,
               .chain = order->chain,
               .control = control.get()};
  }
  // Never from the loading thread, which may lose its core with the mutex in its hands.
  bool seen = false;
  const auto look = [&] {
    if (seen || !control->verifying()) return;
    seen = true;
    const std::lock_guard lock(mutex_);
    lifecycle_.Verifying(request.model, request.version);
    Apply();
  };
  absl::StatusOr<ModelHandle> loaded = background_ ? LoadInBackground(request, look) : CallLoader(request);
  look();
  request.live.reset();

  const std::lock_guard lock(mutex_);
  control_ = nullptr;
  if (loaded.ok()) {
    const ModelHandle& handle = handles_[request.model][request.version] = *std::move(loaded);
    const Lifecycle::Version& expected = lifecycle_.models().at(request.model).memory.at(request.version);
    const Snapshot* const snapshot = handle->snapshot.get();
    lifecycle_.Loaded(request.model, request.version,
                      snapshot == nullptr ? std::string(expected.digest) : snapshot->digest(),
                      std::max(request.bytes, snapshot == nullptr ? 0 : snapshot->memory_bytes()));
  } else {
    lifecycle_.Failed(request.model, request.version, loaded.status(), options_.now());
  }
  Apply();
  return true;
}

absl::StatusOr<ModelHandle> SnapshotWatcher::CallLoader(const LoadRequest& request) const {
  try {
    absl::StatusOr<ModelHandle> loaded = options_.load(request);
    if (loaded.ok() && *loaded == nullptr) return absl::InternalError("the loader returned no model");
    return loaded;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

// This thread decides, and holds locks that orders wait for, so it keeps its priority.
absl::StatusOr<ModelHandle> SnapshotWatcher::LoadInBackground(const LoadRequest& request,
                                                              const std::function<void()>& on_look) {
  const auto on_raise = [&](BackgroundPriority priority, std::chrono::nanoseconds starved) {
    request.control->MarkStarved();
    const std::lock_guard lock(mutex_);
    options_.on_event({.kind = LifecycleEvent::Kind::kStarved,
                       .model = request.model,
                       .version = request.version,
                       .text = absl::StrFormat("starved of a core for %.1f s; goes on at %s",
                                               std::chrono::duration<double>(starved).count(), Name(priority))});
  };
  absl::StatusOr<ModelHandle> loaded = absl::UnknownError("");
  background_->Run([&] { loaded = CallLoader(request); },
                   {.patience = options_.patience, .on_raise = on_raise, .on_look = on_look, .hurry = [&] {
                      return !request.control->Check().ok();
                    }});
  return loaded;
}

// True when something was freed.
bool SnapshotWatcher::FreeRetired() {
  std::vector<std::pair<std::string, ModelHandle>> gone;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, model] : lifecycle_.models()) {
      for (const int64_t version : model.In(VersionState::kRetiring)) {
        const auto handle = handles_[name].find(version);
        // Nobody can get it any more, so a count of one stays one.
        if (handle->second.use_count() > 1) continue;
        gone.emplace_back(name, std::move(handle->second));
        handles_[name].erase(handle);
      }
    }
  }
  for (auto& [name, handle] : gone) {
    const int64_t version = handle->version;
    // Not in the background: a thread without a core would hold locks of the heap and of the address space. It gives
    // way between pieces (MemoryRegion).
    handle.reset();
    const std::lock_guard lock(mutex_);
    lifecycle_.Freed(name, version);
    Apply();
  }
  return !gone.empty();
}

// --- Actions
// -----------------------------------------------------------------------------------------------------------

void SnapshotWatcher::Apply() {
  for (const LifecycleAction& action : lifecycle_.TakeActions()) {
    switch (action.kind) {
      case LifecycleAction::Kind::kServe:
        Publish(action.model);
        break;
      case LifecycleAction::Kind::kCancelLoad:
        if (control_ != nullptr) control_->Cancel();
        break;
      case LifecycleAction::Kind::kRelease:
        break;  // FreeRetired does it
      case LifecycleAction::Kind::kSave:
        unsaved_.insert(action.model);
        break;
      case LifecycleAction::Kind::kReport:
        UpdateStatus(action.model);
        options_.on_event(action.event);
        break;
    }
  }
}

void SnapshotWatcher::Publish(const std::string& name) {
  const Lifecycle::Model& model = lifecycle_.models().at(name);
  ServedVersions served;
  if (model.live != 0) served.live = handles_[name].at(model.live);
  for (const int64_t kept : model.In(VersionState::kKept)) served.kept.push_back(handles_[name].at(kept));
  served.labels = model.labels;
  options_.registry->GetOrAdd(name).Publish(served);
  if (std::exchange(published_live_[name], model.live) != model.live) {
    live_since_[name] = std::chrono::system_clock::now();
  }
  UpdateStatus(name);
}

void SnapshotWatcher::UpdateStatus(const std::string& name) {
  const Lifecycle::Model& model = lifecycle_.models().at(name);
  ModelStatus status;
  status.name = name;
  status.live_version = model.live;
  if (model.live != 0) {
    status.live_digest = model.memory.at(model.live).digest;
    status.live_since = live_since_[name];
  }
  for (const VersionState state : {VersionState::kLoading, VersionState::kVerifying}) {
    for (const int64_t version : model.In(state)) {
      status.loading_version = version;
      status.verifying = state == VersionState::kVerifying;
      status.progress = control_;
    }
  }
  status.refused_version = model.last_refused;
  status.refused = model.last_refusal;
  status.kept = model.In(VersionState::kKept);
  status.retiring = model.In(VersionState::kRetiring);
  if (const auto incomplete = incomplete_.find(name); incomplete != incomplete_.end()) {
    status.incomplete = incomplete->second;
  }
  status.policy = model.policy;
  options_.registry->GetOrAdd(name).SetStatus(status);
}

std::map<std::string, absl::Status> SnapshotWatcher::Save() {
  const std::lock_guard saving(saving_);
  std::map<std::string, ModelPolicy> policies;
  {
    const std::lock_guard lock(mutex_);
    for (const std::string& name : std::exchange(unsaved_, {})) policies[name] = lifecycle_.models().at(name).policy;
  }
  std::map<std::string, absl::Status> failed;
  if (options_.store == nullptr) return failed;
  for (const auto& [name, policy] : policies) {
    const absl::Status saved = options_.store->Save(name, policy);
    const absl::Status before = std::exchange(save_errors_[name], saved);
    if (saved.ok()) continue;
    failed[name] = saved;
    const std::lock_guard lock(mutex_);
    unsaved_.insert(name);
    if (saved != before) {
      options_.on_event({.kind = LifecycleEvent::Kind::kSaveFailed, .model = name, .status = saved});
    }
  }
  return failed;
}

void SnapshotWatcher::ReportScan(const std::string& what, const absl::Status& status) {
  if (status.ok()) {
    scan_errors_.erase(what);
    return;
  }
  const auto [error, added] = scan_errors_.try_emplace(what);
  if (!added && error->second == status) return;
  error->second = status;
  const std::lock_guard lock(mutex_);
  options_.on_event({.kind = LifecycleEvent::Kind::kScanFailed, .model = what, .status = status});
}

// --- Orders
// ------------------------------------------------------------------------------------------------------------

absl::Status SnapshotWatcher::Order(const std::string& model, const std::function<absl::Status(Lifecycle&)>& order) {
  const auto carry_out = [&] {
    const std::lock_guard lock(mutex_);
    const absl::Status status = order(lifecycle_);
    if (!status.ok()) return status;
    Apply();
    look_again_ = true;
    return status;
  };
  absl::Status status = carry_out();
  if (absl::IsNotFound(status)) {
    Scan();
    status = carry_out();
  }
  DIN_RETURN_IF_ERROR(status);
  wake_.notify_all();
  const std::map<std::string, absl::Status> failed = Save();
  if (!failed.contains(model)) return absl::OkStatus();
  // Nothing that a client repeats by itself: a second rollback would go back one version more.
  return absl::InternalError(absl::StrCat("carried out, but not written down, so a restart would not know it: ",
                                          std::string(failed.at(model).message())));
}

absl::Status SnapshotWatcher::Pin(const std::string& model, int64_t version) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.Pin(model, version); });
}
absl::Status SnapshotWatcher::Unpin(const std::string& model) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.Unpin(model); });
}
absl::Status SnapshotWatcher::Rollback(const std::string& model, int64_t version) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.Rollback(model, version); });
}
absl::Status SnapshotWatcher::SetLabel(const std::string& model, const std::string& label, int64_t version) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.SetLabel(model, label, version); });
}
absl::Status SnapshotWatcher::Unload(const std::string& model, int64_t version) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.Unload(model, version); });
}
absl::Status SnapshotWatcher::Load(const std::string& model) {
  return Order(model, [&](Lifecycle& lifecycle) { return lifecycle.Load(model); });
}

// --- The thread
// --------------------------------------------------------------------------------------------------------

void SnapshotWatcher::Start() {
  thread_ = std::jthread([this](std::stop_token stop) { Run(std::move(stop)); });
}

void SnapshotWatcher::RequestStop() {
  thread_.request_stop();
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  if (control_ != nullptr) control_->Cancel();
}

void SnapshotWatcher::Stop() {
  RequestStop();
  if (thread_.joinable()) thread_.join();
}

void SnapshotWatcher::Run(std::stop_token stop) {
  background_.emplace();
  while (!stop.stop_requested()) {
    if (!Step()) Wait(stop);
  }
  background_.reset();
}

// Until the next look at the root is due; retiring versions are freed as soon as the last request is done.
void SnapshotWatcher::Wait(std::stop_token stop) {
  const auto end = std::chrono::steady_clock::now() + options_.poll_interval;
  for (auto left = options_.poll_interval; left.count() > 0;) {
    std::unique_lock lock(mutex_);
    const bool retiring = std::any_of(lifecycle_.models().begin(), lifecycle_.models().end(), [](const auto& model) {
      return !model.second.In(VersionState::kRetiring).empty();
    });
    idle_ = !retiring && !look_again_;
    wake_.notify_all();
    wake_.wait_for(lock, stop, retiring ? std::min(kRetiringPoll, left) : left, [this] { return look_again_; });
    idle_ = false;
    const bool order = std::exchange(look_again_, false);
    lock.unlock();
    if (order || stop.stop_requested()) return;
    if (FreeRetired()) return;  // perhaps a load has waited for it
    left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  }
}

bool SnapshotWatcher::WaitUntilIdle(std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, most, [this] { return idle_ && !look_again_; });
}

}  // namespace din
