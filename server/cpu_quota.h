// How many cores this process may really use.
#pragma once

#include "model_loader/cgroup.h"

namespace din {

// At least 1, at most the cores of the affinity mask, and no more whole cores than the tightest CPU quota on the way up
// the cgroup tree (version 2: cpu.max, version 1: cpu.cfs_quota_us): a thread beyond the quota only earns throttling,
// which stops all of them at once (kubernetes#51135).
int UsableCpus(const CgroupSources& sources = {});

}  // namespace din
