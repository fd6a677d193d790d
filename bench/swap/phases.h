// Which requests were under way while something happened to a model, and what became of their latency.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/swap/server_process.h"

namespace din::swap {

// Stretches of time; they overlap, and a request counts in each that it touches. "Other" is a model beside the one
// whose requests are sent.
enum class Phase {
  kSteady,        // in none of the others, nor within kSettle behind one
  kLoading,       // from the first byte read to the swap
  kSwapping,      // around the moment in which the new version goes live
  kRollingBack,   // the same, of one that was in memory
  kUnloading,     // from then until the old version's memory is given back
  kRefusing,      // a load that ended in a refusal
  kOtherLoading,  // the same four of the other model
  kOtherSwapping,
  kOtherUnloading,
  kOtherRefusing,
  kAny,     // all of them: what the objective is about
  kStolen,  // a hypervisor had the cores: such a request counts nowhere else
};
constexpr Phase kPhases[] = {Phase::kSteady,         Phase::kLoading,       Phase::kSwapping,     Phase::kRollingBack,
                             Phase::kUnloading,      Phase::kRefusing,      Phase::kOtherLoading, Phase::kOtherSwapping,
                             Phase::kOtherUnloading, Phase::kOtherRefusing, Phase::kAny,          Phase::kStolen};
const char* Name(Phase);

struct Window {
  Phase phase = Phase::kAny;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

// A request that ended.
struct Request {
  int64_t due_ns = 0;
  int64_t latency_ns = 0;
  bool ok = false;
  int64_t version = 0;  // that answered
};

// Windows of `events`, which ascend in time; `model` is the one whose requests are sent.
std::vector<Window> FindWindows(const std::vector<ModelEvent>& events, const std::string& model);

// Where a hypervisor took a twentieth of `cores` or more from one sample to the next, and the time that it takes to
// work off what had to wait. `samples` ascend in time.
std::vector<Window> FindStolen(const std::vector<Strain>& samples, int cores);

struct PhaseLatency {
  uint64_t requests = 0;
  uint64_t failed = 0;
  double p50_us = 0, p99_us = 0, p999_us = 0, max_us = 0;  // of those that did not fail
};
std::map<Phase, PhaseLatency> LatencyByPhase(const std::vector<Request>& requests, const std::vector<Window>& windows);

// The log is written behind the swap: where a version of `model`
// answered before the log said so, its live event moves to that answer.
void SharpenLiveTimes(const std::vector<Request>& requests, const std::string& model, std::vector<ModelEvent>& events);

// The longest time after a version of `model` went live at which a request was sent that an older one still answered;
// 0 when there was none.
int64_t LongestStaleNs(const std::vector<Request>& requests, const std::vector<ModelEvent>& events,
                       const std::string& model);

// What came upon the scoring threads in the time between samples.
struct StrainSum {
  double seconds = 0;
  uint64_t minor_faults = 0, major_faults = 0, shootdowns = 0;
  double stolen = 0;
};
// Steady, and while any of the others was under way. `samples` ascend in time.
struct StrainByPhase {
  StrainSum steady, any;
};
StrainByPhase SumStrain(const std::vector<Strain>& samples, const std::vector<Window>& windows);

}  // namespace din::swap
