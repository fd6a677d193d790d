#include "bench/load/flags.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace din::load {

absl::Status ParseFlags(const std::vector<Flag>& flags, const std::vector<std::string>& arguments) {
  for (size_t a = 0; a < arguments.size(); ++a) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(arguments[a], absl::MaxSplits('=', 1));
    const auto flag = std::ranges::find_if(
        flags, [&](const Flag& f) { return *f.name != '\0' && parts.first == absl::StrCat("--", f.name); });
    if (flag == flags.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown option ", arguments[a], " (see --help)"));
    }
    const bool joined = parts.first.size() < arguments[a].size();
    if (!joined && a + 1 == arguments.size()) {
      return absl::InvalidArgumentError(absl::StrCat(parts.first, ": needs ", flag->value));
    }
    const absl::Status status = flag->set(joined ? parts.second : arguments[++a]);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(parts.first, ": ", std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

std::string FormatFlags(const std::vector<Flag>& flags) {
  std::string text;
  for (const Flag& flag : flags) {
    if (*flag.name == '\0') {
      absl::StrAppend(&text, "\n", flag.help, "\n");
    } else {
      absl::StrAppend(&text,
                      absl::StrFormat("  %-26s %s\n", absl::StrCat("--", flag.name, " ", flag.value), flag.help));
    }
  }
  return text;
}

absl::Status Bad(const std::string& value, const std::string& accepted) {
  return absl::InvalidArgumentError(absl::StrCat("\"", value, "\" is not ", accepted));
}

Flag::Setter Text(std::string* out) {
  return [out](const std::string& value) {
    *out = value;
    return absl::OkStatus();
  };
}

Flag::Setter Seconds(double* out) {
  return [out](const std::string& value) {
    absl::Duration time;
    if (!absl::ParseDuration(value, &time) || time < absl::ZeroDuration() || time > absl::Hours(240)) {
      return Bad(value, "a time such as 30s, 500ms, 10m");
    }
    *out = absl::ToDoubleSeconds(time);
    return absl::OkStatus();
  };
}

Flag::Setter Nanoseconds(int64_t* out) {
  return [out](const std::string& value) {
    double seconds = 0;
    const absl::Status status = Seconds(&seconds)(value);
    if (status.ok()) *out = std::llround(seconds * 1e9);
    return status;
  };
}

Flag::Setter Bytes(uint64_t* out) {
  return [out](const std::string& value) {
    for (const auto& [unit, shift] : {std::pair<std::string_view, int>{"KiB", 10}, {"MiB", 20}, {"GiB", 30}}) {
      const absl::string_view suffix(unit.data(), unit.size());
      uint64_t number = 0;
      if (absl::EndsWith(value, suffix) && absl::SimpleAtoi(value.substr(0, value.size() - unit.size()), &number) &&
          number <= (uint64_t{1} << 50) >> shift) {
        *out = number << shift;
        return absl::OkStatus();
      }
    }
    return Bad(value, "a size such as 64MiB, 1GiB");
  };
}

Flag::Setter KeyValue(const std::function<absl::Status(const std::string&, const std::string&)>& use) {
  return [use](const std::string& value) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(value, absl::MaxSplits('=', 1));
    if (parts.first.empty() || parts.second.empty()) return Bad(value, "NAME=VALUE");
    return use(parts.first, parts.second);
  };
}

}  // namespace din::load
