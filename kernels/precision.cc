#include "kernels/precision.h"

#include "kernels/matrix_unit.h"

namespace din {
namespace {

bool CpuHasBf16() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

}  // namespace

std::string_view Name(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kFp32Split:
      return "fp32-split";
    case Precision::kBf16:
      return "bf16";
  }
  return "unknown";
}

std::optional<Precision> ParsePrecision(std::string_view name) {
  for (const auto precision : {Precision::kFp32, Precision::kFp32Split, Precision::kBf16}) {
    if (name == Name(precision)) return precision;
  }
  return std::nullopt;
}

bool Supports(InstructionSet isa, Precision precision) {
  if (precision == Precision::kFp32) return true;
  if (isa != InstructionSet::kAvx512 || BestInstructionSet() != InstructionSet::kAvx512) return false;
  return CurrentMatrixUnit() != nullptr || (precision == Precision::kBf16 && CpuHasBf16());
}

std::string_view InstructionsOf(InstructionSet isa, Precision precision) {
  if (precision == Precision::kFp32 || !Supports(isa, precision)) return Name(isa);
  return CurrentMatrixUnit() != nullptr ? "amx" : "avx512_bf16";
}

Precision NearestSupported(InstructionSet isa, Precision asked) {
  if (asked == Precision::kBf16 && Supports(isa, asked)) return asked;
  if (asked != Precision::kFp32 && Supports(isa, Precision::kFp32Split)) return Precision::kFp32Split;
  return Precision::kFp32;
}

}  // namespace din
