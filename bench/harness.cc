#include "bench/harness.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string_view>

#include "bench/limits.h"
#include "bench/machine.h"
#include "kernels/dense.h"

namespace din::bench {
namespace {

bool refused = false;

std::string Giga(double rate, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.4g %s", rate * 1e-9, unit);
  return text;
}

void DescribeContext(InstructionSet isa) {
  const Machine machine = DescribeMachine();
  benchmark::AddCustomContext("cpu", machine.cpu);
  benchmark::AddCustomContext("kernel", machine.kernel);
  benchmark::AddCustomContext("instruction set", std::string(din::Name(isa)));
  benchmark::AddCustomContext("oneDNN", std::string(DenseLibrary()));
  benchmark::AddCustomContext("threads", "1");
  for (const Variant& variant : Variants(isa)) {
    benchmark::AddCustomContext("limit: multiply-add, " + std::string(din::Name(variant.precision)),
                                Giga(PeakFlops(isa, variant.precision), "GFLOP/s"));
  }
  const std::optional<double> amx = PeakAmxFlops();
  benchmark::AddCustomContext("limit: AMX bf16", amx ? Giga(*amx, "GFLOP/s") : "none on this machine");
  benchmark::AddCustomContext("limit: sigmoid", Giga(SigmoidRate(isa), "G/s"));
  benchmark::AddCustomContext("limit: read L1, L2, memory", Giga(ReadBandwidth(kInL1), "GB/s, ") +
                                                                Giga(ReadBandwidth(kInL2), "GB/s, ") +
                                                                Giga(ReadBandwidth(kInMemory), "GB/s"));
}

// Google Benchmark knows rates and sums; a share is neither, and must not be shown as one "per second".
class SharesReporter final : public benchmark::ConsoleReporter {
 public:
  SharesReporter() : ConsoleReporter(isatty(STDOUT_FILENO) != 0 ? OO_Color : OO_None) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> shown = runs;
    for (Run& run : shown) {
      for (const char* share : {"peak", "limit"}) {
        const auto counter = run.counters.find(share);
        if (counter != run.counters.end()) counter->second.flags = benchmark::Counter::kDefaults;
      }
    }
    ConsoleReporter::ReportRuns(shown);
  }
};

// The program again for every instruction set, one after the other.
int RunEach(const std::vector<std::string>& arguments) {
  int code = 0;
  for (const InstructionSet isa : SupportedInstructionSets()) {
    std::vector<std::string> words = arguments;
    words.push_back("--isa=" + std::string(din::Name(isa)));
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::printf("\n== %s\n", std::string(din::Name(isa)).c_str());
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      execv("/proc/self/exe", argv.data());
      _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) code = 1;
  }
  return code;
}

// The value of --name VALUE or --name=VALUE, which is taken out of the arguments; nothing when it is not there.
std::optional<std::string> Take(std::vector<std::string>& arguments, const std::string& name) {
  for (size_t a = 1; a < arguments.size(); ++a) {
    std::string value;
    size_t words = 1;
    if (arguments[a].starts_with("--" + name + "=")) {
      value = arguments[a].substr(name.size() + 3);
    } else if (arguments[a] == "--" + name && a + 1 < arguments.size()) {
      value = arguments[a + 1];
      words = 2;
    } else {
      continue;
    }
    arguments.erase(arguments.begin() + static_cast<ptrdiff_t>(a),
                    arguments.begin() + static_cast<ptrdiff_t>(a + words));
    return value;
  }
  return std::nullopt;
}

void PrintHelp(const Program& program) {
  std::printf("%s\n  --isa NAME                 baseline, avx2, avx512, or all, one after the other (the CPU's best)\n",
              program.help.c_str());
  if (!program.flag.empty()) {
    std::printf("  %-26s %s\n", ("--" + program.flag + " " + program.flag_value).c_str(), program.flag_help.c_str());
  }
  std::printf(
      "  --benchmark_filter=REGEX   those whose name matches\n"
      "  --benchmark_min_time=S     seconds for each (0.5)\n"
      "  --benchmark_list_tests     print the names and stop\n"
      "  --benchmark_repetitions=N  with mean, median and deviation\n"
      "  --benchmark_out=FILE       as JSON too\n\n"
      "Exit code: 0; 1 when a result differs from the reference, which is then not timed, or\n"
      "nothing could be run; 2 wrong usage.\n");
}

}  // namespace

