// Every arithmetic in which this CPU can score pairs: instruction set, precision and matrix unit.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/instruction_set.h"
#include "kernels/matrix_unit.h"
#include "kernels/precision.h"

namespace din {

struct Arithmetic {
  InstructionSet isa = BestInstructionSet();
  Precision precision = Precision::kFp32;
  const MatrixUnit* matrix = nullptr;

  // "avx512", "avx512_bf16", "avx512_fp32_split_amx", …
  std::string Name() const {
    std::string name(din::Name(isa));
    if (precision != Precision::kFp32) name += "_" + std::string(din::Name(precision));
    if (matrix != nullptr) name += matrix == &EmulatedMatrixUnit() ? "_emulated" : "_amx";
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
  }
};

// A matrix unit is emulated as well: packing and flow are the same, and most CPUs have none.
inline std::vector<Arithmetic> SupportedArithmetics(bool exact_only = false) {
  std::vector<const MatrixUnit*> units = {nullptr, &EmulatedMatrixUnit()};
  if (MatrixUnitOfCpu() != nullptr) units.push_back(MatrixUnitOfCpu());
  std::vector<Arithmetic> all;
  for (const MatrixUnit* unit : units) {
    const ScopedMatrixUnit scoped(unit);
    for (const InstructionSet isa : SupportedInstructionSets()) {
      for (const auto precision : {Precision::kFp32, Precision::kFp32Split, Precision::kBf16}) {
        const bool known = unit != nullptr && precision == Precision::kFp32;
        if (known || !Supports(isa, precision) || (exact_only && precision == Precision::kBf16)) continue;
        all.push_back({isa, precision, unit});
      }
    }
  }
  return all;
}
inline std::vector<Arithmetic> ExactArithmetics() { return SupportedArithmetics(true); }

}  // namespace din
