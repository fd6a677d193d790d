#include "bench/limits.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "benchmark/benchmark.h"
#include "kernels/activation.h"
#include "kernels/matrix_unit.h"

namespace din::bench {
namespace {

template <typename Function>
double SecondsOf(const Function& function) {
  const auto begin = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// `work` per second of the fastest attempt.
template <typename Function>
double BestRate(int attempts, double work, const Function& function) {
  double best = 0;
  for (int attempt = 0; attempt < attempts; ++attempt) best = std::max(best, work / SecondsOf(function));
  return best;
}

// Twelve independent sums hide the latency of the multiply-adds on every machine with up to three units for them.
constexpr size_t kSums = 12;

template <typename Vector>
[[gnu::always_inline]] inline float MultiplyAddSums(size_t rounds) {
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

// Bitwise or, which no cache is slower than. `words` is a multiple of eight vectors.
template <typename Vector>
[[gnu::always_inline]] inline uint32_t ReadAll(const uint32_t* data, size_t words) {
  constexpr size_t kVectors = 8;
  constexpr size_t kLanes = sizeof(Vector) / sizeof(uint32_t);
  Vector seen[kVectors] = {};
  for (size_t i = 0; i < words; i += kVectors * kLanes) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) seen[v] |= *reinterpret_cast<const Vector*>(data + i + v * kLanes);
  }
  uint32_t all = 0;
  for (const Vector& s : seen) all |= s[0];
  return all;
}

using Float4 [[gnu::vector_size(16)]] = float;
using Float8 [[gnu::vector_size(32)]] = float;
using Float16 [[gnu::vector_size(64)]] = float;
using Word4 [[gnu::vector_size(16), gnu::may_alias, gnu::aligned(4)]] = uint32_t;
using Word8 [[gnu::vector_size(32), gnu::may_alias, gnu::aligned(4)]] = uint32_t;
using Word16 [[gnu::vector_size(64), gnu::may_alias, gnu::aligned(4)]] = uint32_t;

struct Loops {
  float (*multiply_add)(size_t rounds);
  uint32_t (*read)(const uint32_t* data, size_t words);
  size_t lanes;
};

float MultiplyAddBaseline(size_t rounds) { return MultiplyAddSums<Float4>(rounds); }
uint32_t ReadBaseline(const uint32_t* data, size_t words) { return ReadAll<Word4>(data, words); }
#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] float MultiplyAddAvx2(size_t rounds) { return MultiplyAddSums<Float8>(rounds); }
[[gnu::target("avx2,fma")]] uint32_t ReadAvx2(const uint32_t* data, size_t words) {
  return ReadAll<Word8>(data, words);
}
// Each adds the products of 32 pairs of bf16 numbers to 16 sums.
[[gnu::target("avx512f,avx512bf16")]] float MultiplyAddBf16(size_t rounds) {
  __m512 sums[kSums];
  for (size_t i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.37f), _mm512_set1_ps(-0.41f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.53f), _mm512_set1_ps(0.47f));
  for (size_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  float total = 0;
  for (const __m512& sum : sums) total += sum[0];
  return total;
}
[[gnu::target("avx512f")]] float MultiplyAddAvx512(size_t rounds) { return MultiplyAddSums<Float16>(rounds); }
[[gnu::target("avx512f")]] uint32_t ReadAvx512(const uint32_t* data, size_t words) {
  return ReadAll<Word16>(data, words);
}
#endif

Loops LoopsFor([[maybe_unused]] InstructionSet isa) {
#if defined(__x86_64__)
  if (isa == InstructionSet::kAvx2) return {MultiplyAddAvx2, ReadAvx2, 8};
  if (isa == InstructionSet::kAvx512) return {MultiplyAddAvx512, ReadAvx512, 16};
#endif
  return {MultiplyAddBaseline, ReadBaseline, 4};
}

double MeasureFlops(const std::pair<InstructionSet, Precision>& variant) {
  constexpr size_t kRounds = 50'000;
  Loops loops = LoopsFor(variant.first);
#if defined(__x86_64__)
  if (variant.second == Precision::kBf16) loops = {MultiplyAddBf16, nullptr, 32};
#endif
  return BestRate(50, 2.0 * kSums * static_cast<double>(loops.lanes * kRounds),
                  [&] { benchmark::DoNotOptimize(loops.multiply_add(kRounds)); });
}

double MeasureSigmoids(InstructionSet isa) {
  constexpr int kPasses = 50;
  std::vector<float> x(4096, 0.5f);
  return BestRate(50, static_cast<double>(kPasses * x.size()), [&] {
    for (int pass = 0; pass < kPasses; ++pass) Sigmoid(isa, x.data(), x.size());
    benchmark::ClobberMemory();
  });
}

double MeasureRead(size_t working_set) {
  const Loops loops = LoopsFor(BestInstructionSet());
  struct alignas(64) Line {
    uint32_t words[16] = {1};  // written: untouched pages are all one page
  };
  const std::vector<Line> lines(working_set / sizeof(Line));
  const uint32_t* data = lines.front().words;
  const size_t passes = std::max<size_t>(1, (8u << 20) / working_set);
  return BestRate(20, static_cast<double>(passes * working_set), [&] {
    for (size_t pass = 0; pass < passes; ++pass) {
      benchmark::DoNotOptimize(loops.read(data, working_set / sizeof(uint32_t)));
    }
  });
}

#if defined(__x86_64__)
// Sums in tiles 0 to 3, operands in 4 to 7.
double MeasureAmx(const MatrixUnit& unit) {
  constexpr size_t kRounds = 20'000;
  constexpr double kFlopsOfRound = 4 * 2.0 * 16 * 16 * 32;
  alignas(64) uint16_t operands[4][16 * 32];
  std::mt19937 random(1);
  for (auto& tile : operands) {
    for (uint16_t& bf16 : tile) bf16 = static_cast<uint16_t>((random() & 0x8000) | 0x3F00 | (random() & 0x7F));
  }
  unit.begin();
  asm volatile(
      "tileloadd (%0,%4,1), %%tmm4\n\ttileloadd (%1,%4,1), %%tmm5\n\t"
      "tileloadd (%2,%4,1), %%tmm6\n\ttileloadd (%3,%4,1), %%tmm7\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3"
      :
      : "r"(operands[0]), "r"(operands[1]), "r"(operands[2]), "r"(operands[3]), "r"(size_t{64})
      : "memory");
  const double rate = BestRate(20, kFlopsOfRound * kRounds, [] {
    for (size_t round = 0; round < kRounds; ++round) {
      asm volatile(
          "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
          "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3"
          :
          :
          : "memory");
    }
  });
  unit.end();
  return rate;
}
#endif

template <typename Key, typename Function>
double Once(std::map<Key, double>& known, const Key& key, const Function& measure) {
  const auto [it, is_new] = known.try_emplace(key, 0.0);
  if (is_new) it->second = measure(key);
  return it->second;
}

}  // namespace

double PeakFlops(InstructionSet isa, Precision precision) {
  static std::map<std::pair<InstructionSet, Precision>, double> known;
  if (precision == Precision::kFp32Split) return PeakFlops(isa, Precision::kBf16) / 3;
  const double peak = Once(known, std::pair(isa, precision), MeasureFlops);
  return precision == Precision::kBf16 ? std::max(peak, PeakAmxFlops().value_or(0)) : peak;
}

std::optional<double> PeakAmxFlops() {
#if defined(__x86_64__)
  static const MatrixUnit* const unit = MatrixUnitOfCpu();
  static const std::optional<double> peak = unit == nullptr ? std::nullopt : std::optional(MeasureAmx(*unit));
  return peak;
#else
  return std::nullopt;
#endif
}

double SigmoidRate(InstructionSet isa) {
  static std::map<InstructionSet, double> known;
  return Once(known, isa, MeasureSigmoids);
}

double ReadBandwidth(size_t working_set) {
  static std::map<size_t, double> known;
  return Once(known, working_set, MeasureRead);
}

}  // namespace din::bench
