// What this machine can do at most, measured in the run that uses it: figures of two runs cannot be compared here.
#pragma once

#include "kernels/instruction_set.h"

namespace din::bench {

// Single-precision operations per second of one core on registers alone, a multiply-add counting as two; the best of
// several attempts. Measured once per process and instruction set, in about 10 ms. One thread.
double PeakFlops(InstructionSet isa);

}  // namespace din::bench
