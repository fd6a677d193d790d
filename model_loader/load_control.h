// The reins of one load: what it is told, and what it tells, while it runs.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

#include "absl/status/status.h"

namespace din {

// Progress, cancellation and the throttle of one load. Every method from any thread.
class LoadControl {
 public:
  struct Options {
    uint64_t bytes_per_second = 0;               // that may be read from disk; 0: as fast as it goes
    std::function<void()> on_verifying = [] {};  // from the loading thread
  };

  LoadControl() : LoadControl(Options{}) {}
  explicit LoadControl(Options options) : options_(std::move(options)) {}

  // The load ends with CANCELLED before its next chunk.
  void Cancel();

  // --- For those who load ---

  // CANCELLED once it is not wanted any more. Between pieces of work of some milliseconds.
  absl::Status Check() const;
  // That many bytes are to come in all.
  void SetTotal(uint64_t bytes) { total_.store(bytes, std::memory_order_relaxed); }
  // That many more bytes have been read and digested: Check, after the wait that the throttle asks for.
  absl::Status Advance(uint64_t bytes);
  void BeginVerifying() const { options_.on_verifying(); }

  // --- For those who let it run ---

  // It has waited too long for a core, and goes on at a higher priority.
  void MarkStarved() { starved_.store(true, std::memory_order_relaxed); }

  // --- For those who look on ---

  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }  // 0: not known yet
  bool starved() const { return starved_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;

  const Options options_;
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> starved_ = false;
  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<uint64_t> total_ = 0;
  std::mutex mutex_;
  std::condition_variable cancel_;
  Clock::time_point paid_until_{};  // when the bytes so far may have been read
};

}  // namespace din
