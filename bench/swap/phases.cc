#include "bench/swap/phases.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace din::swap {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kBeforeSwap = 10 * kMs;  // the log's clock has milliseconds, and its line comes behind
constexpr int64_t kAfterSwap = 50 * kMs;
constexpr int64_t kAfterUnload = 20 * kMs;
constexpr int64_t kLongestUnload = 1000 * kMs;  // an old version that was pinned for longer does nothing until its end
constexpr int64_t kSettle = 100 * kMs;
// Of the cores between two samples, which are 0.1 s apart; but at least two ticks of the kernel's count, whose one may
// be the rest of what went before. A queue at 0.7 of the highest rate takes twice as long to work off as it took to
// grow.
constexpr double kStolenShare = 0.05;
constexpr double kStolenSeconds = 0.015;
constexpr int64_t kAfterStolen = 500 * kMs;

Phase OfOther(Phase phase) {
  switch (phase) {
    case Phase::kLoading:
      return Phase::kOtherLoading;
    case Phase::kSwapping:
    case Phase::kRollingBack:
      return Phase::kOtherSwapping;
    case Phase::kUnloading:
      return Phase::kOtherUnloading;
    case Phase::kRefusing:
      return Phase::kOtherRefusing;
    default:
      return phase;
  }
}

// At rank ceil(q * n) of ascending values, in microseconds.
double Quantile(const std::vector<int64_t>& sorted, double q) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(sorted.size())));
  return static_cast<double>(sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1]) * 1e-3;
}

}  // namespace

const char* Name(Phase phase) {
  switch (phase) {
    case Phase::kSteady:
      return "steady";
    case Phase::kLoading:
      return "loading";
    case Phase::kSwapping:
      return "swapping";
    case Phase::kRollingBack:
      return "rolling back";
    case Phase::kUnloading:
      return "unloading";
    case Phase::kRefusing:
      return "refused load";
    case Phase::kOtherLoading:
      return "other: loading";
    case Phase::kOtherSwapping:
      return "other: swapping";
    case Phase::kOtherUnloading:
      return "other: unloading";
    case Phase::kOtherRefusing:
      return "other: refused load";
    case Phase::kAny:
      return "all of these";
    case Phase::kStolen:
      return "cores taken away";
  }
  return "?";
}

std::vector<Window> FindWindows(const std::vector<ModelEvent>& events, const std::string& model) {
  std::vector<Window> windows;
  std::map<std::string, int64_t> loading_since, live_since;
  for (const ModelEvent& event : events) {
    const auto add = [&](Phase phase, int64_t begin, int64_t end) {
      windows.push_back({event.model == model ? phase : OfOther(phase), begin, end});
    };
    switch (event.kind) {
      case ModelEvent::Kind::kLoading:
        loading_since[event.model] = event.at_ns;
        break;
      case ModelEvent::Kind::kLive:
      case ModelEvent::Kind::kRefused: {
        const bool live = event.kind == ModelEvent::Kind::kLive;
        // Without a load before it, it is a rollback, or a refusal at first sight.
        const auto since = loading_since.find(event.model);
        const bool loaded = since != loading_since.end();
        if (loaded) {
          add(live ? Phase::kLoading : Phase::kRefusing, since->second, event.at_ns);
          loading_since.erase(since);
        }
        if (!live) break;
        add(loaded ? Phase::kSwapping : Phase::kRollingBack, event.at_ns - kBeforeSwap, event.at_ns + kAfterSwap);
        live_since[event.model] = event.at_ns;
        break;
      }
      case ModelEvent::Kind::kRetired: {
        const auto since = live_since.find(event.model);
        const int64_t earliest = event.at_ns - kLongestUnload;
        const int64_t begin = since == live_since.end() ? earliest : std::max(earliest, since->second);
        add(Phase::kUnloading, begin, event.at_ns + kAfterUnload);
        break;
      }
    }
  }
  return windows;
}

std::vector<Window> FindStolen(const std::vector<Strain>& samples, int cores) {
  std::vector<Window> windows;
  for (size_t i = 1; i < samples.size(); ++i) {
    const Strain &before = samples[i - 1], &after = samples[i];
    const double seconds = static_cast<double>(after.at_ns - before.at_ns) * 1e-9;
    if (after.stolen - before.stolen < std::max(kStolenSeconds, kStolenShare * cores * seconds)) continue;
    windows.push_back({Phase::kStolen, before.at_ns, after.at_ns + kAfterStolen});
  }
  return windows;
}

