#include "bench/load/recorder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace din::load {

std::string_view Name(int outcome) {
  // The first seventeen are gRPC's (grpc/status.h).
  static constexpr std::array<std::string_view, kOutcomes> kNames = {
      "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED", "WRONG_ANSWER",      "UNANSWERED",         "NOT_SENT"};
  return outcome >= 0 && outcome < kOutcomes ? kNames[outcome] : kNames[2];
}

Measurements::Measurements(double seconds, double slice_seconds)
    : slice_seconds(slice_seconds), slices(static_cast<size_t>(std::ceil(seconds / slice_seconds - 1e-9))) {}

uint64_t Measurements::sent() const { return std::accumulate(outcomes.begin(), outcomes.end(), uint64_t{0}); }

void Measurements::Merge(const Measurements& other) {
  latency.Merge(other.latency);
  refusal.Merge(other.refusal);
  lag.Merge(other.lag);
  for (int o = 0; o < kOutcomes; ++o) outcomes[o] += other.outcomes[o];
  for (size_t s = 0; s < slices.size(); ++s) {
    const Slice& from = other.slices[s];
    slices[s].sent += from.sent;
    slices[s].good += from.good;
    slices[s].errors += from.errors;
    slices[s].latency.Merge(from.latency);
    slices[s].worst_lag_ns = std::max(slices[s].worst_lag_ns, from.worst_lag_ns);
  }
  for (const auto& [number, from] : other.versions) {
    const auto [it, added] = versions.try_emplace(number, from);
    if (added) continue;
    it->second.answers += from.answers;
    it->second.first_ns = std::min(it->second.first_ns, from.first_ns);
    it->second.last_ns = std::max(it->second.last_ns, from.last_ns);
  }
  for (const std::string& reason : other.wrong) {
    if (wrong.size() < kWrongKept) wrong.push_back(reason);
  }
}

Recorder::Recorder(const Options& options) : options_(options), measured_(options.seconds, options.slice_seconds) {}

void Recorder::Add(const Sample& sample) {
  const bool ok = sample.outcome == kOk;
  const bool good = ok && (options_.deadline_ns == 0 || sample.latency_ns <= options_.deadline_ns);
  const auto count = [&](Measurements::Slice& slice) {
    ++slice.sent;
    slice.good += good;
    slice.errors += !ok;
    if (ok) slice.latency.Add(sample.latency_ns);
    slice.worst_lag_ns = std::max(slice.worst_lag_ns, sample.lag_ns);
  };
  count(recent_);
  const int64_t since = sample.intended_ns - options_.begin_ns;
  if (since < 0 || measured_.slices.empty()) return;
  const auto slice = static_cast<size_t>(static_cast<double>(since) * 1e-9 / options_.slice_seconds);
  count(measured_.slices[std::min(slice, measured_.slices.size() - 1)]);
  ++measured_.outcomes[sample.outcome];
  if (ok) measured_.latency.Add(sample.latency_ns);
  if (!ok && sample.outcome != kNotSent) measured_.refusal.Add(sample.latency_ns);
  if (sample.outcome != kNotSent) measured_.lag.Add(sample.lag_ns);
  if (ok && sample.version != 0) {
    Measurements::Version& version = measured_.versions[sample.version];
    version.first_ns = version.answers == 0 ? since : std::min(version.first_ns, since);
    version.last_ns = std::max(version.last_ns, since);
    ++version.answers;
  }
}

void Recorder::AddWrong(std::string reason) {
  if (measured_.wrong.size() < Measurements::kWrongKept) measured_.wrong.push_back(std::move(reason));
}

Measurements::Slice Recorder::TakeRecent() { return std::exchange(recent_, {}); }

}  // namespace din::load
