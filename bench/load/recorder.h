// What a run has seen, counted as it happens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/histogram.h"

namespace din::load {

// What became of a request: a gRPC status code (0 to 16), or one of ours.
enum Outcome : int {
  kOk = 0,
  kDeadlineExceeded = 4,
  kWrongAnswer = 17,  // answered OK, but the answer is not right
  kUnanswered = 18,   // nothing came until the run's end
  kNotSent = 19,      // the generator had too many in flight
  kOutcomes = 20,
};
std::string_view Name(int outcome);  // "OK", "RESOURCE_EXHAUSTED", ..., "WRONG_ANSWER"

struct Sample {
  int64_t intended_ns = 0;  // since the run began
  int64_t lag_ns = 0;       // sent this much later
  int64_t latency_ns = 0;   // from the intended time to the answer
  int outcome = kOk;
  int64_t version = 0;  // that answered; 0: not known
};

// Measurements of one run, or of a part of its threads.
struct Measurements {
  // A stretch of time, by intended send time: its latencies are those of the requests that were due in it.
  struct Slice {
    uint64_t sent = 0;
    uint64_t good = 0;  // right answers within the deadline
    uint64_t errors = 0;
    Histogram latency;
    int64_t worst_lag_ns = 0;
  };
  struct Version {
    uint64_t answers = 0;
    int64_t first_ns = 0;  // intended time of the first and the last request that it answered
    int64_t last_ns = 0;
  };
  static constexpr size_t kWrongKept = 10;

  Measurements(double seconds, double slice_seconds);
  void Merge(const Measurements& other);
  uint64_t sent() const;
  uint64_t ok() const { return outcomes[kOk]; }

  double slice_seconds;
  Histogram latency;  // right answers
  Histogram refusal;  // everything else that came back
  Histogram lag;
  std::array<uint64_t, kOutcomes> outcomes{};
  std::vector<Slice> slices;
  std::map<int64_t, Version> versions;
  std::vector<std::string> wrong;  // the first few wrong answers, in words
};

// Takes samples of requests that were due within [begin_ns, begin_ns + seconds) of the run; those before are warm-up
// and leave no trace. One thread, or a lock around it.
class Recorder {
 public:
  struct Options {
    int64_t begin_ns = 0;
    double seconds = 0;
    double slice_seconds = 0.1;
    int64_t deadline_ns = 0;  // 0: none; a right answer later than this is not good
  };
  explicit Recorder(const Options& options);

  void Add(const Sample& sample);
  void AddWrong(std::string reason);

  const Measurements& measurements() const { return measured_; }
  // Since the last call, warm-up included; for the live line.
  Measurements::Slice TakeRecent();

 private:
  Options options_;
  Measurements measured_;
  Measurements::Slice recent_;
};

}  // namespace din::load
