#include "server/nearest_name.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace din {
namespace {

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view NearestName(std::string_view wanted, std::span<const std::string_view> names) {
  wanted = wanted.substr(0, 64);
  std::string_view nearest;
  size_t smallest = wanted.size() / 2 + 2;
  for (std::string_view name : names) {
    const size_t distance = EditDistance(wanted, name);
    if (distance >= smallest) continue;
    smallest = distance;
    nearest = name;
  }
  return nearest;
}

std::string DidYouMean(std::string_view wanted, std::span<const std::string_view> names) {
  const std::string_view nearest = NearestName(wanted, names);
  return nearest.empty() ? "" : "; did you mean \"" + std::string(nearest) + "\"?";
}

}  // namespace din
