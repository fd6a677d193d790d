// Where the limits of this process's control groups stand.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace din {

// Where the kernel tells; tests put their own files there.
struct CgroupSources {
  std::string process_cgroup = "/proc/self/cgroup";
  std::string cgroup_root = "/sys/fs/cgroup";
};

// The directories whose limits hold for a controller ("cpu", "memory"): the process's own and all above it, of version
// 2 and of that controller's hierarchy of version 1. Some may not be there: in a container with a namespace of its own,
// the path is "/".
std::vector<std::string> CgroupDirectories(std::string_view controller, const CgroupSources& sources = {});

}  // namespace din
