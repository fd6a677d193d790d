#include "kernels/instruction_set.h"

#include <algorithm>
#include <iostream>
#include <vector>

#include "gtest/gtest.h"

namespace din {
namespace {

TEST(InstructionSetTest, NamesComeBack) {
  for (const auto isa : {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    EXPECT_EQ(ParseInstructionSet(Name(isa)), isa);
  }
  EXPECT_EQ(ParseInstructionSet("avx1024"), std::nullopt);
  EXPECT_EQ(ParseInstructionSet(""), std::nullopt);
}

TEST(InstructionSetTest, EverythingTheCpuHasIsSupportedSlowestFirst) {
  std::vector<InstructionSet> expected = {InstructionSet::kBaseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) expected.push_back(InstructionSet::kAvx2);
  if (avx2 && avx512) expected.push_back(InstructionSet::kAvx512);
#endif
  const auto supported = SupportedInstructionSets();
  std::cout << "instruction sets of this CPU:";
  for (const auto isa : supported) std::cout << ' ' << Name(isa);
  std::cout << "\n";
  EXPECT_EQ(std::vector(supported.begin(), supported.end()), expected);
  EXPECT_EQ(BestInstructionSet(), expected.back());
}

}  // namespace
}  // namespace din
