#include "model_loader/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string_view>

namespace din {
namespace {

// The number that follows `name` in a file of lines "name value" or "name: value kB".
std::optional<uint64_t> Field(const std::string& path, std::string_view name) {
  std::ifstream in(path);
  for (std::string key; in >> key;) {
    uint64_t value = 0;
    if (key == name && in >> value) return value;
    in.clear();
    in.ignore(4096, '\n');
  }
  return std::nullopt;
}

std::optional<uint64_t> Number(const std::string& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;  // not there, or "max"
}

std::optional<MemoryBudget> OfCgroup(const std::string& directory) {
  const std::string stat = directory + "/memory.stat";
  if (const std::optional<uint64_t> limit = Number(directory + "/memory.max")) {
    return MemoryBudget{.limit = *limit,
                        .used = Field(stat, "anon").value_or(0) + Field(stat, "kernel").value_or(0),
                        .of = directory + "/memory.max"};
  }
  if (const std::optional<uint64_t> limit = Number(directory + "/memory.limit_in_bytes")) {
    return MemoryBudget{
        .limit = *limit, .used = Field(stat, "total_rss").value_or(0), .of = directory + "/memory.limit_in_bytes"};
  }
  return std::nullopt;
}

}  // namespace

MemoryBudget TightestMemoryBudget(uint64_t process_limit, const MemorySources& sources) {
  constexpr uint64_t kKiB = 1024;
  MemoryBudget tightest;
  const auto consider = [&](const MemoryBudget& budget) {
    if (budget.left() < tightest.left()) tightest = budget;
  };
  if (process_limit != 0) {
    consider({.limit = process_limit,
              .used = kKiB * Field(sources.process_status, "RssAnon:").value_or(0),
              .of = "memory-limit"});
  }
  for (const std::string& directory : CgroupDirectories("memory", sources.cgroups)) {
    if (const std::optional<MemoryBudget> budget = OfCgroup(directory)) consider(*budget);
  }
  const std::optional<uint64_t> total = Field(sources.machine, "MemTotal:");
  const std::optional<uint64_t> available = Field(sources.machine, "MemAvailable:");
  if (total && available) {
    consider({.limit = kKiB * *total, .used = kKiB * (*total - std::min(*available, *total)), .of = "this machine"});
  }
  return tightest;
}

}  // namespace din
