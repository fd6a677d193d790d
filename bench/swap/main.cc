// swap_bench: does anybody notice when a model is swapped?
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/load/clock.h"
#include "bench/load/engine.h"
#include "bench/load/find_max.h"
#include "bench/load/flags.h"
#include "bench/load/objective.h"
#include "bench/load/process_usage.h"
#include "bench/load/summary.h"
#include "bench/machine.h"
#include "bench/swap/phases.h"
#include "bench/swap/picture.h"
#include "bench/swap/server_process.h"
#include "bench/swap/version_stock.h"
#include "nlohmann/json.hpp"
#include "proto/admin.grpc.pb.h"
#include "proto/scoring.grpc.pb.h"

namespace din::swap {
namespace {

using load::NowNs;

constexpr char kModel[] = "ads";
constexpr char kOther[] = "other";
constexpr int64_t kSecond = 1'000'000'000;

struct Options {
  std::string server;
  std::string server_flags;
  std::string directory;
  uint64_t table_bytes = uint64_t{1} << 30;
  uint64_t other_bytes = uint64_t{256} << 20;
  size_t candidates = 200;
  size_t behaviours = 50;
  size_t requests = 16;
  int64_t swaps = 20;
  double every_seconds = 5;
  int64_t other_every = 4;
  int64_t refused_every = 5;
  int64_t rollback_every = 7;
  int64_t delta_every = 0;
  double delta_share = 0.01;
  int64_t restarts = 0;
  double rate = 0;  // 0: to be found
  std::string objective = "p99<20ms";
  double share = 0.7;
  double probe_seconds = 4;
  load::Scheduling scheduling = load::Scheduling::kOrdinary;
  uint64_t seed = 1;
  std::string json_file;
  std::string picture_file;
};

std::vector<load::Flag> Flags(Options& o) {
  using namespace load;
  return {
      {"", "", "Server", {}},
      {"server", "PROGRAM", "din-server to start (the one beside this program)", Text(&o.server)},
      {"server-flags", "FLAGS", "more of its flags, with spaces between", Text(&o.server_flags)},
      {"", "", "Models", {}},
      {"dir", "DIRECTORY", "where a temporary directory for them is made ($TMPDIR or /tmp)", Text(&o.directory)},
      {"table-bytes", "BYTES", "embedding table of the model that answers (1GiB); two of them on disk",
       Bytes(&o.table_bytes)},
      {"other-bytes", "BYTES", "embedding table of the other model (256MiB); likewise", Bytes(&o.other_bytes)},
      {"", "", "Swaps", {}},
      {"swaps", "N", "publications and rollbacks, refused ones and those of the other model included (20)",
       Within(&o.swaps, 1, 1e6)},
      {"every", "TIME", "between two of them, or longer when a load takes longer (5s)", Seconds(&o.every_seconds)},
      {"other-every", "N", "each N-th is of the other model; 0: none (4)", Within(&o.other_every, 0, 1e6)},
      {"refused-every", "N", "each N-th of the others must be refused; 0: none (5)", Within(&o.refused_every, 0, 1e6)},
      {"rollback-every", "N", "each N-th of the rest is a rollback to the version before; 0: none (7)",
       Within(&o.rollback_every, 0, 1e6)},
      {"delta-every", "N", "each N-th of the rest is a delta; 0: none (0)", Within(&o.delta_every, 0, 1e6)},
      {"delta-share", "SHARE", "of the rows, which it changes (0.01)", Within(&o.delta_share, 0.0001, 0.5)},
      {"restarts", "N", "afterwards, kill -9 and start again, the files no longer cached (0)",
       Within(&o.restarts, 0, 1000)},
      {"", "", "Load", {}},
      {"rate", "N", "requests per second (share of the highest that keeps the objective)", Within(&o.rate, 1, 1e7)},
      {"objective", "OBJECTIVE", "what the highest rate keeps (p99<20ms)", Text(&o.objective)},
      {"share", "SHARE", "of the highest rate (0.7)", Within(&o.share, 0.01, 1)},
      {"probe", "TIME", "length of one try of the search (4s)", Seconds(&o.probe_seconds)},
      {"candidates", "N", "of a request (200)", Within(&o.candidates, 1, 4096)},
      {"behaviours", "N", "of a request (50)", Within(&o.behaviours, 0, 4096)},
      {"requests", "N", "distinct requests (16)", Within(&o.requests, 1, 4096)},
      {"scheduling", "KIND", "ordinary or realtime: the latter keeps a busy server off our threads (ordinary)",
       Choice<Scheduling>(&o.scheduling, {{"ordinary", Scheduling::kOrdinary}, {"realtime", Scheduling::kRealtime}})},
      {"seed", "N", "of models, requests and arrivals (1)", Within(&o.seed, 0, 1e15)},
      {"", "", "Output", {}},
      {"json", "FILE", "all figures", Text(&o.json_file)},
      {"picture", "FILE", "the latency line with swap marks, as SVG", Text(&o.picture_file)},
  };
}

std::string HelpText() {
  Options options;
  return absl::StrCat(
      "swap_bench: what a request sees of model swaps\n\n"
      "Starts a din-server, sends requests on schedule, publishes versions of the model that answers and of another\n"
      "one beside it, some of which must be refused, and rolls back. Every answer is compared, bit for bit, with the\n"
      "scores of the version that it names.\n\n"
      "  swap_bench --swaps 100 --scheduling realtime --picture swaps.svg\n"
      "  swap_bench --table-bytes 16MiB --other-bytes 4MiB --swaps 10 --every 1s --rate 200\n",
      load::FormatFlags(Flags(options)),
      "\nExit code: 0 well; 1 could not run; 2 wrong usage; 3 the run is invalid; 4 a request failed or got a wrong "
      "answer.\n");
}

// A directory that goes away with us.
class Scratch {
 public:
  static absl::StatusOr<std::unique_ptr<Scratch>> Create(const std::string& parent) {
    std::string path = parent + "/swap_bench-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) {
      return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
    }
    return std::make_unique<Scratch>(path);
  }
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

// What was seen of the server while the load ran.
struct Log {
  std::vector<ModelEvent> events;
  std::vector<std::pair<int64_t, int64_t>> resident;  // time, bytes
  std::vector<std::string> surprises;                 // a version that should have gone live did not, or the reverse
  int64_t swaps = 0, refusals = 0;
  std::vector<double> full_seconds, delta_seconds;  // from publication to live, of the model that answers
  std::vector<double> rollback_seconds;             // from the order to its answer
  std::vector<Strain> strains;
  int64_t peak_bytes = 0;
};

// Publishes one version after the other, and watches.
class Publisher {
 public:
  Publisher(const Options& options, ServerProcess& server, v1::AdminService::Stub& admin, VersionStock& stock,
            VersionStock& other)
      : options_(options), server_(server), admin_(admin), models_{{kModel, &stock, 1, 1}, {kOther, &other, 1, 1}} {}

