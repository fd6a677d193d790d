// The reins of one load: what it is told, and what it tells, while it runs.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "absl/status/status.h"

namespace din {

// Holds a reader to a rate. Time that passes counts for what is read in it, and a reader that had no core for a moment
// catches up, but not with more than kCredit's worth: that would be the burst which nobody wants. Not thread-safe.
class Throttle {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kCredit{50};

  explicit Throttle(uint64_t bytes_per_second) : bytes_per_second_(static_cast<double>(bytes_per_second)) {}
  // `bytes` have been read, at `now`: when the next may be.
  Clock::time_point Pay(uint64_t bytes, Clock::time_point now) {
    const std::chrono::duration<double> price(static_cast<double>(bytes) / bytes_per_second_);
    paid_until_ = std::max(paid_until_, now - kCredit) + std::chrono::duration_cast<Clock::duration>(price);
    return paid_until_;
  }

 private:
  const double bytes_per_second_;
  Clock::time_point paid_until_{};
};

// Progress, cancellation and the throttle of one load. Every method from any thread.
class LoadControl {
 public:
  struct Options {
    uint64_t bytes_per_second = 0;  // that may be read from disk; 0: as fast as it goes
  };

  LoadControl() : LoadControl(Options{}) {}
  explicit LoadControl(const Options& options) : options_(options), throttle_(options_.bytes_per_second) {}

  // The load ends with CANCELLED before its next chunk. Waits for no lock, since a loading thread may hold one without
  // having a core.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  // --- For those who load ---

  // CANCELLED once it is not wanted any more. Between pieces of work of some milliseconds.
  absl::Status Check() const;
  // That many bytes are to come; more, if others were announced before.
  void AddTotal(uint64_t bytes) { total_.fetch_add(bytes, std::memory_order_relaxed); }
  // That many more bytes have been read and digested: Check, after the wait that the throttle asks for.
  absl::Status Advance(uint64_t bytes);
  void BeginVerifying() { verifying_.store(true, std::memory_order_relaxed); }

  // --- For those who let it run ---

  // It has waited too long for a core, and goes on at a higher priority.
  void MarkStarved() { starved_.store(true, std::memory_order_relaxed); }

  // --- For those who look on ---

  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }  // 0: not known yet
  bool verifying() const { return verifying_.load(std::memory_order_relaxed); }
  bool starved() const { return starved_.load(std::memory_order_relaxed); }

 private:
  const Options options_;
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> starved_ = false;
  std::atomic<bool> verifying_ = false;
  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<uint64_t> total_ = 0;
  std::mutex mutex_;  // of the throttle, among the threads that load
  Throttle throttle_;
};

}  // namespace din
