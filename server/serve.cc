#include "server/serve.h"

#include <grpc/support/log.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/instruction_set.h"
#include "kernels/matrix_unit.h"
#include "model/status_macros.h"
#include "model_loader/file.h"
#include "model_loader/load_model.h"
#include "model_loader/memory.h"
#include "model_loader/memory_budget.h"
#include "model_loader/model_holder.h"
#include "model_loader/policy_store.h"
#include "model_loader/snapshot_watcher.h"
#include "server/admin_server.h"
#include "server/bind_probe.h"
#include "server/cpu_quota.h"
#include "server/event_feed.h"
#include "server/server.h"

namespace din {
namespace {

// Every connection is a descriptor, and gRPC 1.51 does not recover from having none left (grpc#20418): take all that
// the system grants.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Whole or not at all: whoever waits for the file must not read half of it.
absl::Status WritePortFile(const std::string& path, const std::vector<int>& ports) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  std::ofstream out(temporary);
  for (const int port : ports) out << port << "\n";
  out.close();
  if (out.good() && std::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("port-file: cannot write ", path, ": ", std::strerror(errno)));
}

// Waits for SIGTERM or SIGINT; 0 when none comes within the time, which may be none.
int WaitForSignal(std::chrono::milliseconds most) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  const auto end = std::chrono::steady_clock::now() + most;
  for (;;) {
    const auto left = std::max(end - std::chrono::steady_clock::now(), std::chrono::steady_clock::duration(0));
    const timespec timeout{.tv_sec = left.count() / 1'000'000'000, .tv_nsec = left.count() % 1'000'000'000};
    if (const int signal = sigtimedwait(&signals, nullptr, &timeout); signal > 0) return signal;
    if (left.count() == 0) return 0;
  }
}

// What gRPC itself has to say, errors as a rule, as events of our log: whoever asked for JSON gets JSON. gRPC calls one
// plain function for the whole process, so the log is known to all of it while this lives.
class GrpcLog {
 public:
  explicit GrpcLog(Logger& log) {
    log_ = &log;
    gpr_set_log_function(&GrpcLog::Write);
  }
  ~GrpcLog() { log_ = nullptr; }
  GrpcLog(const GrpcLog&) = delete;
  GrpcLog& operator=(const GrpcLog&) = delete;

 private:
  static void Write(gpr_log_func_args* line) {
    Logger* const log = log_;
    if (log == nullptr) return;
    const LogLevel level = line->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kError : LogLevel::kInfo;
    log->Log(level, "grpc", {{"message", line->message}, {"file", line->file}, {"line", line->line}});
  }

  static inline std::atomic<Logger*> log_ = nullptr;
};

class Process {
 public:
  Process(const Config& config, Logger& log) : config_(config), log_(log) {}

