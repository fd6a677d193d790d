#include "tools/command.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"
#include "server/nearest_name.h"
#include "server/units.h"

namespace din {
namespace {

constexpr CommandOption kServerOptions[] = {
    {"server", "ADDRESS", "host:port or unix:path [DIN_SERVER, else 127.0.0.1:8500]"},
    {"timeout", "DURATION", "give up after this long [5s]"}};
constexpr CommandOption kAdminOptions[] = {
    {"admin", "ADDRESS", "unix:path or host:port [DIN_ADMIN, else unix:/var/lib/din-server/admin.sock]"},
    {"timeout", "DURATION", "give up waiting after this long [10m]"},
    {"tls-ca", "FILE", "PEM certificates of who signs the server's; for host:port"},
    {"tls-cert", "FILE", "your own PEM certificate"},
    {"tls-key", "FILE", "its PEM key"}};
constexpr CommandOption kCommonOptions[] = {{"json", nullptr, "print JSON instead of text"},
                                            {"help", nullptr, "print this"}};

std::vector<CommandOption> OptionsOf(const Command& command) {
  std::vector<CommandOption> options = command.options;
  if (command.uses == Command::Uses::kServer) {
    options.insert(options.end(), std::begin(kServerOptions), std::end(kServerOptions));
  }
  if (command.uses == Command::Uses::kAdmin) {
    options.insert(options.end(), std::begin(kAdminOptions), std::end(kAdminOptions));
  }
  options.insert(options.end(), std::begin(kCommonOptions), std::end(kCommonOptions));
  return options;
}

absl::StatusOr<uint64_t> ParseNumber(std::string_view name, std::string_view text, uint64_t most) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number <= most) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("--", std::string(name), ": ", Quote(text), ", expected a number in [0, ", most, "]"));
}

}  // namespace

std::optional<std::string> Arguments::Get(std::string_view name) const {
  const auto it = options.find(name);
  return it == options.end() ? std::nullopt : std::optional(it->second);
}

absl::StatusOr<uint64_t> Arguments::Number(std::string_view name, uint64_t otherwise, uint64_t most) const {
  const std::optional<std::string> text = Get(name);
  if (!text) return otherwise;
  return ParseNumber(name, *text, most);
}

absl::StatusOr<std::chrono::milliseconds> Arguments::Timeout(std::chrono::milliseconds otherwise) const {
  const std::optional<std::string> text = Get("timeout");
  if (!text) return otherwise;
  const std::optional<std::chrono::milliseconds> timeout = ParseDuration(*text);
  if (timeout && timeout->count() > 0 && *timeout <= std::chrono::hours(24)) return *timeout;
  return absl::InvalidArgumentError(
      absl::StrCat("--timeout: ", Quote(*text), ", expected 500ms, 5s, 1m, …, at most 24h"));
}

absl::StatusOr<std::vector<uint32_t>> Arguments::Numbers(std::string_view name) const {
  std::vector<uint32_t> numbers;
  const std::optional<std::string> text = Get(name);
  if (!text) return numbers;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(*text, ','))) {
    DIN_ASSIGN_OR_RETURN(const uint64_t number, ParseNumber(name, part, UINT32_MAX));
    numbers.push_back(static_cast<uint32_t>(number));
  }
  return numbers;
}

absl::StatusOr<Arguments> ParseArguments(const Command& command, std::span<const char* const> arguments) {
  const std::vector<CommandOption> options = OptionsOf(command);
  Arguments out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "-h") {
      out.options["help"] = "";
      continue;
    }
    if (argument == "-" || !argument.starts_with("-")) {
      out.positional.emplace_back(argument);
      continue;
    }
    const size_t equals = std::min(argument.find('='), argument.size());
    const std::string_view name = argument.substr(0, equals).substr(argument.starts_with("--") ? 2 : 1);
    const CommandOption* option = nullptr;
    std::vector<std::string_view> names;
    for (const CommandOption& o : options) {
      names.emplace_back(o.name);
      if (argument.starts_with("--") && name == o.name) option = &o;
    }
    if (option == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("unknown option ", Quote(argument), DidYouMean(name, names)));
    }
    std::string value;
    if (option->argument == nullptr) {
      if (equals != argument.size()) {
        return absl::InvalidArgumentError(absl::StrCat("--", option->name, " takes no value"));
      }
    } else if (equals != argument.size()) {
      value = argument.substr(equals + 1);
    } else if (++i < arguments.size()) {
      value = arguments[i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", option->name, " needs a value: ", option->argument));
    }
    out.options[option->name] = std::move(value);
  }
  if (out.Has("help") || out.positional.size() == command.positional) return out;
  return absl::InvalidArgumentError(absl::StrCat(out.positional.size(), " arguments, expected ", command.positional,
                                                 command.positional == 0 ? "" : absl::StrCat(": ", command.arguments)));
}

std::string HelpText(const Command& command) {
  std::string out =
      absl::StrFormat("dinctl %s%s%s [option...]\n\n%s\n\n%s\nOptions\n", command.name,
                      *command.arguments == '\0' ? "" : " ", command.arguments, command.summary, command.details);
  for (const CommandOption& option : OptionsOf(command)) {
    const std::string flag = absl::StrCat("--", option.name, option.argument == nullptr ? "" : " ",
                                          option.argument == nullptr ? "" : option.argument);
    absl::StrAppendFormat(&out, "  %-22s %s\n", flag, option.help);
  }
  return out;
}

int Fail(std::string_view what, const absl::Status& status) {
  const std::string code = absl::StatusCodeToString(status.code());
  std::fprintf(stderr, "dinctl: %s: %s: %s\n", std::string(what).c_str(), code.c_str(),
               std::string(status.message()).c_str());
  return absl::IsUnavailable(status) ? kExitUnreachable : kExitFailed;
}

}  // namespace din
