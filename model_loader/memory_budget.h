// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

#include "model_loader/cgroup.h"
#include "model_loader/lifecycle.h"

namespace din {

// Where the kernel tells; tests put their own files there.
struct MemorySources {
  CgroupSources cgroups;
  std::string process_status = "/proc/self/status";
  std::string machine = "/proc/meminfo";
};

// The limit that leaves least: `process_limit` bytes for this process (0: none), those of its cgroups and of all above
// (version 2: memory.max, version 1: memory.limit_in_bytes), and the machine's memory; each with what is in use of it.
// Page cache counts as free: the kernel gives it back.
MemoryBudget TightestMemoryBudget(uint64_t process_limit, const MemorySources& sources = {});

}  // namespace din