  Log Run() {
    Wait(2 * kSecond);
    const int64_t begin = NowNs();
    for (int64_t n = 1; n <= options_.swaps && server_.running(); ++n) {
      // Of what the ones before have left.
      const auto each = [](int64_t every, int64_t& count) { return every > 0 && ++count % every == 0; };
      const bool to_other = each(options_.other_every, others_);
      Model& model = models_[to_other ? 1 : 0];
      const bool bad = !to_other && each(options_.refused_every, refused_);
      const bool back = !to_other && !bad && model.before != 0 && each(options_.rollback_every, rollbacks_);
      const bool delta = !to_other && !bad && !back && each(options_.delta_every, deltas_);
      absl::FPrintF(stderr, "%5d of %d, %5.0f s  ", n, options_.swaps, static_cast<double>(NowNs() - begin) * 1e-9);
      if (back) {
        RollBack(model);
      } else {
        PublishOne(model, delta, bad ? static_cast<Fault>(1 + refused_ / options_.refused_every % 3) : Fault::kNone);
      }
      const double at = static_cast<double>(NowNs() - begin) * 1e-9;
      Wait(static_cast<int64_t>(std::max(0.0, static_cast<double>(n) * options_.every_seconds - at) * 1e9));
    }
    Wait(2 * kSecond);
    log_.peak_bytes = ReadPeakBytes(server_.pid());
    return std::move(log_);
  }

 private:
  struct Model {
    std::string name;
    VersionStock* stock;
    int64_t version;  // published last
    int64_t live;
    int64_t before = 0;  // live before that, and in memory; 0: none
  };

