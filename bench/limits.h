// What this machine can do at most, measured in the run that uses it: figures of two runs cannot be compared here.
//
// One core, the best of several attempts, measured when first asked for and then kept. One thread.
#pragma once

#include <cstddef>
#include <optional>

#include "kernels/instruction_set.h"
#include "kernels/precision.h"

namespace din::bench {

// Operations per second on registers alone; a multiply-add counts as two. `precision` is one that `isa` supports:
// fp32-split takes three products in bf16 for one, and bf16 is as fast as the faster of AVX-512 and AMX.
double PeakFlops(InstructionSet isa, Precision precision = Precision::kFp32);

// The same of bf16 products on AMX tiles of random numbers; none where the CPU or the kernel has no AMX.
std::optional<double> PeakAmxFlops();

// Sigmoids per second of our own Sigmoid on numbers in the L1 cache: as fast as they get where nothing else is done.
double SigmoidRate(InstructionSet isa);

// Bytes per second that are read from a working set of this many bytes, again and again in order.
double ReadBandwidth(size_t working_set);
inline constexpr size_t kInL1 = 24u << 10;
inline constexpr size_t kInL2 = 512u << 10;
inline constexpr size_t kInMemory = 256u << 20;

}  // namespace din::bench
