// What the server under test spends, read from /proc: only where it runs on this machine.
#pragma once

#include <cstdint>
#include <optional>

namespace din::load {

struct ProcessUsage {
  double cpu_seconds = 0;  // all threads, user and kernel, since the process began
  int64_t resident_bytes = 0;
};

// None when there is no such process, or it may not be looked at.
std::optional<ProcessUsage> ReadProcessUsage(int pid);

}  // namespace din::load
