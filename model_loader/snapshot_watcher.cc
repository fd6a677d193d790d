#include "model_loader/snapshot_watcher.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/manifest.h"
#include "model_loader/thread_priority.h"

namespace din {
namespace {

using std::chrono::steady_clock;

constexpr auto kFirstRetry = std::chrono::seconds(5);
constexpr auto kLongestRetry = std::chrono::minutes(5);

// "12"; not "012", "+12" or "0".
std::optional<int64_t> ParseVersion(std::string_view name) {
  int64_t version = 0;
  const char* const end = name.data() + name.size();
  if (name.empty() || name.front() < '1' || name.front() > '9') return std::nullopt;
  const auto [stop, error] = std::from_chars(name.data(), end, version);
  return error == std::errc() && stop == end ? std::optional(version) : std::nullopt;
}

// A version's directory from outside. The stamp changes when somebody republishes it, or when a copy that came without
// a rename goes on.
struct Seen {
  bool complete = false;  // there is a manifest
  std::string stamp;
};

absl::StatusOr<Seen> Look(const Directory& root, const std::string& model, int64_t version) {
  DIN_ASSIGN_OR_RETURN(const Directory model_directory, root.OpenDirectory(model));
  DIN_ASSIGN_OR_RETURN(const Directory directory, model_directory.OpenDirectory(absl::StrCat(version)));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory.List());
  Seen seen;
  for (const std::string& name : names) {
    DIN_ASSIGN_OR_RETURN(const FileStamp file, directory.StampOf(name));
    absl::StrAppend(&seen.stamp, name, " ", file.inode, " ", file.size, " ", file.modified_ns, "\n");
    seen.complete |= name == kManifestName;
  }
  return seen;
}

// Not the snapshot's fault: may go better later with the same bytes.
bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsAborted(status) ||
         absl::IsPermissionDenied(status);
}

}  // namespace

const char* Name(WatcherEvent::Kind kind) {
  switch (kind) {
    case WatcherEvent::Kind::kLoading:
      return "loading";
    case WatcherEvent::Kind::kLive:
      return "live";
    case WatcherEvent::Kind::kRefused:
      return "refused";
    case WatcherEvent::Kind::kRetired:
      return "retired";
    case WatcherEvent::Kind::kScanFailed:
      return "scan failed";
  }
  return "?";
}

SnapshotWatcher::SnapshotWatcher(Options options) : options_(std::move(options)) {}

SnapshotWatcher::~SnapshotWatcher() { Stop(); }

void SnapshotWatcher::Step() {
  for (auto& [name, model] : models_) FreeRetired(name, model);
  const absl::StatusOr<Directory> root = Directory::Open(options_.root + "/.");  // "/.": the root may be a link
  if (!root.ok()) return ReportScan("", root.status());
  const absl::StatusOr<std::vector<std::string>> names = root->List();
  ReportScan("", names.status());
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (name.front() != '.') StepModel(*root, name);
  }
}

void SnapshotWatcher::StepModel(const Directory& root, const std::string& name) {
  const std::optional<ModelStatus> status = options_.registry->StatusOf(name);
  const int64_t live = status ? status->live_version : 0;
  const auto versions = NewVersions(root, name, live);
  ReportScan(name, versions.status());
  if (!versions.ok()) return;
  Model& model = models_[name];
  if (model.holder == nullptr) model.holder = &options_.registry->GetOrAdd(name);
  std::erase_if(model.refusals, [&](const auto& refusal) {
    return !std::binary_search(versions->begin(), versions->end(), refusal.first, std::greater<>());
  });
  if (model.retired != nullptr) return;  // live and loading are two: no third
  for (const int64_t version : *versions) {
    if (TryVersion(root, name, version, model)) return;
  }
}

// Descending: the newest first.
absl::StatusOr<std::vector<int64_t>> SnapshotWatcher::NewVersions(const Directory& root, const std::string& name,
                                                                  int64_t live) const {
  DIN_ASSIGN_OR_RETURN(const Directory directory, root.OpenDirectory(name));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> entries, directory.List());
  std::vector<int64_t> versions;
  for (const std::string& entry : entries) {
    const std::optional<int64_t> version = ParseVersion(entry);
    if (version && *version > live) versions.push_back(*version);
  }
  std::sort(versions.begin(), versions.end(), std::greater<>());
  return versions;
}

