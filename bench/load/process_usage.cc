#include "bench/load/process_usage.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace din::load {

std::optional<ProcessUsage> ReadProcessUsage(int pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  std::string line;
  if (!std::getline(stat, line)) return std::nullopt;
  // proc(5): the name stands in parentheses and may hold anything; utime and stime are fields 14 and 15, counted from
  // the state, which is field 3.
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double user = 0;
  double kernel = 0;
  int64_t pages = 0;
  if (!(fields >> user >> kernel) || !(statm >> skipped >> pages)) return std::nullopt;
  return ProcessUsage{(user + kernel) / static_cast<double>(sysconf(_SC_CLK_TCK)), pages * sysconf(_SC_PAGESIZE)};
}

}  // namespace din::load
