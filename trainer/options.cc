#include "trainer/options.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace din {
namespace {

template <typename T>
bool ParseNumber(std::string_view text, T least, T most, T& out) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= least && value <= most)) return false;
  out = value;
  return true;
}

bool ParseList(std::string_view text, std::vector<int64_t>& out) {
  std::vector<int64_t> values;
  for (;;) {
    const size_t comma = text.find(',');
    if (!ParseNumber<int64_t>(text.substr(0, comma), 1, 4096, values.emplace_back())) return false;
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  out = std::move(values);
  return true;
}

// Levenshtein distance.
size_t Edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row.back();
}

}  // namespace

std::string_view Nearest(std::string_view word, std::span<const std::string_view> words) {
  const auto best = std::ranges::min_element(words, {}, [&](std::string_view w) { return Edits(word, w); });
  return best == words.end() ? std::string_view() : *best;
}

void Options::Add(std::string_view name, std::string_view help, std::string* target) {
  const auto set = [target](std::string_view text) {
    *target = text;
    return true;
  };
  options_.push_back({absl::StrCat("--", std::string(name)), std::string(help), *target, set, "any text",
                      [target] { return *target; }});
}

void Options::Add(std::string_view name, std::string_view help, std::vector<int64_t>* target) {
  const auto set = [target](std::string_view text) { return ParseList(text, *target); };
  options_.push_back({absl::StrCat("--", std::string(name)), std::string(help), absl::StrJoin(*target, ","), set,
                      "numbers from 1 to 4096 with commas between them",
                      [target] { return absl::StrJoin(*target, ","); }});
}

template <typename T>
void Options::AddNumber(std::string_view name, std::string_view help, T* target, T least, T most) {
  const auto set = [=](std::string_view text) { return ParseNumber(text, least, most, *target); };
  options_.push_back({absl::StrCat("--", std::string(name)), std::string(help), absl::StrCat(*target), set,
                      absl::StrCat("a number from ", least, " to ", most), [target] { return absl::StrCat(*target); }});
}

void Options::Add(std::string_view name, std::string_view help, int* target, int least, int most) {
  AddNumber(name, help, target, least, most);
}
void Options::Add(std::string_view name, std::string_view help, int64_t* target, int64_t least, int64_t most) {
  AddNumber(name, help, target, least, most);
}
void Options::Add(std::string_view name, std::string_view help, double* target, double least, double most) {
  AddNumber(name, help, target, least, most);
}

void Options::AddChoice(std::string_view name, std::string_view help, std::vector<std::string_view> words,
                        int* target) {
  const auto set = [words, target](std::string_view text) {
    const auto it = std::ranges::find(words, text);
    if (it == words.end()) return false;
    *target = static_cast<int>(it - words.begin());
    return true;
  };
  const std::string accepted =
      absl::StrJoin(words, ", ", [](std::string* out, std::string_view word) { out->append(word); });
  options_.push_back({absl::StrCat("--", std::string(name)), absl::StrCat(std::string(help), ": ", accepted),
                      std::string(words[*target]), set, accepted, [=] { return std::string(words[*target]); }});
}

absl::Status Options::Parse(std::span<const std::string_view> arguments) const {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    const std::string_view name = arguments[i].substr(0, equals);
    const auto option = std::ranges::find(options_, name, &Option::name);
    if (option == options_.end()) {
      std::vector<std::string_view> names;
      for (const Option& o : options_) names.push_back(o.name);
      return absl::InvalidArgumentError(absl::StrCat("unknown option ", std::string(name), "; did you mean ",
                                                     std::string(Nearest(name, names)), "?"));
    }
    if (equals == std::string_view::npos && i + 1 == arguments.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(option->name, ": a value is missing; accepted: ", option->accepted));
    }
    const std::string_view value = equals == std::string_view::npos ? arguments[++i] : arguments[i].substr(equals + 1);
    if (!option->set(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(option->name, ": \"", std::string(value), "\" is not accepted; accepted: ", option->accepted));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> Options::Values() const {
  std::vector<std::string> values;
  for (const Option& o : options_) values.push_back(absl::StrCat(o.name, "=", o.get()));
  return values;
}

std::string Options::Help() const {
  size_t width = 0;
  for (const Option& o : options_) width = std::max(width, o.name.size());
  std::string text;
  for (const Option& o : options_) {
    absl::StrAppend(&text, "  ", o.name, std::string(width - o.name.size() + 2, ' '), o.help);
    if (!o.standard.empty()) absl::StrAppend(&text, " (", o.standard, ")");
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace din
