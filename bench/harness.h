// What kernel_bench and model_bench share: the shapes, the variants, how work becomes figures, and main().
#pragma once

#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "benchmark/benchmark.h"
#include "kernels/instruction_set.h"
#include "kernels/precision.h"

namespace din::bench {

// The reference shapes: candidates of a request, and behaviours of its user.
struct Shape {
  size_t candidates;
  size_t behaviours;
};
inline constexpr Shape kShapes[] = {{1, 50},    {8, 20},    {50, 50},    {200, 50},
                                    {200, 100}, {500, 100}, {1000, 100}, {200, 1000}};
std::string Name(const Shape& shape);  // "200x100"

// One way in which the kernels can compute. The last part of a benchmark's name.
struct Variant {
  InstructionSet isa;
  Precision precision = Precision::kFp32;  // of the activation unit's hidden layers
};
std::string Name(const Variant& variant);  // "avx512", "avx512-bf16"
// Every variant of an instruction set, fp32 first.
std::vector<Variant> Variants(InstructionSet isa);

// What one iteration does. Zero: not counted.
struct Work {
  const char* unit = "items/s";
  double items = 0;
  double pairs = 0;         // of a candidate and a behaviour
  double flops = 0;         // a multiply-add counts as two
  double hidden_flops = 0;  // of the activation unit's hidden layers, in the variant's precision; the first as factored
  double sigmoids = 0;      // tanh, Dice and SiLU are one each
  double bytes = 0;         // read and written, each once
  double memory_bytes = 0;  // of those read, the ones that no cache can hold
};

// Rates of `work`, and two shares of what this machine can do, both measured in this run: `peak`, of its multiply-adds,
// and `limit`: the least time that multiply-adds, sigmoids and memory would take one after the other, by the time that
// it took. 1 would be perfect, where they cannot overlap.
void Report(benchmark::State& state, const Work& work, const Variant& variant);

// Instead of timing: the result differs from the reference, or there is none. The program then exits with 1.
void Refuse(benchmark::State& state, const std::string& why);

// Zeros, at a cache line.
struct Free {
  void operator()(float* p) const { std::free(p); }
};
using AlignedFloats = std::unique_ptr<float, Free>;
AlignedFloats Aligned(size_t n);

struct Program {
  std::string help;  // what it measures, for --help
  // A flag of its own (without the dashes), what it takes, and what it means; may be empty.
  std::string flag, flag_value, flag_help;
  // Registers the benchmarks; `value` is that of the flag, or empty. May add to the context. An error ends the program.
  std::function<absl::Status(InstructionSet isa, const std::string& value)> register_all;
};

// Parses the flags (--isa NAME or all, the program's own, those of Google Benchmark), describes machine and limits in
// the context, holds oneDNN down to the instruction set, and runs. An instruction set is a process: oneDNN decides
// once.
int RunBenchmarks(int argc, char** argv, const Program& program);

}  // namespace din::bench
