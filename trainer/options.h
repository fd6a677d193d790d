// Command-line options of one subcommand: --name value or --name=value.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace din {

// The word of `words` that takes the fewest edits to become `word`; "" when there are none.
std::string_view Nearest(std::string_view word, std::span<const std::string_view> words);

// A target keeps its value when its option is not given, and the help shows that value as the default. Targets must
// outlive this. One thread.
class Options {
 public:
  void Add(std::string_view name, std::string_view help, std::string* target);
  void Add(std::string_view name, std::string_view help, std::vector<int64_t>* target);  // "80,40", each in [1, 4096]
  void Add(std::string_view name, std::string_view help, int* target, int least, int most);
  void Add(std::string_view name, std::string_view help, int64_t* target, int64_t least, int64_t most);
  void Add(std::string_view name, std::string_view help, double* target, double least, double most);
  // One of `words`; the target receives its index.
  void AddChoice(std::string_view name, std::string_view help, std::vector<std::string_view> words, int* target);

  // INVALID_ARGUMENT: an unknown option (with the nearest known one), a missing or malformed value, a value out of its
  // range.
  absl::Status Parse(std::span<const std::string_view> arguments) const;

  // One option a line, with its default.
  std::string Help() const;

  // What every option stands at now: "--name=value", as Parse takes it.
  std::vector<std::string> Values() const;

 private:
  struct Option {
    std::string name;  // with its dashes
    std::string help;
    std::string standard;
    std::function<bool(std::string_view)> set;  // false: not a value of this option
    std::string accepted;
    std::function<std::string()> get;
  };
  template <typename T>
  void AddNumber(std::string_view name, std::string_view help, T* target, T least, T most);

  std::vector<Option> options_;
};

}  // namespace din
