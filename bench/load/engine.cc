#include "bench/load/engine.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include "absl/strings/str_cat.h"
#include "bench/load/clock.h"
#include "bench/load/verifier.h"

namespace din::load {
namespace {

constexpr char kMethod[] = "/din.v1.ScoringService/Score";

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const Target& target) {
  if (target.ca_file.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  const std::pair<const std::string&, std::string&> files[] = {{target.ca_file, options.pem_root_certs},
                                                               {target.certificate_file, options.pem_cert_chain},
                                                               {target.key_file, options.pem_private_key}};
  for (const auto& [path, into] : files) {
    if (path.empty()) continue;
    absl::StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return text.status();
    into = *std::move(text);
  }
  return grpc::SslCredentials(options);
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// gRPC deadlines are on the wall clock.
std::chrono::system_clock::time_point WallTime(int64_t monotonic_ns) {
  return std::chrono::system_clock::now() + std::chrono::nanoseconds(monotonic_ns - NowNs());
}

// One request on its way.
struct Call {
  grpc::ClientContext context;
  grpc::ByteBuffer answer;
  grpc::Status status;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  size_t request = 0;
  int64_t due = 0;  // NowNs() clock
  int64_t sent = 0;
};

// A sender and a receiver with a completion queue between them. The sender owns the time, the receiver the answers.
class Lane {
 public:
  struct Shared {
    const Channels& channels;
    const RequestSet& requests;
    const RunPlan& plan;
    const EngineOptions& options;
    const std::atomic<bool>& stop;
    int64_t epoch;    // when the run begins
    int64_t give_up;  // when answers are no longer waited for
    Recorder::Options recorder;
  };

  Lane(const Shared& shared, size_t number)
      : shared_(shared),
        number_(number),
        recorder_(shared.recorder),
        verifier_(shared.requests, shared.options.versions) {
    for (const auto& channel : shared_.channels) stubs_.emplace_back(channel);
    sender_ = std::thread([this] { SendAll(); });
    receiver_ = std::thread([this] { ReceiveAll(); });
  }

  bool sending() const { return sending_; }
  size_t in_flight() const { return in_flight_; }
  bool realtime() const { return realtime_; }
  int64_t sent_until() const { return sent_until_; }

  Measurements::Slice TakeRecent() {
    const std::lock_guard lock(mutex_);
    return recorder_.TakeRecent();
  }

  // After the last answer.
  const Measurements& Join() {
    sender_.join();
    receiver_.join();
    return recorder_.measurements();
  }

 private:
  void SendAll() {
    AskForPreciseTimers();
    if (shared_.options.scheduling == Scheduling::kRealtime) realtime_ = AskForRealtime();
    const auto lanes = static_cast<uint64_t>(shared_.options.threads);
    ArrivalStream arrivals(shared_.plan.schedule, shared_.plan.arrivals, shared_.plan.seed);
    for (uint64_t n = 0; !shared_.stop; ++n) {
      const std::optional<int64_t> due = arrivals.Next();
      if (!due) break;
      if (n % lanes != number_) continue;
      SleepUntil(shared_.epoch + *due, shared_.options.spin_ns);
      Send(n, shared_.epoch + *due);
    }
    sent_until_ = NowNs();
    sending_ = false;
    queue_.Shutdown();
  }

  void Send(uint64_t n, int64_t due) {
    if (in_flight_ >= shared_.options.in_flight) {
      Record({.intended_ns = due - shared_.epoch, .outcome = kNotSent});
      return;
    }
    auto* call = new Call;
    call->request = n % shared_.requests.requests.size();
    call->due = due;
    // A request without a deadline still ends some time after the run does.
    const int64_t deadline = shared_.options.deadline_ns > 0 ? due + shared_.options.deadline_ns : shared_.give_up;
    call->context.set_deadline(WallTime(deadline));
    for (const auto& [key, value] : shared_.options.metadata) call->context.AddMetadata(key, value);
    const grpc::ByteBuffer bytes(&shared_.requests.requests[call->request].bytes, 1);
    call->reader = stubs_[n % stubs_.size()].PrepareUnaryCall(&call->context, kMethod, bytes, &queue_);
    in_flight_.fetch_add(1, std::memory_order_relaxed);
    // From here on the request is out of our hands, so this is where lag ends.
    call->sent = NowNs();
    call->reader->StartCall();
    call->reader->Finish(&call->answer, &call->status, call);
  }

  void ReceiveAll() {
    if (shared_.options.scheduling == Scheduling::kRealtime) AskForRealtime();
    void* tag = nullptr;
    bool ok = false;
    for (uint64_t n = 0; queue_.Next(&tag, &ok); ++n) {
      const int64_t now = NowNs();
      const std::unique_ptr<Call> call(static_cast<Call*>(tag));
      in_flight_.fetch_sub(1, std::memory_order_relaxed);
      Receive(*call, now, n);
    }
  }

  void Receive(Call& call, int64_t now, uint64_t n) {
    Sample sample{.intended_ns = call.due - shared_.epoch,
                  .lag_ns = call.sent - call.due,
                  .latency_ns = now - call.due,
                  .outcome = call.status.error_code()};
    if (sample.outcome < 0 || sample.outcome > 16) sample.outcome = 2;
    const uint32_t every = shared_.options.verify_every;
    if (sample.outcome == kOk && every != 0 && n % every == 0) {
      absl::StatusOr<int64_t> version = verifier_.Check(call.request, call.answer);
      if (version.ok() && shared_.options.judge) {
        const absl::Status status = shared_.options.judge(call.request, verifier_.response());
        if (!status.ok()) version = status;
      }
      if (version.ok()) {
        sample.version = *version;
      } else {
        sample.outcome = kWrongAnswer;
        const std::lock_guard lock(mutex_);
        recorder_.AddWrong(absl::StrCat("request ", call.request, ": ", std::string(version.status().message())));
      }
    }
    if (sample.outcome == kDeadlineExceeded && shared_.options.deadline_ns == 0) sample.outcome = kUnanswered;
    Record(sample);
  }

  void Record(const Sample& sample) {
    if (shared_.options.on_sample) shared_.options.on_sample(shared_.epoch + sample.intended_ns, sample);
    const std::lock_guard lock(mutex_);
    recorder_.Add(sample);
  }

  const Shared& shared_;
  const size_t number_;
  std::vector<grpc::GenericStub> stubs_;
  grpc::CompletionQueue queue_;
  std::atomic<size_t> in_flight_{0};
  std::atomic<bool> sending_{true};
  std::atomic<bool> realtime_{false};
  std::atomic<int64_t> sent_until_{0};
  std::mutex mutex_;  // guards recorder_
  Recorder recorder_;
  Verifier verifier_;
  std::thread sender_;
  std::thread receiver_;
};

// Round, short enough for 20 slices, long enough for 50 requests in each, at most 240 of them.
double SliceSeconds(double seconds, double rate) {
  const double longest = std::max(0.1, seconds / 20);
  const double wanted = std::clamp(std::max(seconds / 240, 50 / rate), 0.1, longest);
  double slice = 0.1;
  for (double decade = 0.1; decade <= longest; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (decade * step <= longest && slice < wanted) slice = decade * step;
    }
  }
  return slice;
}

void Watch(const std::vector<std::unique_ptr<Lane>>& lanes, const Lane::Shared& shared,
           const std::function<void(const LiveState&)>& live) {
  const auto busy = [](const auto& lane) { return lane->sending() || lane->in_flight() > 0; };
  int64_t next = shared.epoch + 1'000'000'000;
  while (std::ranges::any_of(lanes, busy)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (NowNs() < next) continue;
    LiveState state;
    state.seconds = static_cast<double>(next - shared.epoch) * 1e-9;
    state.warm_up = state.seconds <= shared.plan.warm_up_seconds;
    for (const auto& lane : lanes) {
      const Measurements::Slice recent = lane->TakeRecent();
      state.recent.sent += recent.sent;
      state.recent.good += recent.good;
      state.recent.errors += recent.errors;
      state.recent.latency.Merge(recent.latency);
      state.recent.worst_lag_ns = std::max(state.recent.worst_lag_ns, recent.worst_lag_ns);
      state.in_flight += lane->in_flight();
    }
    live(state);
    next += 1'000'000'000;
  }
}

}  // namespace

absl::StatusOr<Channels> Connect(const Target& target, double patience_seconds) {
  const auto credentials = Credentials(target);
  if (!credentials.ok()) return credentials.status();
  Channels channels;
  for (int c = 0; c < target.connections; ++c) {
    grpc::ChannelArguments arguments;
    // gRPC would give channels with equal arguments one connection between them.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt("din.load.connection", c);
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    if (!target.server_name.empty()) arguments.SetSslTargetNameOverride(target.server_name);
    channels.push_back(grpc::CreateCustomChannel(target.address, *credentials, arguments));
  }
  const auto deadline = WallTime(NowNs() + static_cast<int64_t>(patience_seconds * 1e9));
  for (const auto& channel : channels) {
    if (!channel->WaitForConnected(deadline)) {
      return absl::UnavailableError(absl::StrCat(target.address, ": no connection within ", patience_seconds, " s"));
    }
  }
  return channels;
}

RunOutcome Run(const Channels& channels, const RequestSet& requests, const RunPlan& plan, const EngineOptions& options,
               const std::atomic<bool>& stop, const std::function<void(const LiveState&)>& live) {
  const double seconds = plan.schedule.Seconds() - plan.warm_up_seconds;
  const auto warm_up_ns = static_cast<int64_t>(plan.warm_up_seconds * 1e9);
  // Time for the threads to start before the first request is due.
  const int64_t epoch = NowNs() + 50'000'000;
  const Lane::Shared shared{.channels = channels,
                            .requests = requests,
                            .plan = plan,
                            .options = options,
                            .stop = stop,
                            .epoch = epoch,
                            .give_up = epoch + static_cast<int64_t>(plan.schedule.Seconds() * 1e9) + options.drain_ns,
                            .recorder = {.begin_ns = warm_up_ns,
                                         .seconds = seconds,
                                         .slice_seconds = SliceSeconds(seconds, plan.schedule.MeanRate()),
                                         .deadline_ns = options.deadline_ns}};
  const double cpu_before = CpuSeconds();
  std::vector<std::unique_ptr<Lane>> lanes;
  for (int l = 0; l < options.threads; ++l) lanes.push_back(std::make_unique<Lane>(shared, l));
  Watch(lanes, shared, live);
  RunOutcome outcome{.measurements = Measurements(seconds, shared.recorder.slice_seconds),
                     .seconds = seconds,
                     .stopped = stop,
                     .realtime = true};
  for (const auto& lane : lanes) {
    outcome.measurements.Merge(lane->Join());
    outcome.realtime = outcome.realtime && lane->realtime();
    if (stop) {
      const double until = static_cast<double>(lane->sent_until() - epoch - warm_up_ns) * 1e-9;
      outcome.seconds = std::clamp(until, 1e-3, outcome.seconds);
    }
  }
  outcome.client_cpu_seconds = CpuSeconds() - cpu_before;
  return outcome;
}

}  // namespace din::load
