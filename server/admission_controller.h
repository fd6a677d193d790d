// Decides at once whether a request may wait for a scoring thread, so that overload is answered in microseconds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"

namespace din {

using SteadyTime = std::chrono::steady_clock::time_point;

class AdmissionController;

// A place in the queue, then on a scoring thread; its end gives it back, whatever happened to the request. Move-only.
class Ticket {
 public:
  Ticket() = default;  // holds no place
  ~Ticket() { Release(); }
  Ticket(Ticket&& other) noexcept : controller_(std::exchange(other.controller_, nullptr)), started_(other.started_) {}
  Ticket& operator=(Ticket&& other) noexcept {
    std::swap(controller_, other.controller_);
    std::swap(started_, other.started_);
    return *this;
  }

  // The request has left the queue for a scoring thread.
  void Start();
  void Release();

 private:
  friend class AdmissionController;
  explicit Ticket(AdmissionController* controller) : controller_(controller) {}

  AdmissionController* controller_ = nullptr;
  bool started_ = false;
};

// Bounds the requests that wait. A bound on the number, and not a limiter that learns, is the policy that cannot be
// wrong about its own measurements; `cost` and `deadline` are in the signature so that a smarter one needs no caller to
// change. Any thread; must outlive its tickets.
class AdmissionController {
 public:
  struct Options {
    size_t queue = 256;  // requests that may wait, at least 1
  };
  struct Request {
    SteadyTime deadline = SteadyTime::max();
    size_t cost = 1;  // bytes of the message; today every request counts the same
  };

  explicit AdmissionController(const Options& options) : options_(options) {}

  // RESOURCE_EXHAUSTED: as many wait as may; DEADLINE_EXCEEDED: `now` is past the deadline. Does not allocate when it
  // admits.
  absl::StatusOr<Ticket> TryAdmit(const Request& request, SteadyTime now = std::chrono::steady_clock::now());

  size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
  size_t running() const { return running_.load(std::memory_order_relaxed); }

 private:
  friend class Ticket;

  const Options options_;
  std::atomic<size_t> waiting_ = 0;
  std::atomic<size_t> running_ = 0;
};

}  // namespace din
