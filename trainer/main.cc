// din-train: from data to trained snapshots. Picks the subcommand; nothing else.
#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/commands.h"
#include "trainer/options.h"

namespace din {
namespace {

struct Subcommand {
  std::string_view name;
  std::string_view help;
  absl::Status (*run)(Arguments);
};

constexpr Subcommand kSubcommands[] = {
    {"train", "trains a model and publishes it as a snapshot", TrainCommand},
    {"compare", "trains many models with many seeds and compares them", CompareCommand},
    {"export", "publishes the model of a checkpoint as a snapshot", ExportCommand},
    {"verify", "scores the test set with libtorch and with a snapshot", VerifyCommand},
    {"demo-requests", "writes score requests of real users", DemoRequestsCommand},
};

std::string Usage() {
  std::string text = "usage: din-train SUBCOMMAND [options]; din-train SUBCOMMAND --help\n";
  for (const Subcommand& s : kSubcommands) absl::StrAppendFormat(&text, "  %-15s %s\n", s.name, s.help);
  return text;
}

absl::Status Run(Arguments arguments) {
  if (arguments.empty()) return absl::InvalidArgumentError("a subcommand is missing\n" + Usage());
  std::vector<std::string_view> names;
  for (const Subcommand& s : kSubcommands) {
    if (s.name == arguments[0]) return s.run(arguments.subspan(1));
    names.push_back(s.name);
  }
  if (WantsHelp(arguments.first(1))) {
    std::fputs(Usage().c_str(), stdout);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown subcommand ", std::string(arguments[0]), "; did you mean ",
                                                 std::string(Nearest(arguments[0], names)), "?"));
}

}  // namespace
}  // namespace din

// Every mini-batch allocates the same tens of megabytes again; by default the C library gives such blocks back to the
// kernel each time and faults them in anew, a third of the training time.
static void KeepMemory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT32_MAX);
  mallopt(M_TOP_PAD, 64 << 20);
}

// By default OpenMP's threads spin while they wait for each other; with one other busy process on the machine that made
// training five times slower. libgomp reads the policy when it is loaded, before main: so start again with it set.
static void WaitWithoutSpinning(char** argv) {
  constexpr char kPolicy[] = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr || setenv(kPolicy, "passive", 0) != 0) return;
  execv("/proc/self/exe", argv);  // where that fails, spinning is only slow
}

// Exit codes: 0 done, 1 failed, 2 the command line is wrong.
int main(int argc, char** argv) {
  WaitWithoutSpinning(argv);
  KeepMemory();
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  absl::Status status;
  try {
    status = din::Run(arguments);
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {  // libtorch reports by exceptions: out of memory, mostly
    status = absl::InternalError(e.what());
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "din-train: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}
