#include "bench/machine.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace din::bench {

Machine DescribeMachine() {
  Machine machine;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; machine.cpu.empty() && std::getline(cpuinfo, line);) {
    if (absl::StartsWith(line, "model name")) machine.cpu = line.substr(line.find(':') + 2);
  }
  cpu_set_t allowed;
  machine.cores = sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  machine.memory_bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  utsname name;
  if (uname(&name) == 0) machine.kernel = absl::StrCat(name.sysname, " ", name.release, " ", name.machine);
  return machine;
}

}  // namespace din::bench
