#include "model_loader/thread_priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

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

// Lowers the calling thread; true when it may be raised again. That is tried, since there is more than one reason why
// it might be allowed, and tried from where there is no harm in staying.
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

nanoseconds StarvedAfter(nanoseconds before, const CoreTime& more) {
  return std::max(before + more.waited - 9 * more.ran, nanoseconds(0));
}

BackgroundPriority PriorityAfter(nanoseconds starved, nanoseconds patience) {
  if (starved < patience) return BackgroundPriority::kIdle;
  return starved < 2 * patience ? BackgroundPriority::kNice19 : BackgroundPriority::kNice10;
}

std::optional<CoreTime> ReadCoreTime(pid_t thread) {
  std::ifstream in("/proc/self/task/" + std::to_string(thread) + "/schedstat");
  int64_t ran = 0, waited = 0;
  if (in >> ran >> waited) return CoreTime{.ran = nanoseconds(ran), .waited = nanoseconds(waited)};
  return std::nullopt;
}

// False when there are no more threads to be had.
bool BackgroundThread::Start() {
  if (thread_.joinable()) return true;
  try {
    thread_ = std::jthread([this](std::stop_token stop) { Loop(std::move(stop)); });
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

void BackgroundThread::Loop(std::stop_token stop) {
  for (;;) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return work_ != nullptr; })) return;
    const std::function<void()>& work = *work_;
    lock.unlock();
    work();
    lock.lock();
    work_ = nullptr;
    changed_.notify_all();
  }
}

void BackgroundThread::Run(const std::function<void()>& work, const BackgroundOptions& options) {
  if (!Start()) return work();  // better noticed than not done
  const auto begin = std::chrono::steady_clock::now();
  std::optional<CoreTime> before;   // when it was looked at last
  std::atomic<pid_t> may_rise = 0;  // the thread, if it may; 0 before it has found out, too
  const std::function<void()> lowered = [&] {
    const bool may = LowerThisThread();
    before = options.core_time(gettid());
    if (may) may_rise = gettid();
    work();
  };
  auto priority = BackgroundPriority::kIdle;
  nanoseconds starved{0};
  std::unique_lock lock(mutex_);
  work_ = &lowered;
  changed_.notify_all();
  while (!changed_.wait_for(lock, options.look_every, [this] { return work_ == nullptr; })) {
    lock.unlock();
    options.on_look();
    lock.lock();
    const pid_t thread = may_rise;
    if (thread == 0 || priority == BackgroundPriority::kNice10) continue;
    lock.unlock();
    const std::optional<CoreTime> now = options.core_time(thread);
    starved = now && before
                  ? StarvedAfter(starved, {.ran = now->ran - before->ran, .waited = now->waited - before->waited})
                  : std::chrono::steady_clock::now() - begin;
    before = now;
    const bool hurry = options.hurry();
    const BackgroundPriority due = hurry ? BackgroundPriority::kNice10 : PriorityAfter(starved, options.patience);
    if (due > priority && SetPriority(thread, due)) {
      priority = due;
      if (!hurry) options.on_raise(due, starved);
    }
    lock.lock();
  }
}

}  // namespace din
