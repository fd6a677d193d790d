#include "model_loader/thread_priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <string>
#include <system_error>
#include <thread>

namespace din {
namespace {

using std::chrono::nanoseconds;

// On Linux both are properties of a thread, whatever POSIX says of processes. False when it is not allowed.
bool SetPriority(pid_t thread, BackgroundPriority priority) {
  const sched_param none{};
  if (priority == BackgroundPriority::kIdle) return sched_setscheduler(thread, SCHED_IDLE, &none) == 0;
  const int nice = priority == BackgroundPriority::kNice19 ? 19 : 10;
  return sched_setscheduler(thread, SCHED_OTHER, &none) == 0 &&
         setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nice) == 0;
}

// Lowers the calling thread; true when it may be raised again. That is tried, since there is more than one reason why it
// might be allowed, and tried from where there is no harm in staying.
bool LowerThisThread() {
  const pid_t self = gettid();
  SetPriority(self, BackgroundPriority::kNice19);
  if (!SetPriority(self, BackgroundPriority::kNice10)) return false;
  SetPriority(self, BackgroundPriority::kNice19);
  SetPriority(self, BackgroundPriority::kIdle);
  return true;
}

}  // namespace

const char* Name(BackgroundPriority priority) {
  switch (priority) {
    case BackgroundPriority::kIdle:
      return "idle";
    case BackgroundPriority::kNice19:
      return "nice 19";
    case BackgroundPriority::kNice10:
      return "nice 10";
  }
  return "?";
}

BackgroundPriority PriorityAfter(nanoseconds waited, nanoseconds patience) {
  if (waited < patience) return BackgroundPriority::kIdle;
  return waited < 2 * patience ? BackgroundPriority::kNice19 : BackgroundPriority::kNice10;
}

std::optional<nanoseconds> WaitedForCore(pid_t thread) {
  std::ifstream in("/proc/self/task/" + std::to_string(thread) + "/schedstat");
  int64_t ran = 0, waited = 0;
  if (in >> ran >> waited) return nanoseconds(waited);
  return std::nullopt;
}

void RunInBackground(const std::function<void()>& work, const BackgroundOptions& options) {
  std::atomic<pid_t> thread = 0;  // 0: not to be raised
  std::promise<void> finished, looked;
  const auto run = [&] {
    if (LowerThisThread()) thread = gettid();
    work();
    finished.set_value();
    looked.get_future().wait();  // until then the number is this thread's and no other's
  };
  std::jthread background;
  try {
    background = std::jthread(run);
  } catch (const std::system_error&) {
    return work();  // no more threads to be had: better noticed than not done
  }
  const auto begin = std::chrono::steady_clock::now();
  auto priority = BackgroundPriority::kIdle;
  const std::future<void> done = finished.get_future();
  while (done.wait_for(options.look_every) != std::future_status::ready) {
    const pid_t raise = thread;
    if (raise == 0 || priority == BackgroundPriority::kNice10) continue;
    const nanoseconds waited = options.waited(raise).value_or(std::chrono::steady_clock::now() - begin);
    const BackgroundPriority due = PriorityAfter(waited, options.patience);
    if (due == priority || !SetPriority(raise, due)) continue;
    priority = due;
    options.on_raise(due, waited);
  }
  looked.set_value();
}

}  // namespace din