  absl::Status Start() {
    RaiseDescriptorLimit();
    if (config_.instruction_set && !LimitDenseInstructionSet(*config_.instruction_set)) {
      return absl::FailedPreconditionError("instruction-set: oneDNN has made its choice already");
    }
    DIN_RETURN_IF_ERROR(CheckModelRoot());
    for (const std::string& address : config_.listen) DIN_RETURN_IF_ERROR(ProbeBind(address));
    DIN_RETURN_IF_ERROR(MakeWatcher());
    DIN_RETURN_IF_ERROR(StartAdmin());
    DIN_RETURN_IF_ERROR(LoadUnlessStopped());
    Server::Options options;
    options.listen = config_.listen;
    options.threads = config_.threads > 0 ? static_cast<int>(config_.threads) : UsableCpus();
    options.queue = config_.queue;
    options.share_requests = config_.share_requests;
    options.pin_threads = config_.pin_threads;
    options.max_request_bytes = config_.max_request_bytes;
    options.limits = config_.limits();
    options.models = &registry_;
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options);
    if (!server.ok()) return server.status();
    {
      const std::lock_guard lock(health_);
      server_ = *std::move(server);
    }
    UpdateHealth();
    if (!config_.port_file.empty()) DIN_RETURN_IF_ERROR(WritePortFile(config_.port_file, server_->ports()));
    log_.Info("listening", {{"addresses", absl::StrJoin(server_->addresses(), ",")},
                            {"admin", admin_ == nullptr ? "none" : admin_->address()},
                            {"threads", options.threads},
                            {"queue", options.queue},
                            {"instruction_set", Name(config_.instruction_set.value_or(BestInstructionSet()))},
                            {"matrix_unit", CurrentMatrixUnit() == nullptr ? "none" : "amx"},
                            {"models", registry_.Names().size()},
                            {"ready", IsReady()},
                            {"version", DIN_VERSION}});
    watcher_->Start();
    return absl::OkStatus();
  }

  // True when every request was answered.
  bool WaitAndDrain() {
    const int signal = WaitForSignal(std::chrono::hours(24 * 365 * 100));
    watcher_->RequestStop();
    server_->BeginDrain();
    const auto delay = signal == SIGINT ? std::chrono::milliseconds(0) : config_.drain_delay;
    log_.Info("draining", {{"signal", signal == SIGINT ? "SIGINT" : "SIGTERM"},
                           {"delay_ms", delay.count()},
                           {"timeout_ms", config_.drain_timeout.count()}});
    bool hurried = WaitForSignal(delay) != 0;
    const auto hurry = [&hurried] { return hurried = hurried || WaitForSignal(std::chrono::milliseconds(0)) != 0; };
    const bool finished = server_->Drain(config_.drain_timeout, hurry);
    admin_.reset();
    watcher_->Stop();
    if (!config_.port_file.empty()) unlink(config_.port_file.c_str());
    if (finished)
      log_.Info("stopped");
    else
      log_.Warning("stopped with requests in flight",
                   {{"drain_timeout_ms", config_.drain_timeout.count()}, {"second_signal", hurried}});
    return finished;
  }

 private:
  SnapshotWatcher::Options WatcherOptions() {
    LoadOptions load;
    load.instruction_set = config_.instruction_set.value_or(BestInstructionSet());
    load.precision = config_.precision;
    load.allow_unverified = config_.allow_unverified;
    load.drift = config_.drift;
    if (config_.spare_memory) load.read.spare = &spare_;
    SnapshotWatcher::Options options;
    options.root = config_.model_root;
    options.registry = &registry_;
    options.lifecycle.keep = config_.keep;
    // What is spare is room for a load, for it is taken or given back first.
    options.memory = [this] {
      MemoryBudget memory = TightestMemoryBudget(config_.memory_limit);
      memory.used -= std::min(memory.used, spare_.bytes());
      return memory;
    };
    options.bytes_per_second = config_.load_rate;
    options.patience = config_.load_patience;
    options.load = [this, load](const LoadRequest& request) {
      LoadOptions with = load;
      with.read.memory_is_scarce = TightestMemoryBudget(config_.memory_limit).left() < request.bytes;
      with.read.room_for = [this](uint64_t bytes) {
        if (TightestMemoryBudget(config_.memory_limit).left() < bytes) spare_.KeepOnlyFor(0);
        const MemoryBudget memory = TightestMemoryBudget(config_.memory_limit);
        return memory.left() >= bytes ? absl::OkStatus() : NoRoomFor(bytes, memory, " for what the delta changes");
      };
      with.read.control = request.control;
      with.live = request.live;
      // The bounds hold what goes live by itself; who pins a version has looked at it.
      if (request.ordered) with.drift = {};
      with.read.limits.total_bytes = request.bytes;
      const bool over_live = request.live != nullptr && request.live->snapshot != nullptr && !request.chain;
      if (over_live) with.read.base = request.live->snapshot.get();
      return LoadModel(config_.model_root, request.model, request.version, with);
    };
    options.on_event = [this](const LifecycleEvent& event) { OnEvent(event); };
    options.poll_interval = config_.poll_interval;
    return options;
  }

  // Before models are loaded, so that operators can look on and decide.
  absl::Status StartAdmin() {
    AdminServer::Options options;
    options.listen = config_.admin_listen;
    if (options.listen.empty() && !config_.state_dir.empty()) {
      options.listen = absl::StrCat("unix:", config_.state_dir, "/admin.sock");
    }
    if (options.listen.empty()) return absl::OkStatus();
    options.tls_certificate = config_.admin_tls_cert;
    options.tls_key = config_.admin_tls_key;
    options.tls_client_ca = config_.admin_tls_client_ca;
    options.watcher = &*watcher_;
    options.models = &registry_;
    options.events = &events_;
    options.log = &log_;
    DIN_ASSIGN_OR_RETURN(admin_, AdminServer::Start(options));
    return absl::OkStatus();
  }

  // What publishers write and what operators decide are different people's.
  absl::Status CheckStateDirectory() const {
    const std::filesystem::path root = std::filesystem::weakly_canonical(config_.model_root);
    const std::filesystem::path state = std::filesystem::weakly_canonical(config_.state_dir);
    if (std::mismatch(root.begin(), root.end(), state.begin(), state.end()).first != root.end()) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("state-dir ", config_.state_dir, ": in the model root ", config_.model_root));
  }

  // The watcher starts with what operators decided before a restart.
  absl::Status MakeWatcher() {
    SnapshotWatcher::Options options = WatcherOptions();
    if (!config_.state_dir.empty()) {
      DIN_RETURN_IF_ERROR(CheckStateDirectory());
      absl::StatusOr<std::unique_ptr<PolicyStore>> store = PolicyStore::Open(config_.state_dir);
      if (!store.ok()) return Prefixed(absl::StrCat("state-dir ", config_.state_dir, ": "), store.status());
      store_ = *std::move(store);
      std::vector<absl::Status> problems;
      auto policies = store_->Load(problems);
      if (!policies.ok()) return Prefixed(absl::StrCat("state-dir ", config_.state_dir, ": "), policies.status());
      options.policies = *std::move(policies);
      options.store = store_.get();
      for (const absl::Status& problem : problems) {
        log_.Error("state ignored", {{"state_dir", config_.state_dir}, {"reason", std::string(problem.message())}});
      }
    }
    watcher_.emplace(std::move(options));
    return absl::OkStatus();
  }

  // A root that is missing at the start is a typing error, and not, as later, a disk that may come back.
  absl::Status CheckModelRoot() const {
    const absl::Status status = Directory::Open(config_.model_root + "/.").status();
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat("model-root: ", status.message()));
  }

  // Until every model and label serves, or a step finds nothing more: when the newest version of a model is refused,
  // the next step tries the one below. What is newer than the last good version comes when requests are served.
  void LoadWhatIsThere() {
    while (watcher_->Step(Lifecycle::Wish::kMissing)) {
    }
  }

  // CANCELLED when a signal came first. The signals are this thread's, so another one loads.
  absl::Status LoadUnlessStopped() {
    const std::future<void> loading = std::async(std::launch::async, [this] { LoadWhatIsThere(); });
    bool stopped = false;
    while (loading.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      if (WaitForSignal(std::chrono::milliseconds(5)) == 0) continue;
      stopped = true;
      watcher_->RequestStop();
    }
    return stopped ? absl::CancelledError("a signal while models were loaded") : absl::OkStatus();
  }

  // From the watcher's thread or an operator's call; never two at once.
  void OnEvent(const LifecycleEvent& event) {
    using Kind = LifecycleEvent::Kind;
    events_.Add(event);
    switch (event.kind) {
      case Kind::kLive:
        LogLive(event);
        break;
      case Kind::kRefused:
        log_.Error("model refused", {{"model", event.model},
                                     {"version", event.version},
                                     {"live_version", LiveVersion(event.model)},
                                     {"reason", std::string(event.status.message())}});
        break;
      case Kind::kPolicy:
        log_.Info("model policy", {{"model", event.model}, {"policy", event.text}});
        break;
      case Kind::kScanFailed:
        log_.Error("scan failed", {{"model", event.model}, {"reason", std::string(event.status.message())}});
        return;
      case Kind::kSaveFailed:
        log_.Error("state not saved", {{"model", event.model}, {"reason", std::string(event.status.message())}});
        return;
      case Kind::kStarved:
        log_.Warning("model starved", {{"model", event.model}, {"version", event.version}, {"reason", event.text}});
        return;
      case Kind::kFound:
        break;
      case Kind::kLoading:
      case Kind::kVerifying:
      case Kind::kKept:
      case Kind::kRetiring:
      case Kind::kRetired:
      case Kind::kCancelled:
        log_.Info(absl::StrCat("model ", Name(event.kind)), {{"model", event.model}, {"version", event.version}});
        return;
    }
    UpdateHealth();
  }

  void LogLive(const LifecycleEvent& event) {
    const ModelHandle live = registry_.Find(event.model, {.version = event.version});
    if (live == nullptr) return;
    log_.Info("model live", {{"model", event.model},
                             {"version", event.version},
                             {"digest", live->snapshot->digest()},
                             {"bytes", live->snapshot->memory_bytes()},
                             {"golden_cases", live->snapshot->golden().size()},
                             {"largest_golden_error", live->largest_golden_error},
                             {"precision", Name(live->model->precision())}});
    if (!live->precision_note.empty()) {
      log_.Warning("precision not as asked", {{"model", event.model},
                                              {"version", event.version},
                                              {"asked", Name(*live->precision_asked)},
                                              {"precision", Name(live->model->precision())},
                                              {"reason", live->precision_note}});
    }
    if (live->snapshot->unverified()) {
      log_.Warning("model has no golden cases", {{"model", event.model}, {"version", event.version}});
    }
  }

  int64_t LiveVersion(const std::string& model) const {
    const ModelHandle live = registry_.Find(model);
    return live == nullptr ? 0 : live->version;
  }

  bool IsReady() {
    const std::lock_guard lock(health_);
    return ready_;
  }

  // Once ready, the server stays so: a bad new model must not take the good ones out of rotation.
  void UpdateHealth() {
    const std::lock_guard lock(health_);
    if (server_ == nullptr) return;
    size_t live = 0;
    std::vector<std::string> not_live;
    const std::vector<ModelStatus> models = registry_.Statuses();
    for (const ModelStatus& model : models) {
      live += model.live_version != 0;
      // One that an operator unloaded is missed by nobody.
      if (model.live_version == 0 && !model.policy.unloaded) not_live.push_back(model.name);
      server_->SetModelHealth(model.name, model.live_version != 0);
    }
    const bool all = live > 0 && not_live.empty();
    const bool any = live > 0;
    if (ready_) return;
    ready_ = config_.ready_when == ReadyWhen::kAlways || (config_.ready_when == ReadyWhen::kAny ? any : all);
    server_->SetReady(ready_);
    if (ready_) return;
    log_.Warning("not ready", {{"live", live}, {"models", models.size()}, {"not_live", absl::StrJoin(not_live, ",")}});
  }

  const Config& config_;
  Logger& log_;
  bool ready_ = false;
  SpareMemory spare_;
  // The watcher goes after the server: it frees models, and by then no request may hold one.
  ModelRegistry registry_;
  std::unique_ptr<PolicyStore> store_;
  EventFeed events_;
  std::optional<SnapshotWatcher> watcher_;
  std::unique_ptr<AdminServer> admin_;
  std::mutex health_;  // of `server_` and `ready_`, which events of any thread look at
  std::unique_ptr<Server> server_;
};

}  // namespace

int Serve(const Config& config, Logger& log) {
  const GrpcLog grpc_log(log);
  Process process(config, log);
  const absl::Status status = process.Start();
  if (absl::IsCancelled(status)) {
    log.Info("stopped", {{"reason", std::string(status.message())}});
    return 0;
  }
  if (!status.ok()) {
    log.Error("cannot start", {{"reason", std::string(status.message())}});
    return 1;
  }
  return process.WaitAndDrain() ? 0 : 1;
}

}  // namespace din
