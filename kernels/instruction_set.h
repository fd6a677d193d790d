// Which vector instructions the kernels use. One binary carries all of them; the choice is made at run time.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace din {

enum class InstructionSet {
  kBaseline,  // what every x86-64 (or NEON on aarch64) has
  kAvx2,
  kAvx512,
};

// "baseline", "avx2", "avx512".
std::string_view Name(InstructionSet);
std::optional<InstructionSet> ParseInstructionSet(std::string_view name);

// Those that this CPU can run and this binary holds, slowest first; never empty.
std::span<const InstructionSet> SupportedInstructionSets();

// The fastest supported one.
InstructionSet BestInstructionSet();

// Also holds oneDNN (the tower) down to `limit`. Process-wide, so call it once, before the first DenseLayer; returns
// false when oneDNN has already fixed its choice.
bool LimitDenseInstructionSet(InstructionSet limit);

}  // namespace din
