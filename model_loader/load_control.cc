#include "model_loader/load_control.h"

#include <thread>

#include "model/status_macros.h"

namespace din {

absl::Status LoadControl::Check() const {
  if (!cancelled_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::CancelledError("the load was given up");
}

absl::Status LoadControl::Advance(uint64_t bytes) {
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (options_.bytes_per_second == 0) return Check();
  Throttle::Clock::time_point until;
  {
    const std::lock_guard lock(mutex_);
    until = throttle_.Pay(bytes, Throttle::Clock::now());
  }
  constexpr std::chrono::milliseconds kLook{20};  // at whether it was cancelled
  for (auto now = Throttle::Clock::now(); now < until; now = Throttle::Clock::now()) {
    DIN_RETURN_IF_ERROR(Check());
    std::this_thread::sleep_for(std::min<Throttle::Clock::duration>(until - now, kLook));
  }
  return Check();
}

}  // namespace din
