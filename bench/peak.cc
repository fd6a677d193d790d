#include "bench/peak.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "benchmark/benchmark.h"

namespace din::bench {
namespace {

// Twelve independent sums hide the latency of the multiply-adds on every machine with up to three units for them.
template <typename Vector>
[[gnu::always_inline]] inline float MultiplyAddSums(size_t rounds) {
  constexpr size_t kSums = 12;
  Vector sums[kSums];
  for (size_t i = 0; i < kSums; ++i) sums[i] = Vector{} + static_cast<float>(i);
  const Vector factor = Vector{} + 0.999f;
  const Vector addend = Vector{} + 0.001f;
  for (size_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + addend;
  }
  float total = 0;
  for (const Vector& sum : sums) total += sum[0];
  return total;
}

using Float4 [[gnu::vector_size(16)]] = float;
using Float8 [[gnu::vector_size(32)]] = float;
using Float16 [[gnu::vector_size(64)]] = float;

struct Chains {
  float (*run)(size_t rounds);
  size_t lanes;
};

float Baseline(size_t rounds) { return MultiplyAddSums<Float4>(rounds); }
#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] float Avx2(size_t rounds) { return MultiplyAddSums<Float8>(rounds); }
[[gnu::target("avx512f")]] float Avx512(size_t rounds) { return MultiplyAddSums<Float16>(rounds); }
#endif

Chains ChainsFor([[maybe_unused]] InstructionSet isa) {
#if defined(__x86_64__)
  if (isa == InstructionSet::kAvx2) return {Avx2, 8};
  if (isa == InstructionSet::kAvx512) return {Avx512, 16};
#endif
  return {Baseline, 4};
}

double Measure(InstructionSet isa) {
  constexpr size_t kRounds = 50'000;
  const Chains chains = ChainsFor(isa);
  double best = 0;
  for (int attempt = 0; attempt < 50; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(chains.run(kRounds));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * 12 * static_cast<double>(chains.lanes * kRounds) / seconds.count());
  }
  return best;
}

}  // namespace

double PeakFlops(InstructionSet isa) {
  static double peaks[3] = {};
  double& peak = peaks[static_cast<size_t>(isa)];
  if (peak == 0) peak = Measure(isa);
  return peak;
}

}  // namespace din::bench
