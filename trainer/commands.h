// din-train's subcommands. Each parses its own arguments and prints to stdout; progress goes to stderr.
// INVALID_ARGUMENT: the command line is wrong; others: it failed.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace din {

using Arguments = std::span<const std::string_view>;

bool WantsHelp(Arguments arguments);
absl::Status Required(std::string_view option, const std::string& value);

absl::Status TrainCommand(Arguments arguments);
absl::Status ExportCommand(Arguments arguments);
absl::Status VerifyCommand(Arguments arguments);
absl::Status CompareCommand(Arguments arguments);
absl::Status DemoRequestsCommand(Arguments arguments);

// Debian's libtorch takes its matrix products from whatever BLAS is installed, by default the slow reference one.
void WarnOfSlowMatrices();

}  // namespace din