  void RollBack(Model& model) {
    v1::OrderRequest request;
    request.set_model(model.name);
    v1::OrderResponse response;
    grpc::ClientContext context;
    const int64_t since = NowNs();
    const grpc::Status status = admin_.Rollback(&context, request, &response);
    const double seconds = static_cast<double>(NowNs() - since) * 1e-9;
    absl::FPrintF(stderr, "%-28s %s after %.3f s\n", absl::StrCat(model.name, " ", model.live, " (rollback)"),
                  status.ok() ? absl::StrCat(response.status().live_version(), " live") : status.error_message(),
                  seconds);
    if (!status.ok() || response.status().live_version() != model.before) {
      log_.surprises.push_back(absl::StrCat("rollback of ", model.name, " ", model.live, " to ", model.before, ": ",
                                            status.ok() ? "another version is live" : status.error_message()));
      return;
    }
    log_.rollback_seconds.push_back(seconds);
    model.live = std::exchange(model.before, 0);
  }

  void PublishOne(Model& model, bool delta, Fault fault) {
    const int64_t version = ++model.version, since = NowNs();
    const absl::Status status =
        delta ? model.stock->PublishDelta(version, model.live) : model.stock->Publish(version, fault);
    if (!status.ok()) {
      log_.surprises.push_back(absl::StrCat("cannot publish: ", status.ToString()));
      return;
    }
    constexpr int64_t kPatience = 120 * kSecond;
    std::optional<ModelEvent> end;
    while (!end && NowNs() < since + kPatience && server_.running()) {
      Wait(20'000'000);
      end = EndOf(model.name, version);
    }
    const std::string what = absl::StrCat(model.name, " ", version, " (", delta ? "delta" : Name(fault), ")");
    const bool live = end && end->kind == ModelEvent::Kind::kLive;
    if (!end || live != (fault == Fault::kNone)) {
      log_.surprises.push_back(absl::StrCat(what, !end   ? ": nothing came of it within 2 minutes"
                                                  : live ? ": went live"
                                                         : absl::StrCat(": was refused: ", end->reason)));
    }
    ++(live ? log_.swaps : log_.refusals);
    const double seconds = static_cast<double>((end ? end->at_ns : NowNs()) - since) * 1e-9;
    absl::FPrintF(stderr, "%-28s %s after %.2f s\n", what, end ? Name(end->kind) : "?", seconds);
    if (live) model.before = std::exchange(model.live, version);
    if (live && model.name == kModel) (delta ? log_.delta_seconds : log_.full_seconds).push_back(seconds);
    model.stock->RemoveBefore(version - 3, model.live);
  }

  std::optional<ModelEvent> EndOf(const std::string& model, int64_t version) const {
    for (auto event = log_.events.rbegin(); event != log_.events.rend(); ++event) {
      if (event->model == model && event->version == version && event->kind != ModelEvent::Kind::kLoading)
        return *event;
    }
    return std::nullopt;
  }

  // Looks at the server's log and memory until then.
  void Wait(int64_t ns) {
    const int64_t end = NowNs() + ns;
    do {
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::clamp<int64_t>(end - NowNs(), 0, 20'000'000)));
      for (ModelEvent& event : server_.TakeEvents()) log_.events.push_back(std::move(event));
      if (!log_.resident.empty() && NowNs() < log_.resident.back().first + kSecond / 10) continue;
      if (const auto usage = load::ReadProcessUsage(server_.pid())) {
        log_.resident.emplace_back(NowNs(), usage->resident_bytes);
        log_.strains.push_back(ReadStrain(server_.pid()));
      }
    } while (NowNs() < end);
  }

  const Options& options_;
  ServerProcess& server_;
  v1::AdminService::Stub& admin_;
  Model models_[2];
  int64_t others_ = 0, refused_ = 0, rollbacks_ = 0, deltas_ = 0;  // that came into question
  Log log_;
};

absl::Status Different(int64_t version, size_t candidate, float got, float expected) {
  return absl::DataLossError(absl::StrFormat("version %d, candidate %d: %.9g, but that version gives %.9g", version,
                                             candidate, got, expected));
}

// Bit for bit.
absl::Status JudgeScores(const VersionStock& stock, size_t request, const v1::ScoreResponse& response) {
  const std::span<const float> expected = stock.Expected(response.version(), request);
  if (expected.empty())
    return absl::DataLossError(absl::StrCat("version ", response.version(), " was never published"));
  for (int rank = 0; rank < response.scores_size(); ++rank) {
    const float want = expected[response.index(rank)], got = response.scores(rank);
    if (std::memcmp(&want, &got, sizeof(float)) != 0) {
      return Different(response.version(), response.index(rank), got, want);
    }
  }
  return absl::OkStatus();
}

// After a kill -9.
struct Restart {
  double right_seconds = 0;  // from the start to the first answer, which is right
  double disk_seconds = 0;   // to read the same files from the disk, and nothing else
};

