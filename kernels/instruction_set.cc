#include "kernels/instruction_set.h"

#include <vector>

#include "kernels/dispatch-inl.h"

namespace din {

std::string_view Name(InstructionSet isa) {
  switch (isa) {
    case InstructionSet::kBaseline:
      return "baseline";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::optional<InstructionSet> ParseInstructionSet(std::string_view name) {
  for (const auto isa : {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    if (name == Name(isa)) return isa;
  }
  return std::nullopt;
}

std::span<const InstructionSet> SupportedInstructionSets() {
  static const std::vector<InstructionSet>* const supported = [] {
    auto* sets = new std::vector<InstructionSet>{InstructionSet::kBaseline};
    const int64_t targets = Targets(InstructionSet::kAvx512);
    if (targets & HWY_AVX2) sets->push_back(InstructionSet::kAvx2);
    if (targets & HWY_AVX3) sets->push_back(InstructionSet::kAvx512);
    return sets;
  }();
  return *supported;
}

InstructionSet BestInstructionSet() { return SupportedInstructionSets().back(); }

}  // namespace din
