// How many cores this process may really use.
#pragma once

#include <string>

namespace din {

// Where the kernel tells; tests put their own files there.
struct CpuSources {
  std::string process_cgroup = "/proc/self/cgroup";
  std::string cgroup_root = "/sys/fs/cgroup";
};

// At least 1, at most the cores of the affinity mask, and no more whole cores than the tightest CPU quota on the way up
// the cgroup tree (version 2: cpu.max, version 1: cpu.cfs_quota_us): a thread beyond the quota only earns throttling,
// which stops all of them at once (kubernetes#51135).
int UsableCpus(const CpuSources& sources = {});

}  // namespace din