bool SnapshotWatcher::TryVersion(const Directory& root, const std::string& name, int64_t version, Model& model) {
  const absl::StatusOr<Seen> seen = Look(root, name, version);
  if (absl::IsNotFound(seen.status())) return false;  // it went away under our eyes
  const std::string stamp = seen.ok() ? seen->stamp : seen.status().ToString();
  const auto refusal = model.refusals.find(version);
  if (refusal != model.refusals.end() && refusal->second.stamp == stamp && options_.now() < refusal->second.retry_at) {
    return false;
  }
  if (!seen.ok()) {
    Refuse(name, version, stamp, seen.status(), model);
    return false;
  }
  if (!seen->complete) return false;
  Load(name, version, stamp, model);
  return true;
}

void SnapshotWatcher::Load(const std::string& name, int64_t version, const std::string& stamp, Model& model) {
  model.holder->SetLoading(version);
  options_.on_event({.kind = WatcherEvent::Kind::kLoading, .model = name, .version = version});
  absl::StatusOr<ModelHandle> loaded = CallLoader(name, version);
  model.holder->SetLoading(0);
  if (!loaded.ok()) return Refuse(name, version, stamp, loaded.status(), model);
  model.retired = model.holder->Swap(*std::move(loaded));
  model.refusals.erase(version);
  if (model.retired != nullptr) model.holder->SetRetired(model.retired->version);
  options_.on_event({.kind = WatcherEvent::Kind::kLive, .model = name, .version = version});
  FreeRetired(name, model);
}

absl::StatusOr<ModelHandle> SnapshotWatcher::CallLoader(const std::string& name, int64_t version) const {
  try {
    absl::StatusOr<ModelHandle> loaded = options_.load(name, version);
    if (loaded.ok() && *loaded == nullptr) return absl::InternalError("the loader returned no model");
    return loaded;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

void SnapshotWatcher::Refuse(const std::string& name, int64_t version, const std::string& stamp,
                             const absl::Status& why, Model& model) {
  Refusal& refusal = model.refusals[version];
  refusal.attempts = refusal.stamp == stamp ? refusal.attempts + 1 : 1;
  refusal.stamp = stamp;
  refusal.retry_at = steady_clock::time_point::max();
  if (IsTransient(why)) {
    const int doublings = std::min(refusal.attempts - 1, 10);
    refusal.retry_at = options_.now() + std::min<steady_clock::duration>(kFirstRetry * (1 << doublings), kLongestRetry);
  }
  model.holder->SetRefused(version, why);
  options_.on_event({.kind = WatcherEvent::Kind::kRefused, .model = name, .version = version, .status = why});
}

void SnapshotWatcher::FreeRetired(const std::string& name, Model& model) {
  // Nobody can get it any more, so a count of one stays one.
  if (model.retired == nullptr || model.retired.use_count() > 1) return;
  const int64_t version = model.retired->version;
  model.retired.reset();
  model.holder->SetRetired(0);
  options_.on_event({.kind = WatcherEvent::Kind::kRetired, .model = name, .version = version});
}

void SnapshotWatcher::ReportScan(const std::string& what, const absl::Status& status) {
  if (status.ok()) {
    scan_errors_.erase(what);
    return;
  }
  const auto [error, added] = scan_errors_.try_emplace(what);
  if (!added && error->second == status) return;
  error->second = status;
  options_.on_event({.kind = WatcherEvent::Kind::kScanFailed, .model = what, .status = status});
}

void SnapshotWatcher::Start() {
  thread_ = std::jthread([this](std::stop_token stop) { Run(std::move(stop)); });
}

void SnapshotWatcher::Stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void SnapshotWatcher::Run(std::stop_token stop) {
  LowerThreadPriority();
  while (!stop.stop_requested()) {
    Step();
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop, options_.poll_interval, [] { return false; });
  }
}

}  // namespace din
