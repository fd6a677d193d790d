// In which arithmetic the pairs of candidate and behaviour are scored. The rest of a model (pooling, tower) is fp32
// always.
#pragma once

#include <optional>
#include <string_view>

#include "kernels/instruction_set.h"

namespace din {

enum class Precision {
  kFp32,
  kFp32Split,  // each fp32 as the sum of two bf16 and three of their four products: nearly as exact as fp32. It pays on
               // matrix units alone
  kBf16,       // inputs of the hidden layers rounded to bf16 (8 bits), sums in fp32
};

// "fp32", "fp32-split", "bf16".
std::string_view Name(Precision);
std::optional<Precision> ParsePrecision(std::string_view name);

// Whether this CPU has the instructions and `isa` allows them. fp32 runs everywhere; bf16 needs a matrix unit or
// AVX512_BF16, fp32-split a matrix unit (matrix_unit.h), both beside AVX-512.
bool Supports(InstructionSet isa, Precision precision);

// What then does the pair work: the instruction set, or "avx512_bf16" or "amx".
std::string_view InstructionsOf(InstructionSet isa, Precision precision);

// `asked`, or what is nearest to it without being less exact: bf16 -> fp32-split -> fp32.
Precision NearestSupported(InstructionSet isa, Precision asked);

}  // namespace din
