// What a delta costs those who gather: rows from a table of 1 GiB of which a share, drawn uniformly, lies elsewhere.
// Every row is held against the definition before it is timed.
//
//   overlay_bench --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/gather.h"
#include "kernels/instruction_set.h"
#include "model_loader/memory.h"

namespace din {
namespace {

constexpr size_t kRows = size_t{1} << 22, kDim = 64;
constexpr size_t kPerCall = 100;  // as a request would ask for them: other ids every time

// The loader's memory: in huge pages, the overlay's in one piece.
MemoryRegion Memory(size_t bytes) {
  absl::StatusOr<MemoryRegion> memory = MemoryRegion::Create(bytes);
  if (!memory.ok()) std::abort();
  return *std::move(memory);
}

const float* Table() {
  static const MemoryRegion* const table = [] {
    auto* const memory = new MemoryRegion(Memory(kRows * kDim * sizeof(float)));
    auto* const values = reinterpret_cast<float*>(memory->data());
    for (size_t i = 0; i < kRows * kDim; ++i) values[i] = static_cast<float>(i % 8191);
    return memory;
  }();
  return reinterpret_cast<const float*>(table->data());
}

void GatherOverlay(benchmark::State& state) {
  const double share = static_cast<double>(state.range(0)) / 100;
  std::mt19937 random(1);
  std::uniform_int_distribution<uint32_t> any_row(0, kRows - 1);
  constexpr size_t kWords = kRows / 64;
  const MemoryRegion memory =
      Memory(kWords * (sizeof(uint64_t) + sizeof(uint32_t)) + static_cast<size_t>(share * kRows) * kDim * sizeof(float));
  auto* const replaced = reinterpret_cast<uint64_t*>(memory.data());
  auto* const ranks = reinterpret_cast<uint32_t*>(replaced + kWords);
  auto* const elsewhere = reinterpret_cast<float*>(ranks + kWords);
  for (size_t n = 0; n < static_cast<size_t>(share * kRows); ++n) {
    const uint32_t row = any_row(random);
    replaced[row / 64] |= uint64_t{1} << row % 64;
  }
  uint32_t count = 0;
  for (size_t word = 0; word < kWords; ++word) {
    ranks[word] = count;
    count += static_cast<uint32_t>(std::popcount(replaced[word]));
  }
  for (size_t i = 0; i < count * kDim; ++i) elsewhere[i] = -static_cast<float>(i / kDim);
  const RowOverlay overlay{replaced, ranks, elsewhere};
  EmbeddingTable table{Table(), RowType::kF32, kRows, kDim};
  if (share > 0) table.overlay = &overlay;

  std::vector<uint32_t> rows(10'000 * kPerCall);
  for (uint32_t& row : rows) row = any_row(random);
  std::vector<float> out(kPerCall * kDim);
  size_t place = 0;  // among those elsewhere, counted once more
  std::vector<uint32_t> places(kRows);
  for (size_t row = 0; row < kRows; ++row) places[row] = (replaced[row / 64] >> row % 64 & 1) != 0 ? ++place : 0;
  for (size_t at = 0; at < 1000 * kPerCall; at += kPerCall) {
    Gather(table, {rows.data() + at, kPerCall}, out.data(), kDim, BestInstructionSet());
    for (size_t i = 0; i < kPerCall; ++i) {
      const uint32_t row = rows[at + i], in = share > 0 ? places[row] : 0;
      const float* const expected = in == 0 ? Table() + row * kDim : elsewhere + (in - 1) * kDim;
      if (!std::equal(expected, expected + kDim, out.data() + i * kDim)) return state.SkipWithError("a wrong row");
    }
  }
  size_t next = 0;
  for (auto _ : state) {
    Gather(table, {rows.data() + next, kPerCall}, out.data(), kDim, BestInstructionSet());
    next = (next + kPerCall) % rows.size();
    benchmark::ClobberMemory();
  }
  state.counters["rows/s"] =
      benchmark::Counter(kPerCall, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}
BENCHMARK(GatherOverlay)->ArgName("percent")->Arg(0)->Arg(1)->Arg(10)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace din

BENCHMARK_MAIN();
