// The kernels at the reference shapes (docs/performance.md), on every instruction set of this CPU. Each is held against
// reference:: before it is timed. `peak` is the share of the multiply-add rate that this run measured on registers
// alone; compare figures of one run only.
//
//   kernel_bench --benchmark_filter='attention/paper/.*/avx512'
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/peak.h"
#include "benchmark/benchmark.h"
#include "kernels/activation.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "kernels/flush_denormals.h"
#include "kernels/gather.h"
#include "kernels/instruction_set.h"
#include "kernels/reference.h"

namespace din {
namespace {

class Random {
 public:
  std::vector<float> Normal(size_t n, double deviation) {
    std::normal_distribution<float> normal(0, static_cast<float>(deviation));
    std::vector<float> out(n);
    for (float& v : out) v = normal(engine_);
    return out;
  }
  std::vector<uint32_t> Rows(size_t n, size_t rows) {
    std::uniform_int_distribution<uint32_t> row(0, static_cast<uint32_t>(rows - 1));
    std::vector<uint32_t> out(n);
    for (uint32_t& r : out) r = row(engine_);
    return out;
  }
  Activation Dice(size_t units) {
    return {.kind = ActivationKind::kDice, .scale = Normal(units, 1), .shift = Normal(units, 1),
            .alpha = Normal(units, 0.3)};
  }

