// From an InstructionSet to the function that Highway compiled for it. Included before any header of Highway, so that
// every kernel is built for the same targets. Unlike HWY_DYNAMIC_DISPATCH, the choice is an argument, not process-wide
// state: models and tests with different instruction sets live side by side.
#pragma once

// SSSE3: whoever lacks SSE4 gets the scalar build. SVE: no machine to test it on; aarch64 runs NEON.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#include <cstddef>
#include <cstdint>

#include "hwy/targets.h"
#include "kernels/instruction_set.h"

namespace din {

// Highway's targets that `isa` allows and this CPU and binary have.
inline int64_t Targets(InstructionSet isa) {
  // Highway 1.0.3 asks CPUID every time, which traps to the hypervisor in a virtual machine: 15 us.
  static const int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  int64_t targets = supported;
  if (isa < InstructionSet::kAvx512) targets &= ~(HWY_AVX3 | HWY_AVX3_DL);
  if (isa < InstructionSet::kAvx2) targets &= ~HWY_AVX2;
  return targets;
}

// The entry of a HWY_EXPORT table for the best of those targets.
template <typename Function, size_t kEntries>
Function Select(const Function (&table)[kEntries], InstructionSet isa) {
  if constexpr (kEntries == 1) {  // built for a single target
    return table[0];
  } else {
    const int64_t choices = (HWY_CHOSEN_TARGET_SHIFT(Targets(isa)) | HWY_CHOSEN_TARGET_MASK_SCALAR) &
                            HWY_CHOSEN_TARGET_MASK_TARGETS;
    return table[hwy::Num0BitsBelowLS1Bit_Nonzero64(static_cast<uint64_t>(choices))];
  }
}

}  // namespace din
