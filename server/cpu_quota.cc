#include "server/cpu_quota.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

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

double Quota(const CgroupSources& sources) {
  double tightest = kUnlimited;
  for (const std::string& directory : CgroupDirectories("cpu", sources)) {
    tightest = std::min(tightest, QuotaOf(directory));
  }
  return tightest;
}

}  // namespace

int UsableCpus(const CgroupSources& sources) {
  cpu_set_t mask;
  const int cores = sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : 1;
  const double quota = std::floor(Quota(sources));
  return static_cast<int>(std::clamp(quota, 1.0, static_cast<double>(std::max(cores, 1))));
}

}  // namespace din