 private:
  std::mt19937 engine_{1};
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using AlignedFloats = std::unique_ptr<float, Free>;

AlignedFloats Aligned(size_t n) {
  const size_t bytes = (n * sizeof(float) + 63) / 64 * 64;
  AlignedFloats floats(static_cast<float*>(std::aligned_alloc(64, bytes)));
  std::fill_n(floats.get(), bytes / sizeof(float), 0.0f);  // pages that were never written are all one page of zeros
  return floats;
}

void Report(benchmark::State& state, const char* what, double items, double flops, InstructionSet isa) {
  using benchmark::Counter;
  state.counters[what] = Counter(items, Counter::kIsIterationInvariantRate);
  if (flops == 0) return;
  state.counters["FLOP/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["peak"] = Counter(flops / bench::PeakFlops(isa), Counter::kIsIterationInvariantRate);
}

// ---------------------------------------------------------------------------------------------------------------------

struct Model {
  const char* name;
  size_t width;
  std::vector<size_t> units;
  bool dice;
};

const Model kPaper{"paper", 128, {80, 40}, false};
const Model kCompact{"compact", 36, {36}, true};

ActivationUnitWeights Weights(const Model& model, Random& random) {
  ActivationUnitWeights w{.width = model.width};
  const size_t first = model.units[0] * model.width;
  const double deviation = 1 / std::sqrt(static_cast<double>(model.width));
  w.query_weight = random.Normal(first, deviation);
  w.key_weight = random.Normal(first, deviation);
  w.product_weight = random.Normal(first, deviation);
  size_t in = model.width;
  for (const size_t units : model.units) {
    w.hidden.push_back({units, random.Normal(units * in, 1 / std::sqrt(static_cast<double>(in))),
                        random.Normal(units, 0.1),
                        model.dice ? random.Dice(units) : Activation{.kind = ActivationKind::kSigmoid}});
    in = units;
  }
  w.out_weight = random.Normal(in, 1 / std::sqrt(static_cast<double>(in)));
  return w;
}

// Per pair, with the first layer factored.
double PairFlops(const Model& model) {
  double flops = 0;
  size_t in = model.width;
  for (const size_t units : model.units) {
    flops += 2.0 * static_cast<double>(in * units);
    in = units;
  }
  return flops + 2.0 * static_cast<double>(in + model.width);
}

bool PoolIsRight(const ActivationUnitWeights& weights, const AttentionArgs& args) {
  for (const size_t candidate : {size_t{0}, args.candidates - 1}) {
    const auto expected = reference::Pool<double>(weights, args, candidate);
    for (size_t d = 0; d < weights.width; ++d) {
      double size = 0;
      for (size_t j = 0; j < args.behaviours; ++j) size += std::abs(args.keys[j * weights.width + d]);
      const double error = std::abs(args.pooled[candidate * args.pooled_stride + d] - expected.pooled[d]);
      if (!(error <= 1e-5 * size)) return false;
    }
  }
  return true;
}

void Attention(benchmark::State& state, const Model& model, size_t candidates, size_t behaviours, InstructionSet isa) {
  Random random;
  const ActivationUnitWeights weights = Weights(model, random);
  const auto unit = ActivationUnit::Create(weights, isa);
  const std::vector<float> queries = random.Normal(candidates * model.width, 1);
  const std::vector<float> keys = random.Normal(behaviours * model.width, 1);
  const AlignedFloats pooled = Aligned(candidates * model.width);
  const AlignedFloats scratch = Aligned(unit->ScratchFloats(candidates, behaviours));
  const AttentionArgs args{.queries = queries.data(), .query_stride = model.width, .candidates = candidates,
                           .keys = keys.data(), .behaviours = behaviours, .pooled = pooled.get(),
                           .pooled_stride = model.width};
  const ScopedFlushDenormals flush;
  unit->Pool(args, scratch.get());
  if (!PoolIsRight(weights, args)) return state.SkipWithError("differs from the reference");
  for (auto _ : state) {
    unit->Pool(args, scratch.get());
    benchmark::ClobberMemory();
  }
  const auto pairs = static_cast<double>(candidates * behaviours);
  Report(state, "pairs/s", pairs, pairs * PairFlops(model), isa);
}

// ---------------------------------------------------------------------------------------------------------------------

void Dense(benchmark::State& state, size_t in, size_t out, size_t rows) {
  Random random;
  const DenseLayerWeights weights{in, out, random.Normal(in * out, 1 / std::sqrt(static_cast<double>(in))),
                                  random.Normal(out, 0.1), random.Dice(out)};
  const InstructionSet isa = BestInstructionSet();
  const auto layer = DenseLayer::Create(weights, isa);
  if (!layer.ok()) return state.SkipWithError(layer.status().ToString().c_str());
  const std::vector<float> input = random.Normal(rows * in, 1);
  const AlignedFloats x = Aligned(DenseLayer::PaddedRows(rows) * in);
  const AlignedFloats y = Aligned(DenseLayer::PaddedRows(rows) * out);
  const AlignedFloats scratch = Aligned((*layer)->ScratchBytes() / sizeof(float) + 1);
  std::copy(input.begin(), input.end(), x.get());
  const ScopedFlushDenormals flush;
  (*layer)->Run(x.get(), rows, y.get(), scratch.get());
  for (const size_t r : {size_t{0}, rows - 1}) {
    const auto expected = reference::Dense<double>(weights.weight, weights.bias, weights.activation,
                                                   {x.get() + r * in, x.get() + (r + 1) * in});
    for (size_t u = 0; u < out; ++u) {
      if (!(std::abs(y.get()[r * out + u] - expected[u]) <= 1e-5)) {
        return state.SkipWithError("differs from the reference");
      }
    }
  }
  for (auto _ : state) {
    (*layer)->Run(x.get(), rows, y.get(), scratch.get());
    benchmark::ClobberMemory();
  }
  Report(state, "rows/s", static_cast<double>(rows), 2.0 * static_cast<double>(rows * in * out), isa);
}

// ---------------------------------------------------------------------------------------------------------------------

constexpr size_t kTableRows = 1'000'000;
constexpr size_t kTableDim = 64;

// Random bits, but for two that keep them from being an infinity or NaN in any of the types.
const std::vector<uint16_t>& TableMemory() {
  static const std::vector<uint16_t> memory = [] {
    std::vector<uint16_t> halves(2 * kTableRows * kTableDim);
    uint32_t state = 1;
    for (uint16_t& h : halves) h = static_cast<uint16_t>((state = state * 1664525 + 1013904223) >> 16 & 0xBBFF);
    return halves;
  }();
  return memory;
}

// 100 rows a call as a request would ask for them: other ids every time.
void GatherRows(benchmark::State& state, RowType type, InstructionSet isa) {
  constexpr size_t kRows = 100;
  static const std::vector<float> scales(kTableRows, 0.01f);
  const EmbeddingTable table{TableMemory().data(), type, kTableRows, kTableDim, scales.data()};
  const std::vector<uint32_t> rows = Random().Rows(10'000 * kRows, kTableRows);
  const AlignedFloats out = Aligned(kRows * kTableDim);
  Gather(table, {rows.data(), kRows}, out.get(), kTableDim, isa);
  for (size_t i = 0; i < kRows; ++i) {
    const auto expected = reference::Row(table, rows[i]);
    if (!std::equal(expected.begin(), expected.end(), out.get() + i * kTableDim)) {
      return state.SkipWithError("differs from the reference");
    }
  }
  size_t next = 0;
  for (auto _ : state) {
    Gather(table, {rows.data() + next, kRows}, out.get(), kTableDim, isa);
    next = (next + kRows) % rows.size();
    benchmark::ClobberMemory();
  }
  Report(state, "rows/s", kRows, 0, isa);
}

// ---------------------------------------------------------------------------------------------------------------------

void Activations(benchmark::State& state, ActivationKind kind, InstructionSet isa) {
  constexpr size_t kRows = 50;
  constexpr size_t kUnits = 80;
  Random random;
  Activation activation = random.Dice(kUnits);
  activation.kind = kind;
  const std::vector<float> input = random.Normal(kRows * kUnits, 2);
  std::vector<float> x = input;
  Activate(activation, isa, x.data(), kRows, kUnits, kUnits);
  for (size_t r = 0; r < kRows; ++r) {
    std::vector<double> expected(input.begin() + r * kUnits, input.begin() + (r + 1) * kUnits);
    reference::Activate<double>(activation, expected);
    for (size_t u = 0; u < kUnits; ++u) {
      if (!(std::abs(x[r * kUnits + u] - expected[u]) <= 4e-6)) {
        return state.SkipWithError("differs from the reference");
      }
    }
  }
  const ScopedFlushDenormals flush;
  for (auto _ : state) {
    Activate(activation, isa, x.data(), kRows, kUnits, kUnits);
    benchmark::ClobberMemory();
  }
  Report(state, "values/s", kRows * kUnits, 0, isa);
}

// ---------------------------------------------------------------------------------------------------------------------

void Register() {
  const auto name = [](std::initializer_list<std::string> parts) {
    std::string joined;
    for (const std::string& part : parts) joined += (joined.empty() ? "" : "/") + part;
    return joined;
  };
  const auto add = [](const std::string& title, auto&&... function) {
    benchmark::RegisterBenchmark(title.c_str(), function...)->Unit(benchmark::kMicrosecond);
  };
  for (const InstructionSet isa : SupportedInstructionSets()) {
    const std::string set(Name(isa));
    for (const Model* model : {&kPaper, &kCompact}) {
      for (const auto& [b, h] : std::initializer_list<std::pair<size_t, size_t>>{
               {1, 50}, {8, 20}, {50, 50}, {200, 50}, {200, 100}, {500, 100}, {1000, 100}, {200, 1000}}) {
        add(name({"attention", model->name, std::to_string(b) + "x" + std::to_string(h), set}),
            [model, b = b, h = h, isa](benchmark::State& state) { Attention(state, *model, b, h, isa); });
      }
    }
    for (const auto& [type, label] :
         {std::pair{RowType::kF32, "f32"}, {RowType::kF16, "f16"}, {RowType::kBF16, "bf16"}, {RowType::kI8, "i8"}}) {
      add(name({"gather", label, set}), [type = type, isa](benchmark::State& state) { GatherRows(state, type, isa); });
    }
    for (const auto& [kind, label] :
         {std::pair{ActivationKind::kSigmoid, "sigmoid"}, {ActivationKind::kTanh, "tanh"},
          {ActivationKind::kSlope, "slope"}, {ActivationKind::kDice, "dice"}, {ActivationKind::kDiceRow, "dice_row"}}) {
      add(name({"activation", label, set}),
          [kind = kind, isa](benchmark::State& state) { Activations(state, kind, isa); });
    }
  }
  // The last one is oneDNN's, which takes the best instructions there are, once for the process.
  for (const auto& [in, out] : {std::pair<size_t, size_t>{384, 80}, {192, 200}, {200, 80}, {80, 40}, {40, 1}, {1024, 512}}) {
    for (const size_t rows : {size_t{1}, size_t{50}, size_t{200}, size_t{1000}}) {
      add(name({"dense", std::to_string(in) + "x" + std::to_string(out), std::to_string(rows)}),
          [in = in, out = out, rows](benchmark::State& state) { Dense(state, in, out, rows); });
    }
  }
}

}  // namespace
}  // namespace din

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const din::InstructionSet isa : din::SupportedInstructionSets()) {
    std::printf("peak multiply-add rate, %s: %.1f GFLOP/s\n", std::string(din::Name(isa)).c_str(),
                din::bench::PeakFlops(isa) * 1e-9);
  }
  din::Register();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
