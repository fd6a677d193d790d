#include "model_loader/load_control.h"

#include <algorithm>

namespace din {

void LoadControl::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.store(true, std::memory_order_relaxed);
  }
  cancel_.notify_all();
}

absl::Status LoadControl::Check() const {
  if (!cancelled_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::CancelledError("the load was given up");
}

absl::Status LoadControl::Advance(uint64_t bytes) {
  bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (options_.bytes_per_second != 0) {
    const auto price = std::chrono::nanoseconds(
        static_cast<int64_t>(1e9 * static_cast<double>(bytes) / static_cast<double>(options_.bytes_per_second)));
    std::unique_lock lock(mutex_);
    // No credit for time in which nothing was read: it would be spent at once, which is what nobody wants.
    paid_until_ = std::max(paid_until_, Clock::now()) + price;
    const Clock::time_point until = paid_until_;
    cancel_.wait_until(lock, until, [this] { return cancelled_.load(std::memory_order_relaxed); });
  }
  return Check();
}

}  // namespace din
