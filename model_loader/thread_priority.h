// Work that must not be noticed by requests, and must come to an end all the same.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

namespace din {

// Of a thread that makes way: it gets, beside each ordinary one that wants the same core, about 1/340 of that core
// (SCHED_IDLE), 1/70 or 1/10.
enum class BackgroundPriority { kIdle, kNice19, kNice10 };
const char* Name(BackgroundPriority);  // "idle", "nice 19", "nice 10"

// How long a thread had a core, and how long it was ready to run and had none. Waiting for a disk is neither.
struct CoreTime {
  std::chrono::nanoseconds ran{0};
  std::chrono::nanoseconds waited{0};
};

// What a thread has waited beyond nine times what it ran, when it had starved for `before` and since then had `more`:
// stays at nothing while it gets a tenth of a core or more, and grows with the clock while it gets none. So a load may
// be as long as it is large, and makes way as long as it moves.
std::chrono::nanoseconds StarvedAfter(std::chrono::nanoseconds before, const CoreTime& more);

// What a thread may come to on a busy machine: the next higher priority for each `patience` that it has starved.
BackgroundPriority PriorityAfter(std::chrono::nanoseconds starved, std::chrono::nanoseconds patience);

// Of a thread of this process, since it began; none where the kernel does not say.
std::optional<CoreTime> ReadCoreTime(pid_t thread);

struct BackgroundOptions {
  std::chrono::nanoseconds patience = std::chrono::seconds(5);
  std::function<void(BackgroundPriority, std::chrono::nanoseconds starved)> on_raise =
      [](BackgroundPriority, std::chrono::nanoseconds) {};  // from the calling thread
  std::function<void()> on_look = [] {};                    // each time that it is looked at, from the calling thread
  // True when the work is only to come to its end, because it was cancelled: at once kNice10.
  std::function<bool()> hurry = [] { return false; };
  // Tests have a clock of their own.
  std::function<std::optional<CoreTime>(pid_t)> core_time = ReadCoreTime;
  std::chrono::milliseconds look_every{100};
};

// A thread that makes way for all others. It stays, so that what it allocates is in a part of the heap that is its own:
// a request that had to share one would wait for a lock whose holder has no core.
//
// Each work begins as kIdle. The kernel lets a thread rise only with CAP_SYS_NICE or an RLIMIT_NICE of 10 or more;
// without, it is kNice19 from the beginning to the end, since nothing could help it out of kIdle.
class BackgroundThread {
 public:
  // Runs `work`, which must not throw, and returns when it is done. One at a time. Threads that the work starts have
  // the priority that it has then.
  void Run(const std::function<void()>& work, const BackgroundOptions& options);

 private:
  bool Start();
  void Loop(std::stop_token stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  const std::function<void()>* work_ = nullptr;  // null: done
  std::jthread thread_;
};

}  // namespace din
