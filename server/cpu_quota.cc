#include "server/cpu_quota.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>

namespace din {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

std::optional<double> ReadNumber(const std::string& path) {
  std::ifstream in(path);
  double value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

// Cores that one directory of the tree allows.
double QuotaOf(const std::string& directory) {
  if (std::ifstream in(directory + "/cpu.max"); in) {
    std::string quota;
    double period = 0;
    if (in >> quota >> period && quota != "max" && period > 0) return std::strtod(quota.c_str(), nullptr) / period;
    return kUnlimited;
  }
  const std::optional<double> quota = ReadNumber(directory + "/cpu.cfs_quota_us");
  const std::optional<double> period = ReadNumber(directory + "/cpu.cfs_period_us");
  if (quota && period && *quota > 0 && *period > 0) return *quota / *period;
  return kUnlimited;
}

// The tightest quota from `path` up to the root. In a container with a namespace of its own, the path is "/".
double TightestQuota(const std::string& root, std::string path) {
  double tightest = kUnlimited;
  for (;;) {
    tightest = std::min(tightest, QuotaOf(root + path));
    if (path.empty()) return tightest;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

bool Names(const std::string& controllers, std::string_view wanted) {
  std::istringstream list(controllers);
  for (std::string one; std::getline(list, one, ',');) {
    if (one == wanted) return true;
  }
  return false;
}

double Quota(const CpuSources& sources) {
  double tightest = kUnlimited;
  std::ifstream cgroups(sources.process_cgroup);
  for (std::string line; std::getline(cgroups, line);) {  // "0::/path", or "4:cpu,cpuacct:/path"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    while (!path.empty() && path.back() == '/') path.pop_back();
    if (controllers.empty()) {
      tightest = std::min(tightest, TightestQuota(sources.cgroup_root, path));
    } else if (Names(controllers, "cpu")) {
      tightest = std::min(tightest, TightestQuota(sources.cgroup_root + "/cpu", path));
    }
  }
  return tightest;
}

}  // namespace

int UsableCpus(const CpuSources& sources) {
  cpu_set_t mask;
  const int cores = sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : 1;
  const double quota = std::floor(Quota(sources));
  return static_cast<int>(std::clamp(quota, 1.0, static_cast<double>(std::max(cores, 1))));
}

}  // namespace din