std::string Name(const Shape& shape) {
  return std::to_string(shape.candidates) + "x" + std::to_string(shape.behaviours);
}

std::string Name(const Variant& variant) {
  std::string name(din::Name(variant.isa));
  if (variant.precision != Precision::kFp32) name += "-" + std::string(din::Name(variant.precision));
  return name;
}

std::vector<Variant> Variants(InstructionSet isa) {
  std::vector<Variant> variants;
  for (const Precision precision : {Precision::kFp32, Precision::kFp32Split, Precision::kBf16}) {
    if (Supports(isa, precision)) variants.push_back({isa, precision});
  }
  return variants;
}

void Report(benchmark::State& state, const Work& work, const Variant& variant) {
  const auto rate = [&](const char* name, double per_iteration) {
    if (per_iteration == 0) return;
    state.counters[name] = benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
  };
  const double multiply_adds =
      work.flops / PeakFlops(variant.isa) + work.hidden_flops / PeakFlops(variant.isa, variant.precision);
  const double sigmoids = work.sigmoids / SigmoidRate(variant.isa);
  const double memory = work.memory_bytes / ReadBandwidth(kInMemory);
  rate(work.unit, work.items);
  rate("pairs/s", work.pairs);
  rate("FLOP/s", work.flops + work.hidden_flops);
  rate("bytes/s", work.bytes);
  rate("peak", multiply_adds);
  rate("limit", multiply_adds + sigmoids + memory);
}

void Refuse(benchmark::State& state, const std::string& why) {
  refused = true;
  state.SkipWithError(why.c_str());
}

AlignedFloats Aligned(size_t n) {
  const size_t bytes = (n * sizeof(float) + 63) / 64 * 64;
  AlignedFloats floats(static_cast<float*>(std::aligned_alloc(64, bytes)));
  std::fill_n(floats.get(), bytes / sizeof(float), 0.0f);  // pages that were never written are all one page of zeros
  return floats;
}

int RunBenchmarks(int argc, char** argv, const Program& program) {
  std::vector<std::string> arguments(argv, argv + argc);
  for (const std::string& argument : arguments) {
    if (argument != "--help" && argument != "-h") continue;
    PrintHelp(program);
    return 0;
  }
  const std::string name = Take(arguments, "isa").value_or(std::string(din::Name(BestInstructionSet())));
  if (name == "all") {
    for (const std::string& argument : arguments) {
      if (!argument.starts_with("--benchmark_out=")) continue;
      std::fputs("--isa all: with --benchmark_out, give one instruction set\n", stderr);
      return 2;
    }
    return RunEach(arguments);
  }
  const std::optional<InstructionSet> isa = ParseInstructionSet(name);
  if (!isa || *isa > BestInstructionSet()) {
    std::fprintf(stderr, "--isa: \"%s\" is not one that this CPU has:", name.c_str());
    for (const InstructionSet set : SupportedInstructionSets()) {
      std::fprintf(stderr, " %s", std::string(din::Name(set)).c_str());
    }
    std::fputs("\n", stderr);
    return 2;
  }
  const std::string value = program.flag.empty() ? "" : Take(arguments, program.flag).value_or("");
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  int count = static_cast<int>(words.size());
  words.push_back(nullptr);
  benchmark::Initialize(&count, words.data());
  if (benchmark::ReportUnrecognizedArguments(count, words.data())) return 2;
  LimitDenseInstructionSet(*isa);
  if (const absl::Status status = program.register_all(*isa, value); !status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  DescribeContext(*isa);
  SharesReporter reporter;
  const bool other_format = std::ranges::any_of(
      arguments, [](const std::string& argument) { return argument.starts_with("--benchmark_format="); });
  benchmark::RunSpecifiedBenchmarks(other_format ? nullptr : &reporter);
  benchmark::Shutdown();
  return refused ? 1 : 0;
}

}  // namespace din::bench
