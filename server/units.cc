#include "server/units.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

// A number and what follows it, e.g. "200ms".
std::optional<std::pair<uint64_t, std::string_view>> SplitUnit(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  uint64_t number = 0;
  if (std::from_chars(text.data(), text.data() + digits, number).ec != std::errc()) return std::nullopt;
  return std::pair(number, text.substr(digits));
}

struct Unit {
  std::string_view name;
  uint64_t factor;
};
constexpr Unit kDurations[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
constexpr Unit kSizes[] = {{"", 1}, {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}};

std::optional<uint64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units) {
  const auto split = SplitUnit(text);
  if (!split) return std::nullopt;
  for (const Unit& unit : units) {
    if (unit.name != split->second) continue;
    if (split->first > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / unit.factor) return std::nullopt;
    return split->first * unit.factor;
  }
  return std::nullopt;
}

// In the largest unit that divides it.
std::string FormatWithUnit(uint64_t number, std::span<const Unit> units) {
  const Unit* best = &units[0];
  for (const Unit& unit : units) {
    if (number != 0 && number % unit.factor == 0) best = &unit;
  }
  return absl::StrCat(number / best->factor, std::string(best->name));
}

}  // namespace

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  const std::optional<uint64_t> ms = ParseWithUnit(text, kDurations);
  if (!ms) return std::nullopt;
  return std::chrono::milliseconds(static_cast<int64_t>(*ms));
}

std::optional<uint64_t> ParseBytes(std::string_view text) { return ParseWithUnit(text, kSizes); }

std::string FormatDuration(std::chrono::milliseconds duration) {
  return FormatWithUnit(static_cast<uint64_t>(duration.count()), kDurations);
}

std::string FormatBytes(uint64_t bytes) { return FormatWithUnit(bytes, kSizes); }

}  // namespace din
