// dinctl: the command-line client of din-server, and what there is to do with snapshots without one.
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/nearest_name.h"
#include "tools/command.h"

namespace {

std::vector<din::Command> AllCommands() {
  std::vector<din::Command> all;
  for (const auto& group : {din::ScoreCommands(), din::ModelCommands(), din::AdminCommands(), din::SnapshotCommands()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

std::string Overview(const std::vector<din::Command>& commands) {
  std::string out = "dinctl: the command-line client of din-server\n\n";
  for (const din::Command& command : commands) {
    const std::string usage = absl::StrCat(command.name, *command.arguments == '\0' ? "" : " ", command.arguments);
    absl::StrAppendFormat(&out, "  dinctl %-25s %s\n", usage, command.summary);
  }
  return out +
         "\n"
         "dinctl COMMAND --help has the options and an example. The server is --server ADDRESS, else DIN_SERVER, else\n"
         "127.0.0.1:8500.\n"
         "Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 the server cannot be reached.\n";
}

int UsageError(const std::string& message) {
  std::fprintf(stderr, "dinctl: %s\n", message.c_str());
  return din::kExitUsage;
}

int Run(const din::Command& command, std::span<const char* const> rest) {
  const absl::StatusOr<din::Arguments> arguments = din::ParseArguments(command, rest);
  absl::StatusOr<int> exit_code = din::kExitOk;
  if (!arguments.ok()) {
    exit_code = arguments.status();
  } else if (arguments->Has("help")) {
    std::fputs(din::HelpText(command).c_str(), stdout);
  } else {
    exit_code = command.run(*arguments);
  }
  if (exit_code.ok()) return *exit_code;
  return UsageError(absl::StrCat(command.name, ": ", std::string(exit_code.status().message()), " (dinctl ",
                                 command.name, " --help)"));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<din::Command> commands = AllCommands();
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(Overview(commands).c_str(), stdout);
    return din::kExitOk;
  }
  if (name == "--version") {
    std::puts("dinctl " DIN_VERSION);
    return din::kExitOk;
  }
  const auto command =
      std::find_if(commands.begin(), commands.end(), [&](const din::Command& c) { return name == c.name; });
  if (command != commands.end()) return Run(*command, {argv + 2, static_cast<size_t>(argc - 2)});
  if (name.empty()) return UsageError("no command (dinctl --help)");
  std::vector<std::string_view> names;
  for (const din::Command& c : commands) names.emplace_back(c.name);
  return UsageError(
      absl::StrCat("unknown command \"", std::string(name), "\"", din::DidYouMean(name, names), " (dinctl --help)"));
}