std::map<Phase, PhaseLatency> LatencyByPhase(const std::vector<Request>& requests, const std::vector<Window>& windows) {
  std::vector<Window> sorted = windows;
  std::ranges::sort(sorted, {}, &Window::begin_ns);
  int64_t longest = 0;
  for (const Window& window : sorted) longest = std::max(longest, window.end_ns + kSettle - window.begin_ns);

  std::map<Phase, PhaseLatency> phases;
  std::map<Phase, std::vector<int64_t>> latencies;
  for (const Request& request : requests) {
    const int64_t done = request.due_ns + request.latency_ns;
    std::set<Phase> in;
    bool settling = false;
    auto window = std::ranges::lower_bound(sorted, request.due_ns - longest, {}, &Window::begin_ns);
    for (; window != sorted.end() && window->begin_ns <= done; ++window) {
      if (window->end_ns >= request.due_ns) in.insert({window->phase, Phase::kAny});
      settling |= window->phase != Phase::kStolen && window->end_ns + kSettle >= request.due_ns;
    }
    if (!settling) in.insert(Phase::kSteady);
    if (in.contains(Phase::kStolen)) in = {Phase::kStolen};
    for (const Phase phase : in) {
      ++phases[phase].requests;
      if (request.ok) {
        latencies[phase].push_back(request.latency_ns);
      } else {
        ++phases[phase].failed;
      }
    }
  }
  for (auto& [phase, values] : latencies) {
    std::ranges::sort(values);
    PhaseLatency& latency = phases[phase];
    latency.p50_us = Quantile(values, 0.5);
    latency.p99_us = Quantile(values, 0.99);
    latency.p999_us = Quantile(values, 0.999);
    latency.max_us = Quantile(values, 1);
  }
  return phases;
}

void SharpenLiveTimes(const std::vector<Request>& requests, const std::string& model, std::vector<ModelEvent>& events) {
  std::map<int64_t, int64_t> first_answer;
  for (const Request& request : requests) {
    if (!request.ok) continue;
    const auto [at, added] = first_answer.try_emplace(request.version, request.due_ns + request.latency_ns);
    if (!added) at->second = std::min(at->second, request.due_ns + request.latency_ns);
  }
  std::set<int64_t> seen;  // versions come back by rollbacks, and then their first answer is long past
  for (ModelEvent& event : events) {
    if (event.kind != ModelEvent::Kind::kLive || event.model != model || !seen.insert(event.version).second) continue;
    const auto first = first_answer.find(event.version);
    if (first != first_answer.end()) event.at_ns = std::min(event.at_ns, first->second);
  }
}

int64_t LongestStaleNs(const std::vector<Request>& requests, const std::vector<ModelEvent>& events,
                       const std::string& model) {
  std::vector<ModelEvent> lives;
  for (const ModelEvent& event : events) {
    if (event.kind == ModelEvent::Kind::kLive && event.model == model) lives.push_back(event);
  }
  int64_t longest = 0;
  for (size_t l = 0; l < lives.size(); ++l) {
    const int64_t next = l + 1 < lives.size() ? lives[l + 1].version : 0;
    const int64_t end = l + 1 < lives.size() ? lives[l + 1].at_ns : INT64_MAX;
    for (const Request& request : requests) {
      const bool sent_in = request.due_ns >= lives[l].at_ns && request.due_ns < end;
      if (request.ok && sent_in && request.version != lives[l].version && request.version != next) {
        longest = std::max(longest, request.due_ns - lives[l].at_ns);
      }
    }
  }
  return longest;
}

StrainByPhase SumStrain(const std::vector<Strain>& samples, const std::vector<Window>& windows) {
  StrainByPhase sums;
  for (size_t i = 1; i < samples.size(); ++i) {
    const Strain &before = samples[i - 1], &after = samples[i];
    const bool any = std::ranges::any_of(
        windows, [&](const Window& window) { return window.begin_ns <= after.at_ns && window.end_ns >= before.at_ns; });
    StrainSum& sum = any ? sums.any : sums.steady;
    sum.seconds += static_cast<double>(after.at_ns - before.at_ns) * 1e-9;
    sum.minor_faults += after.minor_faults - before.minor_faults;
    sum.major_faults += after.major_faults - before.major_faults;
    sum.shootdowns += after.shootdowns - before.shootdowns;
    sum.stolen += after.stolen - before.stolen;
  }
  return sums;
}

}  // namespace din::swap