// Drops the files of the model root from the page cache.
void Uncache(const std::string& root) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    const int file = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
  }
}

// Until somebody listens; gRPC itself would wait a second before it tries again.
void WaitForListener(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  for (const int64_t end = NowNs() + 120 * kSecond; NowNs() < end;) {
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool there = connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    close(probe);
    if (there) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

double SecondsToRead(const std::string& directory) {
  const int64_t begin = NowNs();
  std::vector<char> piece(size_t{1} << 20);
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    while (file.read(piece.data(), static_cast<std::streamsize>(piece.size()))) {
    }
  }
  return static_cast<double>(NowNs() - begin) * 1e-9;
}

struct Result {
  double rate = 0;
  std::optional<load::FindMaxResult> highest;
  load::RunSummary summary;
  Log log;
  std::vector<Request> requests;
  std::map<Phase, PhaseLatency> phases;
  std::map<Phase, PhaseLatency> phases_with_stolen;  // without regard to what a hypervisor took
  StrainByPhase strain;
  std::vector<Window> stolen;
  int64_t stale_ns = 0;
  int64_t begin_ns = 0, end_ns = 0;
  uint64_t version_bytes = 0;  // of the model that answers
  std::vector<Restart> restarts;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  absl::StatusOr<Result> Run() {
    absl::StatusOr<std::unique_ptr<Scratch>> scratch = Scratch::Create(options_.directory);
    if (!scratch.ok()) return scratch.status();
    const std::string root = (*scratch)->path() + "/models";
    VersionStock::Options stock{.directory = (*scratch)->path() + "/stock",
                                .root = root,
                                .model = kModel,
                                .table_bytes = options_.table_bytes,
                                .requests = options_.requests,
                                .candidates = options_.candidates,
                                .behaviours = options_.behaviours,
                                .delta_share = options_.delta_share,
                                .seed = options_.seed};
    absl::FPrintF(stderr, "writing models to %s\n", (*scratch)->path());
    auto main = VersionStock::Create(stock);
    if (!main.ok()) return main.status();
    stock_ = main->get();
    stock.model = kOther;
    stock.table_bytes = options_.other_bytes;
    stock.seed = options_.seed + 1;
    stock.requests = 1;
    auto other = VersionStock::Create(stock);
    if (!other.ok()) return other.status();
    for (VersionStock* one : {main->get(), other->get()}) {
      if (absl::Status status = one->Publish(1, Fault::kNone); !status.ok()) return status;
    }

    const std::string socket = absl::StrCat("unix:", (*scratch)->path(), "/socket");
    const std::string state = (*scratch)->path() + "/state";
    std::vector<std::string> arguments = {options_.server, "--model-root",    root,  "--listen",
                                          socket,          "--state-dir",     state, "--log-format",
                                          "json",          "--poll-interval", "50ms"};
    for (const std::string& flag :
         std::vector<std::string>(absl::StrSplit(options_.server_flags, ' ', absl::SkipEmpty()))) {
      arguments.push_back(flag);
    }
    const std::string log = (*scratch)->path() + "/server.log";
    auto server = ServerProcess::Start(arguments, log);
    if (!server.ok()) return server.status();
    const auto channels = load::Connect({.address = socket}, 120);
    if (!channels.ok() || !(*server)->running()) {
      std::ifstream text(log);
      const std::string all{std::istreambuf_iterator<char>(text), {}};
      return absl::UnavailableError(absl::StrCat("the server did not come up:\n", all));
    }
    const absl::Status status = Prepare();
    if (!status.ok()) return status;

    Result result{.rate = options_.rate};
    if (result.rate == 0) {
      auto highest = FindRate(*channels);
      if (!highest.ok()) return highest.status();
      result.highest = *highest;
      result.rate = highest->rate * options_.share;
    }
    if (result.rate < 1) {
      return absl::UnavailableError(absl::StrCat("no rate keeps the objective, bounded by ", result.highest->bounded_by));
    }
    const auto admin = v1::AdminService::NewStub(
        grpc::CreateChannel(absl::StrCat("unix:", state, "/admin.sock"), grpc::InsecureChannelCredentials()));
    result.version_bytes = stock_->version_bytes();
    Measure(*channels, **server, *admin, *other->get(), result);
    for (int64_t n = 0; n < options_.restarts; ++n) {
      auto restart = KillAndStart(arguments, log, socket, root, *server);
      if (!restart.ok()) return restart.status();
      absl::FPrintF(stderr, "restart %d: right after %.2f s, reading the files takes %.2f s\n", n + 1,
                    restart->right_seconds, restart->disk_seconds);
      result.restarts.push_back(*restart);
    }
    return result;
  }

 private:
  // What is live in the end has to be what answers after it.
  absl::StatusOr<Restart> KillAndStart(const std::vector<std::string>& arguments, const std::string& log,
                                       const std::string& socket, const std::string& root,
                                       std::unique_ptr<ServerProcess>& server) {
    const auto channels = load::Connect({.address = socket}, 1);
    const auto before = channels.ok() ? Ask(*channels) : channels.status();
    if (!before.ok()) return before.status();
    server->Kill();
    std::vector<std::string> live = stock_->Chain(*before);
    live.push_back(NewestOf(absl::StrCat(root, "/", kOther)));
    Restart restart;
    Uncache(root);
    for (const std::string& directory : live) restart.disk_seconds += SecondsToRead(directory);
    Uncache(root);
    const int64_t begin = NowNs();
    auto started = ServerProcess::Start(arguments, log);
    if (!started.ok()) return started.status();
    server = *std::move(started);
    WaitForListener(socket.substr(std::string("unix:").size()));
    const auto again = load::Connect({.address = socket}, 120);
    const auto after = again.ok() ? Ask(*again) : again.status();
    if (!after.ok()) return after.status();
    restart.right_seconds = static_cast<double>(NowNs() - begin) * 1e-9;
    if (*after != *before) {
      return absl::InternalError(absl::StrCat("version ", *before, " was live, and after a restart ", *after));
    }
    return restart;
  }

  static std::string NewestOf(const std::string& model) {
    int64_t newest = 0;
    for (const auto& entry : std::filesystem::directory_iterator(model)) {
      newest = std::max<int64_t>(newest, std::atoll(entry.path().filename().c_str()));
    }
    return absl::StrCat(model, "/", newest);
  }

  // The version that answers, with scores that are its own.
  absl::StatusOr<int64_t> Ask(const load::Channels& channels) const {
    const auto stub = v1::ScoringService::NewStub(channels.front());
    v1::ScoreResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub->Score(&context, stock_->requests().front(), &response);
    if (!status.ok()) return absl::UnavailableError(status.error_message());
    const absl::Status right = JudgeScores(*stock_, 0, response);
    if (!right.ok()) return right;
    return response.version();
  }

  absl::Status Prepare() {
    load::RequestSetBuilder builder("drawn");
    for (const v1::ScoreRequest& request : stock_->requests()) builder.Add(request);
    absl::StatusOr<load::RequestSet> set = std::move(builder).Build();
    if (!set.ok()) return set.status();
    requests_ = *std::move(set);
    engine_.scheduling = options_.scheduling;
    engine_.judge = [this](size_t request, const v1::ScoreResponse& response) {
      return JudgeScores(*stock_, request, response);
    };
    return absl::OkStatus();
  }

  absl::StatusOr<load::RunPlan> Plan(double rate, double seconds, double warm_up) const {
    const auto schedule = load::Schedule::Create({{rate, rate, seconds}});
    if (!schedule.ok()) return schedule.status();
    return load::RunPlan{.schedule = schedule->WithWarmUp(warm_up), .warm_up_seconds = warm_up, .seed = options_.seed};
  }

  absl::StatusOr<load::FindMaxResult> FindRate(const load::Channels& channels) const {
    const auto objective = load::ParseObjective(options_.objective);
    if (!objective.ok()) return objective.status();
    absl::FPrintF(stderr, "looking for the highest rate with %s\n", objective->text);
    const auto probe = [&](double rate) -> absl::StatusOr<load::Verdict> {
      const auto plan = Plan(rate, options_.probe_seconds, 1);
      if (!plan.ok()) return plan.status();
      const std::atomic<bool> stop = false;
      const load::RunOutcome outcome = load::Run(channels, requests_, *plan, engine_, stop, [](const auto&) {});
      const load::RunSummary summary = load::Summarise(outcome, *objective);
      absl::FPrintF(stderr, "  %6.0f/s: p99 %.2f ms%s\n", rate, summary.latency.p99 * 1e-3,
                    summary.invalid.empty() ? "" : absl::StrCat("  INVALID: ", summary.invalid.front()));
      if (!load::Meets(summary, *objective)) return load::Verdict::kMissed;
      return summary.invalid.empty() ? load::Verdict::kMet : load::Verdict::kUnproven;
    };
    return load::FindMax({.start = 300, .precision = 0.05}, probe);
  }

  void Measure(const load::Channels& channels, ServerProcess& server, v1::AdminService::Stub& admin,
               VersionStock& other, Result& result) {
    absl::FPrintF(stderr, "%d publications, one every %g s, at %.0f requests/s\n", options_.swaps,
                  options_.every_seconds, result.rate);
    std::mutex mutex;
    load::EngineOptions engine = engine_;
    engine.on_sample = [&](int64_t due_ns, const load::Sample& sample) {
      const std::lock_guard lock(mutex);
      result.requests.push_back({.due_ns = due_ns,
                                 .latency_ns = sample.latency_ns,
                                 .ok = sample.outcome == load::kOk,
                                 .version = sample.version});
    };
    std::atomic<bool> stop = false;
    result.begin_ns = NowNs() + kSecond;  // behind the warm-up
    std::thread publisher([&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      result.log = Publisher(options_, server, admin, *stock_, other).Run();
      stop = true;
    });
    // The publisher ends the run; a load may take two minutes before it is called lost.
    const double longest = static_cast<double>(options_.swaps) * (options_.every_seconds + 120) + 10;
    load::RunOutcome outcome =
        load::Run(channels, requests_, *Plan(result.rate, longest, 1), engine, stop, [](const auto&) {});
    publisher.join();
    result.end_ns = NowNs();
    outcome.stopped = false;  // by us
    result.summary = load::Summarise(outcome, std::nullopt);
    std::erase_if(result.requests, [&](const Request& request) { return request.due_ns < result.begin_ns; });
    SharpenLiveTimes(result.requests, kModel, result.log.events);
    std::vector<Window> windows = FindWindows(result.log.events, kModel);
    result.strain = SumStrain(result.log.strains, windows);
    result.phases_with_stolen = LatencyByPhase(result.requests, windows);
    const int cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    result.stolen = FindStolen(result.log.strains, cores);
    std::ranges::copy(result.stolen, std::back_inserter(windows));
    result.phases = LatencyByPhase(result.requests, windows);
    result.stale_ns = LongestStaleNs(result.requests, result.log.events, kModel);
  }

  const Options& options_;
  VersionStock* stock_ = nullptr;
  load::RequestSet requests_;
  load::EngineOptions engine_;
};

uint64_t Failed(const Result& result) {
  return static_cast<uint64_t>(std::ranges::count_if(result.requests, [](const Request& r) { return !r.ok; }));
}

uint64_t Wrong(const Result& result) {
  const auto wrong = result.summary.errors.find(std::string(load::Name(load::kWrongAnswer)));
  return wrong == result.summary.errors.end() ? 0 : wrong->second;
}

// Of the server, in MiB: at the beginning, the most by the kernel's count, at the end.
struct Memory {
  double begin = 0, peak = 0, end = 0;
  double peak_share = 0;  // of the beginning and one version more
};
Memory MemoryOf(const Result& result) {
  constexpr double kMiB = 1 << 20;
  if (result.log.resident.empty()) return {};
  Memory memory{.begin = static_cast<double>(result.log.resident.front().second) / kMiB,
                .peak = static_cast<double>(result.log.peak_bytes) / kMiB,
                .end = static_cast<double>(result.log.resident.back().second) / kMiB};
  memory.peak_share = memory.peak / (memory.begin + static_cast<double>(result.version_bytes) / kMiB);
  return memory;
}

std::string ToText(const std::map<Phase, PhaseLatency>& phases) {
  std::string text = absl::StrFormat("\n%-22s %9s %9s %9s %9s %9s %8s %8s %7s\n", "", "requests", "p50 ms", "p99 ms",
                                     "p99.9 ms", "max ms", "p99 x", "p99.9 x", "failed");
  const auto found = phases.find(Phase::kSteady);
  const PhaseLatency steady = found == phases.end() ? PhaseLatency() : found->second;
  for (const Phase phase : kPhases) {
    const auto at = phases.find(phase);
    if (at == phases.end()) continue;
    const PhaseLatency& l = at->second;
    const auto ratio = [&](double here, double there) {
      return there > 0 ? absl::StrFormat("%.2f", here / there) : "";
    };
    absl::StrAppendFormat(&text, "%-22s %9d %9.2f %9.2f %9.2f %9.2f %8s %8s %7d\n", Name(phase), l.requests,
                          l.p50_us * 1e-3, l.p99_us * 1e-3, l.p999_us * 1e-3, l.max_us * 1e-3,
                          ratio(l.p99_us, steady.p99_us), ratio(l.p999_us, steady.p999_us), l.failed);
  }
  return text;
}

std::string ToText(const Result& result) {
  std::string text = ToText(result.phases);
  if (result.phases.contains(Phase::kStolen)) {
    const StrainByPhase& strain = result.strain;
    absl::StrAppendFormat(&text, "\nA hypervisor took %.2f core-seconds in all; counting those requests, too:\n%s",
                          strain.steady.stolen + strain.any.stolen, ToText(result.phases_with_stolen));
  }
  for (const auto& [what, seconds] : {std::pair("full versions were live", &result.log.full_seconds),
                                      {"deltas were live", &result.log.delta_seconds},
                                      {"rollbacks were answered", &result.log.rollback_seconds}}) {
    if (seconds->empty()) continue;
    std::vector<double> sorted = *seconds;
    std::ranges::sort(sorted);
    absl::StrAppendFormat(&text, "\n%s after %.3f s (median of %d; at most %.3f)", what, sorted[sorted.size() / 2],
                          sorted.size(), sorted.back());
  }
  absl::StrAppendFormat(&text, "\n%d swaps, %d refused loads and %d rollbacks at %.0f requests/s\n", result.log.swaps,
                        result.log.refusals, result.log.rollback_seconds.size(), result.rate);
  absl::StrAppendFormat(&text, "%d requests, %d failed, %d with scores that are not those of the version named\n",
                        result.requests.size(), Failed(result), Wrong(result));
  absl::StrAppendFormat(&text, "an old version answered a request sent at most %.1f ms after a swap\n",
                        static_cast<double>(result.stale_ns) * 1e-6);
  const Memory memory = MemoryOf(result);
  absl::StrAppendFormat(&text,
                        "memory of the server: %.0f MiB at the beginning, %.0f at most (%.3f of the beginning and one "
                        "version more), %.0f at the end\n",
                        memory.begin, memory.peak, memory.peak_share, memory.end);
  for (const auto& [what, sum] : {std::pair("steady", result.strain.steady), {"all of these", result.strain.any}}) {
    absl::StrAppendFormat(&text,
                          "scoring threads, %s, %.0f s: %d major page faults, %.1f minor ones a second; TLB shootdowns "
                          "of the machine, %.0f a second\n",
                          what, sum.seconds, sum.major_faults,
                          static_cast<double>(sum.minor_faults) / std::max(sum.seconds, 1e-9),
                          static_cast<double>(sum.shootdowns) / std::max(sum.seconds, 1e-9));
  }
  for (const Restart& restart : result.restarts) {
    absl::StrAppendFormat(&text,
                          "after kill -9: a right answer %.2f s after the start; reading the files takes %.2f s\n",
                          restart.right_seconds, restart.disk_seconds);
  }
  for (const std::string& surprise : result.log.surprises) absl::StrAppend(&text, "UNEXPECTED: ", surprise, "\n");
  for (const std::string& wrong : result.summary.wrong) absl::StrAppend(&text, "WRONG: ", wrong, "\n");
  for (const std::string& reason : result.summary.invalid) absl::StrAppend(&text, "INVALID: ", reason, "\n");
  return text;
}

nlohmann::json ToJson(const Result& result, const std::string& command) {
  nlohmann::json json;
  json["command"] = command;
  json["finished"] = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  json["machine"] = bench::DescribeMachine().cpu;
  json["rate"] = result.rate;
  if (result.highest) json["highest_rate"] = result.highest->rate;
  json["requests"] = result.requests.size();
  json["failed"] = Failed(result);
  json["errors"] = result.summary.errors;
  json["wrong_answers"] = Wrong(result);
  json["swaps"] = result.log.swaps;
  json["refusals"] = result.log.refusals;
  json["longest_stale_ms"] = static_cast<double>(result.stale_ns) * 1e-6;
  json["live_after_s"] = {{"full", result.log.full_seconds}, {"delta", result.log.delta_seconds}};
  json["rollback_s"] = result.log.rollback_seconds;
  const Memory memory = MemoryOf(result);
  json["memory"] = {{"begin_mib", memory.begin},
                    {"peak_mib", memory.peak},
                    {"end_mib", memory.end},
                    {"peak_of_begin_and_version", memory.peak_share}};
  for (const auto& [what, sum] : {std::pair("steady", result.strain.steady), {"all of these", result.strain.any}}) {
    json["scoring_threads"][what] = {{"seconds", sum.seconds},
                                     {"minor_faults", sum.minor_faults},
                                     {"major_faults", sum.major_faults},
                                     {"machine_tlb_shootdowns", sum.shootdowns},
                                     {"stolen_core_seconds", sum.stolen}};
  }
  for (const Restart& restart : result.restarts) {
    json["restarts"].push_back({{"right_s", restart.right_seconds}, {"disk_s", restart.disk_seconds}});
  }
  json["unexpected"] = result.log.surprises;
  json["invalid_because"] = result.summary.invalid;
  for (const auto& [name, phases] :
       {std::pair("phases", &result.phases), {"phases_with_stolen", &result.phases_with_stolen}}) {
    for (const auto& [phase, l] : *phases) {
      json[name][Name(phase)] = {{"requests", l.requests}, {"failed", l.failed},   {"p50_us", l.p50_us},
                                 {"p99_us", l.p99_us},     {"p999_us", l.p999_us}, {"max_us", l.max_us}};
    }
  }
  const auto seconds = [&](int64_t at) { return static_cast<double>(at - result.begin_ns) * 1e-9; };
  for (const ModelEvent& event : result.log.events) {
    json["events"].push_back({{"t", seconds(event.at_ns)},
                              {"event", Name(event.kind)},
                              {"model", event.model},
                              {"version", event.version},
                              {"reason", event.reason}});
  }
  for (const auto& [at, bytes] : result.log.resident) json["resident"].push_back({seconds(at), bytes});
  // Where to look in a trace that was recorded meanwhile (perf record -k CLOCK_MONOTONIC).
  json["begin_monotonic_s"] = static_cast<double>(result.begin_ns) * 1e-9;
  std::vector<Request> slowest(std::min<size_t>(result.requests.size(), 100));
  std::ranges::partial_sort_copy(result.requests, slowest, std::greater(), &Request::latency_ns, &Request::latency_ns);
  for (const Request& request : slowest) {
    json["slowest"].push_back({{"t", seconds(request.due_ns)}, {"ms", static_cast<double>(request.latency_ns) * 1e-6}});
  }
  return json;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  return file.flush() ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
}

absl::Status Report(const Options& options, const Result& result, const std::string& command) {
  std::fputs(ToText(result).c_str(), stdout);
  absl::Status status;
  if (!options.json_file.empty()) {
    const std::string text = ToJson(result, command).dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
    status.Update(WriteFile(options.json_file, text + "\n"));
  }
  if (!options.picture_file.empty()) {
    const Picture picture{.title = absl::StrFormat(
                              "%d swaps, %d rollbacks, %d refused loads, %.0f requests/s, %d failed", result.log.swaps,
                              result.log.rollback_seconds.size(), result.log.refusals, result.rate, Failed(result)),
                          .begin_ns = result.begin_ns,
                          .end_ns = result.end_ns,
                          .requests = result.requests,
                          .events = result.log.events,
                          .model = kModel,
                          .resident = result.log.resident,
                          .stolen = result.stolen};
    status.Update(WriteFile(options.picture_file, ToSvg(picture)));
  }
  return status;
}

std::string Beside(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? name : (self.parent_path() / name).string();
}

int Main(const std::vector<std::string>& arguments) {
  Options options;
  options.server = Beside("din-server");
  const char* const directory = std::getenv("TMPDIR");
  options.directory = directory != nullptr ? directory : "/tmp";
  std::string command = "swap_bench";
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") {
      std::fputs(HelpText().c_str(), stdout);
      return 0;
    }
    absl::StrAppend(&command, " ", argument);
  }
  if (const absl::Status status = load::ParseFlags(Flags(options), arguments); !status.ok()) {
    absl::FPrintF(stderr, "swap_bench: %s\n", std::string(status.message()));
    return 2;
  }
  const absl::StatusOr<Result> result = Bench(options).Run();
  absl::Status status = result.status();
  if (result.ok()) status = Report(options, *result, command);
  if (!status.ok()) {
    absl::FPrintF(stderr, "swap_bench: %s\n", std::string(status.message()));
    return 1;
  }
  if (Failed(*result) > 0 || !result->log.surprises.empty()) return 4;
  return result->summary.invalid.empty() ? 0 : 3;
}

}  // namespace
}  // namespace din::swap

int main(int argc, char** argv) { return din::swap::Main(std::vector<std::string>(argv + 1, argv + argc)); }
