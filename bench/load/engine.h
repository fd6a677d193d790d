// Sends requests when they are due, whatever becomes of those before, and takes the answers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/status/statusor.h"
#include "bench/load/recorder.h"
#include "bench/load/request_set.h"
#include "bench/load/schedule.h"

namespace din::load {

struct Target {
  std::string address;  // "host:port" or "unix:/path"
  int connections = 1;
  // TLS when ca_file is set; a client certificate when the other two are.
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;
  std::string server_name;  // in the certificate, when it is not the host
};
using Channels = std::vector<std::shared_ptr<grpc::Channel>>;

// Connections of their own, every one established. UNAVAILABLE: not within `patience_seconds`.
absl::StatusOr<Channels> Connect(const Target& target, double patience_seconds);

enum class Scheduling { kOrdinary, kRealtime };

struct EngineOptions {
  int64_t deadline_ns = 0;            // of each request, from its intended send time; 0: none
  int64_t drain_ns = 10'000'000'000;  // wait for answers after the last send; a request without one is UNANSWERED
  int threads = 1;                    // pairs of a sender and a receiver
  int64_t spin_ns = 30'000;           // the sender spins this long before each send
  size_t in_flight = 100'000;         // more are not sent: NOT_SENT
  uint32_t verify_every = 1;          // look at every n-th answer of a thread; 0: at none
  Scheduling scheduling = Scheduling::kOrdinary;
  std::set<int64_t> versions;                                 // that may answer; empty: any
  std::vector<std::pair<std::string, std::string>> metadata;  // sent with every request

  // For a bench that knows more; both may be empty. Called on the threads of the engine.
  // A further opinion of an answer that is right as far as the verifier can tell: DATA_LOSS says what is wrong.
  std::function<absl::Status(size_t request, const v1::ScoreResponse& response)> judge;
  // Every request that ended, warm-up included, with the time at which it was due on the NowNs() clock.
  std::function<void(int64_t due_ns, const Sample& sample)> on_sample;
};

struct RunPlan {
  Schedule schedule;  // warm-up included
  double warm_up_seconds = 0;
  Arrivals arrivals = Arrivals::kPoisson;
  uint64_t seed = 1;
};

struct RunOutcome {
  Measurements measurements;
  double seconds = 0;  // measured: without warm-up; less than planned when stopped
  bool stopped = false;
  bool realtime = false;  // the kernel granted it
  double client_cpu_seconds = 0;
};

struct LiveState {
  double seconds = 0;  // since the run began
  bool warm_up = false;
  Measurements::Slice recent;
  size_t in_flight = 0;
};

// Blocks until every request was answered or given up. Each thread sends its share of one and the same schedule, so
// their number does not change when requests are due. `stop` ends the sending early; `live` is called about once a
// second on the calling thread.
RunOutcome Run(const Channels& channels, const RequestSet& requests, const RunPlan& plan, const EngineOptions& options,
               const std::atomic<bool>& stop, const std::function<void(const LiveState&)>& live);

}  // namespace din::load
