#include "bench/load/clock.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

namespace din::load {

int64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

void SleepUntil(int64_t time, int64_t spin_ns) {
  const int64_t wake = time - spin_ns;
  if (NowNs() < wake) {
    const timespec t = {wake / 1'000'000'000, wake % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) != 0) {
    }
  }
  while (NowNs() < time) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

void AskForPreciseTimers() { prctl(PR_SET_TIMERSLACK, 1UL); }

bool AskForRealtime() {
  // Above every ordinary thread and a server at the lowest real-time priority, below the kernel's own threads (50).
  const sched_param parameters = {.sched_priority = 10};
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters) == 0;
}

}  // namespace din::load
