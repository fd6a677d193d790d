#include "model_loader/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace din {
namespace {

// Tasks are handed out in ascending order and every one that was handed out finishes, so when task i fails, all lower
// ones have been heard.
class Loop {
 public:
  Loop(size_t count, const std::function<absl::Status(size_t)>& task) : count_(count), task_(task) {}

  void Run() {
    while (!failed_.load(std::memory_order_relaxed)) {
      const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= count_) return;
      if (absl::Status status = task_(i); !status.ok()) Fail(i, std::move(status));
    }
  }

  absl::Status status() const { return status_; }  // when all threads are done

 private:
  void Fail(size_t i, absl::Status status) {
    failed_.store(true, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (!status_.ok() && failed_task_ < i) return;
    failed_task_ = i;
    status_ = std::move(status);
  }

  const size_t count_;
  const std::function<absl::Status(size_t)>& task_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  size_t failed_task_ = 0;
  absl::Status status_;
};

}  // namespace

absl::Status ParallelFor(size_t count, int threads, const std::function<absl::Status(size_t)>& task) {
  Loop loop(count, task);
  {
    std::vector<std::jthread> helpers;
    const size_t wanted = std::min(count, static_cast<size_t>(std::max(threads, 1)));
    try {
      while (helpers.size() + 1 < wanted) helpers.emplace_back([&loop] { loop.Run(); });
    } catch (const std::system_error&) {
      // No more threads to be had: those that are there do the work.
    }
    loop.Run();
  }
  return loop.status();
}

}  // namespace din
