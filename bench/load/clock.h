// Time as the load generator counts it: nanoseconds of CLOCK_MONOTONIC.
#pragma once

#include <cstdint>

namespace din::load {

int64_t NowNs();

// Returns at `time` or a little later, never earlier. Sleeps until `spin_ns` before it, then spins: a sleep alone wakes
// some 10 to 60 µs late. Returns at once when `time` has passed.
void SleepUntil(int64_t time, int64_t spin_ns);

// Sets the calling thread's timer slack to 1 ns (Linux adds 50 µs to sleeps otherwise).
void AskForPreciseTimers();

// Puts the calling thread in front of all ordinary ones (SCHED_FIFO). False when the process may not.
bool AskForRealtime();

}  // namespace din::load
