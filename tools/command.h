// The shape of a dinctl subcommand, and its command line.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace din {

enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,  // refused, not verified, not found
  kExitUsage = 2,
  kExitUnreachable = 3,  // no answer from the server
};

// A subcommand's arguments once they have been parsed.
class Arguments {
 public:
  std::vector<std::string> positional;
  std::map<std::string, std::string, std::less<>> options;  // by name without dashes; "" for a switch

  bool Has(std::string_view name) const { return options.find(name) != options.end(); }
  std::optional<std::string> Get(std::string_view name) const;
  // A whole number in [0, most], or `otherwise` where the option is not given. INVALID_ARGUMENT names the option.
  absl::StatusOr<uint64_t> Number(std::string_view name, uint64_t otherwise, uint64_t most) const;
  // Of --timeout, in [1 ms, 24 h], or `otherwise`. INVALID_ARGUMENT.
  absl::StatusOr<std::chrono::milliseconds> Timeout(std::chrono::milliseconds otherwise) const;
  // Comma-separated numbers.
  absl::StatusOr<std::vector<uint32_t>> Numbers(std::string_view name) const;
};

struct CommandOption {
  const char* name;      // without dashes
  const char* argument;  // nullptr: a switch
  const char* help;
};

struct Command {
  enum class Uses { kNothing, kServer, kAdmin };  // which listener; with it come the options to say where it is

  const char* name;
  const char* arguments;  // "REQUEST"
  const char* summary;
  const char* details;  // with an example
  size_t positional;    // how many it needs
  Uses uses;
  std::vector<CommandOption> options;
  // The exit code, or INVALID_ARGUMENT for a usage error; it has printed everything else itself.
  absl::StatusOr<int> (*run)(const Arguments& arguments);
};

// One group per file.
std::vector<Command> ScoreCommands();     // score, explain
std::vector<Command> ModelCommands();     // metadata, status
std::vector<Command> SnapshotCommands();  // verify, inspect, diff, seal
std::vector<Command> AdminCommands();     // load, pin, unpin, rollback, label, unload, watch

// INVALID_ARGUMENT for unknown options (with the nearest name), missing values and a wrong number of arguments.
absl::StatusOr<Arguments> ParseArguments(const Command& command, std::span<const char* const> arguments);
std::string HelpText(const Command& command);

// Prints `dinctl: <what>: <message>` to stderr and returns the exit code that fits.
int Fail(std::string_view what, const absl::Status& status);

}  // namespace din
