// Command lines of the benches: --name VALUE or --name=VALUE, from one table that also prints the help.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace din::load {

struct Flag {
  using Setter = std::function<absl::Status(const std::string& value)>;

  const char* name;   // "" begins a group that `help` names
  const char* value;  // what it takes, in capitals
  const char* help;
  Setter set;
};

// INVALID_ARGUMENT: the option, its value, and what it takes.
absl::Status ParseFlags(const std::vector<Flag>& flags, const std::vector<std::string>& arguments);

// One line for each.
std::string FormatFlags(const std::vector<Flag>& flags);

// "<value>" is not <accepted>.
absl::Status Bad(const std::string& value, const std::string& accepted);

Flag::Setter Text(std::string* out);
Flag::Setter Seconds(double* out);       // "30s", "500ms"
Flag::Setter Nanoseconds(int64_t* out);  // the same
Flag::Setter Bytes(uint64_t* out);       // "64MiB", "1GiB"
Flag::Setter KeyValue(const std::function<absl::Status(const std::string&, const std::string&)>& use);

template <typename Number>
Flag::Setter Within(Number* out, double least, double most) {
  return [=](const std::string& value) {
    double number = 0;
    if (!absl::SimpleAtod(value, &number) || !(number >= least && number <= most) ||
        (std::is_integral_v<Number> && number != std::floor(number))) {
      return Bad(value, absl::StrCat("a number within [", least, ", ", most, "]"));
    }
    *out = static_cast<Number>(number);
    return absl::OkStatus();
  };
}

template <typename Value>
Flag::Setter Choice(Value* out, std::vector<std::pair<std::string, Value>> words) {
  return [=](const std::string& value) {
    std::string accepted;
    for (const auto& [word, meaning] : words) {
      if (word == value) {
        *out = meaning;
        return absl::OkStatus();
      }
      absl::StrAppend(&accepted, accepted.empty() ? "" : " or ", word);
    }
    return Bad(value, accepted);
  };
}

// For a parser that gives a StatusOr.
template <typename Out, typename Parser>
Flag::Setter Parsed(Out* out, Parser parse) {
  return [=](const std::string& value) {
    auto parsed = parse(value);
    if (!parsed.ok()) return parsed.status();
    *out = *std::move(parsed);
    return absl::OkStatus();
  };
}

}  // namespace din::load
