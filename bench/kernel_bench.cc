// Every stage of the arithmetic by itself, at the reference shapes. Each result is held against reference:: before it
// is timed.
//
//   kernel_bench --isa all
//   kernel_bench --benchmark_filter='attention/paper/'
//
// gather/...         embedding rows of candidates and behaviours, from tables that no cache holds, other ids every time
// attention/...      the activation unit with its pooling, and what it consists of:
// first_layer/...      the split first layer, (Wk + Wp diag(q)) k, for every pair
// scores/...           all layers: the weights of the behaviours
// pooling/...          the weighted sum of the behaviours
// tower/...          the dense layers, on oneDNN; dense/... one of them
// activation/...     one activation on numbers in the cache
//
// The unit pools whatever it computes, so first_layer and scores are what remains of a call when the time of pooling
// alone, measured beside it in the same iteration, is taken away.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/harness.h"
#include "benchmark/benchmark.h"
#include "kernels/activation.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "kernels/flush_denormals.h"
#include "kernels/gather.h"
#include "kernels/reference.h"

namespace din::bench {
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
    return {.kind = ActivationKind::kDice,
            .scale = Normal(units, 1),
            .shift = Normal(units, 1),
            .alpha = Normal(units, 0.3)};
  }

 private:
  std::mt19937 engine_{1};
};

// ---------------------------------------------------------------------------------------------------------------------

struct Model {
  const char* name;
  std::vector<size_t> fields;  // widths of the embeddings that make a candidate, or a behaviour
  std::vector<size_t> units;   // of the activation unit
  bool dice;                   // in it; else sigmoid
  std::vector<size_t> tower;   // from its input to the logit, Dice between

  size_t width() const { return std::accumulate(fields.begin(), fields.end(), size_t{0}); }
};

const Model kPaper{"paper", {64, 64}, {80, 40}, false, {384, 80, 40, 1}};
const Model kCompact{"compact", {12, 12, 12}, {36}, true, {192, 200, 80, 1}};

ActivationUnitWeights Weights(const Model& model, Random& random) {
  const size_t width = model.width();
  ActivationUnitWeights w{.width = width};
  const size_t first = model.units[0] * width;
  const double deviation = 1 / std::sqrt(static_cast<double>(width));
  w.query_weight = random.Normal(first, deviation);
  w.key_weight = random.Normal(first, deviation);
  w.product_weight = random.Normal(first, deviation);
  size_t in = width;
  for (const size_t units : model.units) {
    w.hidden.push_back({units, random.Normal(units * in, 1 / std::sqrt(static_cast<double>(in))),
                        random.Normal(units, 0.1),
                        model.dice ? random.Dice(units) : Activation{.kind = ActivationKind::kSigmoid}});
    in = units;
  }
  w.out_weight = random.Normal(in, 1 / std::sqrt(static_cast<double>(in)));
  return w;
}

// The unit without what comes after the first layer, but for the dot product that every unit ends with.
ActivationUnitWeights FirstLayerOf(ActivationUnitWeights weights, Random& random) {
  const size_t units = weights.hidden[0].units;
  weights.hidden.resize(1);
  weights.hidden[0].activation = {};
  weights.out_weight = random.Normal(units, 1 / std::sqrt(static_cast<double>(units)));
  return weights;
}

// Of CPU time, as all other figures: what else the machine does would swamp a difference of wall-clock times.
double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

enum class Stage { kAttention, kFirstLayer, kScores, kPooling };
bool IsByDifference(Stage stage) { return stage == Stage::kFirstLayer || stage == Stage::kScores; }

Work WorkOf(Stage stage, const ActivationUnitWeights& weights, const Shape& shape) {
  Work work{.unit = "candidates/s"};
  const auto width = static_cast<double>(weights.width);
  const auto candidates = static_cast<double>(shape.candidates);
  const auto behaviours = static_cast<double>(shape.behaviours);
  work.items = candidates;
  work.pairs = candidates * behaviours;
  work.bytes = sizeof(float) * (candidates + behaviours) * width;
  double in = width;
  if (stage != Stage::kPooling) {
    for (const ActivationUnitWeights::Hidden& hidden : weights.hidden) {
      const auto units = static_cast<double>(hidden.units);
      work.hidden_flops += work.pairs * 2 * in * units;
      if (hidden.activation.kind != ActivationKind::kNone) work.sigmoids += work.pairs * units;
      in = units;
    }
    work.flops += work.pairs * 2 * in;
  }
  if (stage == Stage::kAttention || stage == Stage::kPooling) {
    work.flops += work.pairs * 2 * width;
    work.bytes += sizeof(float) * candidates * width;
  } else {
    work.bytes += sizeof(float) * work.pairs;
  }
  return work;
}

// Of a weight: what four layers make of the roundings of their inputs (tests/kernels/activation_unit_test.cc).
double Tolerance(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return 1e-5;
    case Precision::kFp32Split:
      return 5e-5;
    case Precision::kBf16:
      return 1e-2;
  }
  return 0;
}

// What was pooled, and the weights that it was pooled with.
bool PoolIsRight(const ActivationUnitWeights& weights, const AttentionArgs& args, Precision precision) {
  const auto score = precision == Precision::kBf16 ? reference::ScoreBf16<double> : reference::Score<double>;
  const double tolerance = Tolerance(precision);
  for (const size_t candidate : {size_t{0}, args.candidates - 1}) {
    const auto expected = reference::Pool<double>(weights, args, candidate, score);
    for (size_t j = 0; j < args.behaviours; ++j) {
      if (!(std::abs(args.weights[candidate * args.behaviours + j] - expected.weights[j]) <= tolerance)) return false;
    }
    for (size_t d = 0; d < weights.width; ++d) {
      double size = 0;
      for (size_t j = 0; j < args.behaviours; ++j) size += std::abs(args.keys[j * weights.width + d]);
      const double error = std::abs(args.pooled[candidate * args.pooled_stride + d] - expected.pooled[d]);
      if (!(error <= tolerance * size)) return false;
    }
  }
  return true;
}

void Attention(benchmark::State& state, Stage stage, const Model& model, const Shape& shape, const Variant& variant) {
  Random random;
  ActivationUnitWeights weights = Weights(model, random);
  if (stage == Stage::kFirstLayer) weights = FirstLayerOf(std::move(weights), random);
  const auto unit = ActivationUnit::Create(weights, variant.isa, variant.precision);
  const size_t width = weights.width;
  const std::vector<float> queries = random.Normal(shape.candidates * width, 1);
  const std::vector<float> keys = random.Normal(shape.behaviours * width, 1);
  const AlignedFloats pooled = Aligned(shape.candidates * width);
  const AlignedFloats scratch = Aligned(unit->ScratchFloats(shape.candidates, shape.behaviours));
  std::vector<float> pair_weights(shape.candidates * shape.behaviours);
  AttentionArgs args{.queries = queries.data(),
                     .query_stride = width,
                     .candidates = shape.candidates,
                     .keys = keys.data(),
                     .behaviours = shape.behaviours,
                     .uniform = stage == Stage::kPooling,
                     .pooled = pooled.get(),
                     .pooled_stride = width,
                     .weights = pair_weights.data()};
  AttentionArgs pooling = args;
  pooling.uniform = true;
  const ScopedFlushDenormals flush;
  for (const AttentionArgs& each : {pooling, args}) {
    unit->Pool(each, scratch.get());
    if (!PoolIsRight(weights, each, variant.precision)) return Refuse(state, "differs from the reference");
  }
  args.weights = pooling.weights = nullptr;
  const auto pool = [&](const AttentionArgs& each) {
    unit->Pool(each, scratch.get());
    benchmark::ClobberMemory();
  };
  const auto seconds = [&](const AttentionArgs& each) {
    const double begin = ThreadSeconds();
    pool(each);
    return ThreadSeconds() - begin;
  };
  if (IsByDifference(stage)) {
    for (auto _ : state) state.SetIterationTime(seconds(args) - seconds(pooling));
  } else {
    for (auto _ : state) pool(args);
  }
  Report(state, WorkOf(stage, weights, shape), variant);
}

// ---------------------------------------------------------------------------------------------------------------------

// Layers with Dice between them, and none after the last when it is a logit.
void Tower(benchmark::State& state, const std::vector<size_t>& sizes, size_t rows, const Variant& variant) {
  Random random;
  std::vector<DenseLayerWeights> weights;
  std::vector<std::unique_ptr<const DenseLayer>> layers;
  Work work{.unit = "rows/s", .items = static_cast<double>(rows)};
  size_t widest = sizes[0];
  size_t scratch_bytes = 0;
  for (size_t l = 0; l + 1 < sizes.size(); ++l) {
    const size_t in = sizes[l];
    const size_t out = sizes[l + 1];
    const bool is_logit = out == 1;
    weights.push_back({in, out, random.Normal(in * out, 1 / std::sqrt(static_cast<double>(in))),
                       random.Normal(out, 0.1), is_logit ? Activation{} : random.Dice(out)});
    auto layer = DenseLayer::Create(weights.back(), variant.isa);
    if (!layer.ok()) return Refuse(state, layer.status().ToString());
    scratch_bytes = std::max(scratch_bytes, (*layer)->ScratchBytes());
    layers.push_back(*std::move(layer));
    widest = std::max(widest, out);
    work.flops += 2.0 * static_cast<double>(rows * in * out);
    if (!is_logit) work.sigmoids += static_cast<double>(rows * out);
  }
  work.bytes = static_cast<double>(sizeof(float) * rows * (sizes.front() + sizes.back()));
  const std::vector<float> input = random.Normal(rows * sizes[0], 1);
  const AlignedFloats x = Aligned(DenseLayer::PaddedRows(rows) * sizes[0]);
  const AlignedFloats between[2] = {Aligned(DenseLayer::PaddedRows(rows) * widest),
                                    Aligned(DenseLayer::PaddedRows(rows) * widest)};
  const AlignedFloats scratch = Aligned(scratch_bytes / sizeof(float) + 1);
  std::copy(input.begin(), input.end(), x.get());
  const auto run = [&] {
    const float* in = x.get();
    for (size_t l = 0; l < layers.size(); ++l) {
      float* out = between[l % 2].get();
      layers[l]->Run(in, rows, out, scratch.get());
      in = out;
    }
    return in;
  };
  const ScopedFlushDenormals flush;
  const float* y = run();
  for (const size_t r : {size_t{0}, rows - 1}) {
    std::vector<double> expected(input.begin() + static_cast<ptrdiff_t>(r * sizes[0]),
                                 input.begin() + static_cast<ptrdiff_t>((r + 1) * sizes[0]));
    for (const DenseLayerWeights& w : weights) {
      expected = reference::Dense<double>(w.weight, w.bias, w.activation, expected);
    }
    for (size_t u = 0; u < expected.size(); ++u) {
      if (!(std::abs(y[r * expected.size() + u] - expected[u]) <= 1e-5)) {
        return Refuse(state, "differs from the reference");
      }
    }
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(run());
    benchmark::ClobberMemory();
  }
  Report(state, work, variant);
}

// ---------------------------------------------------------------------------------------------------------------------

constexpr size_t kItems = 1'000'000;
constexpr size_t kOthers = 10'000;  // rows of a field that is not the item: its category, its shop
constexpr size_t kWidest = 64;

// Random bits, but for two that keep them from being an infinity or NaN in any of the types.
const std::vector<uint16_t>& TableMemory() {
  static const std::vector<uint16_t> memory = [] {
    std::vector<uint16_t> halves(2 * (kItems + 2 * kOthers) * kWidest);
    uint32_t state = 1;
    for (uint16_t& h : halves) h = static_cast<uint16_t>((state = state * 1664525 + 1013904223) >> 16 & 0xBBFF);
    return halves;
  }();
  return memory;
}

size_t BytesOf(RowType type) {
  switch (type) {
    case RowType::kF32:
      return 4;
    case RowType::kF16:
    case RowType::kBF16:
      return 2;
    case RowType::kI8:
      return 1;
  }
  return 0;
}

// One table for each field, side by side in memory. What candidates and behaviours of one request need.
void GatherRows(benchmark::State& state, const Model& model, const Shape& shape, RowType type, const Variant& variant) {
  struct Field {
    EmbeddingTable table;
    std::vector<uint32_t> rows;  // of one request after the other
    size_t column;
  };
  const size_t count = shape.candidates + shape.behaviours;
  const size_t requests = 1 + 1'000'000 / count;
  const size_t width = model.width();
  Random random;
  static const std::vector<float> scales(kItems, 0.01f);  // read by kI8 alone
  std::vector<Field> fields;
  const auto* memory = reinterpret_cast<const char*>(TableMemory().data());
  for (size_t f = 0, column = 0; f < model.fields.size(); column += model.fields[f++]) {
    const size_t rows = f == 0 ? kItems : kOthers;
    fields.push_back(
        {{memory, type, rows, model.fields[f], scales.data()}, random.Rows(requests * count, rows), column});
    memory += rows * model.fields[f] * BytesOf(type);
  }
  const AlignedFloats out = Aligned(count * width);
  const auto run = [&](size_t request) {
    for (const Field& field : fields) {
      Gather(field.table, {field.rows.data() + request * count, count}, out.get() + field.column, width, variant.isa);
    }
  };
  run(0);
  for (size_t i = 0; i < count; ++i) {
    for (const Field& field : fields) {
      const auto expected = reference::Row(field.table, field.rows[i]);
      if (!std::equal(expected.begin(), expected.end(), out.get() + i * width + field.column)) {
        return Refuse(state, "differs from the reference");
      }
    }
  }
  size_t next = 0;
  for (auto _ : state) {
    run(next++ % requests);
    benchmark::ClobberMemory();
  }
  const auto rows = static_cast<double>(count);
  const auto read = static_cast<double>(width * BytesOf(type));
  Report(state,
         {.unit = "rows/s",
          .items = rows * static_cast<double>(fields.size()),
          .bytes = rows * (read + static_cast<double>(width * sizeof(float))),
          .memory_bytes = rows * static_cast<double>(model.fields[0] * BytesOf(type))},
         variant);
}

// ---------------------------------------------------------------------------------------------------------------------

void Activations(benchmark::State& state, ActivationKind kind, const Variant& variant) {
  constexpr size_t kRows = 50;
  constexpr size_t kUnits = 80;
  Random random;
  Activation activation = random.Dice(kUnits);
  activation.kind = kind;
  const std::vector<float> input = random.Normal(kRows * kUnits, 2);
  std::vector<float> x = input;
  Activate(activation, variant.isa, x.data(), kRows, kUnits, kUnits);
  for (size_t r = 0; r < kRows; ++r) {
    std::vector<double> expected(input.begin() + r * kUnits, input.begin() + (r + 1) * kUnits);
    reference::Activate<double>(activation, expected);
    for (size_t u = 0; u < kUnits; ++u) {
      if (!(std::abs(x[r * kUnits + u] - expected[u]) <= 4e-6)) {
        return Refuse(state, "differs from the reference");
      }
    }
  }
  const ScopedFlushDenormals flush;
  for (auto _ : state) {
    Activate(activation, variant.isa, x.data(), kRows, kUnits, kUnits);
    benchmark::ClobberMemory();
  }
  constexpr double kValues = kRows * kUnits;
  Report(state,
         {.unit = "values/s",
          .items = kValues,
          .sigmoids = kind == ActivationKind::kSlope ? 0 : kValues,
          .bytes = 2 * sizeof(float) * kValues},
         variant);
}

// ---------------------------------------------------------------------------------------------------------------------

absl::Status RegisterAll(InstructionSet isa, const std::string&) {
  const auto add = [](std::initializer_list<std::string> name, auto&& function) {
    std::string joined;
    for (const std::string& part : name) joined += (joined.empty() ? "" : "/") + part;
    return benchmark::RegisterBenchmark(joined.c_str(), function)->Unit(benchmark::kMicrosecond);
  };
  for (const Variant& variant : Variants(isa)) {
    for (const Model* model : {&kPaper, &kCompact}) {
      for (const Shape& shape : kShapes) {
        for (const auto& [stage, label] : {std::pair{Stage::kFirstLayer, "first_layer"},
                                           {Stage::kScores, "scores"},
                                           {Stage::kAttention, "attention"},
                                           {Stage::kPooling, "pooling"}}) {
          auto* benchmark = add({label, model->name, Name(shape), Name(variant)},
                                [=, stage = stage](auto& state) { Attention(state, stage, *model, shape, variant); });
          if (IsByDifference(stage)) benchmark->UseManualTime();
        }
        if (variant.precision != Precision::kFp32) continue;  // the rest is fp32 always
        for (const auto& [type, label] : {std::pair{RowType::kF32, "f32"},
                                          {RowType::kF16, "f16"},
                                          {RowType::kBF16, "bf16"},
                                          {RowType::kI8, "i8"}}) {
          add({"gather", label, model->name, Name(shape), Name(variant)},
              [=, type = type](benchmark::State& state) { GatherRows(state, *model, shape, type, variant); });
        }
        add({"tower", model->name, Name(shape), Name(variant)},
            [=](benchmark::State& state) { Tower(state, model->tower, shape.candidates, variant); });
      }
      if (variant.precision != Precision::kFp32) continue;
      for (size_t l = 0; l + 1 < model->tower.size(); ++l) {
        const std::vector<size_t> sizes = {model->tower[l], model->tower[l + 1]};
        for (const size_t rows : {size_t{1}, size_t{50}, size_t{200}, size_t{1000}}) {
          add({"dense", std::to_string(sizes[0]) + "x" + std::to_string(sizes[1]), std::to_string(rows), Name(variant)},
              [=](benchmark::State& state) { Tower(state, sizes, rows, variant); });
        }
      }
    }
    if (variant.precision != Precision::kFp32) continue;
    for (const auto& [kind, label] : {std::pair{ActivationKind::kSigmoid, "sigmoid"},
                                      {ActivationKind::kTanh, "tanh"},
                                      {ActivationKind::kSlope, "slope"},
                                      {ActivationKind::kDice, "dice"},
                                      {ActivationKind::kDiceRow, "dice_row"}}) {
      add({"activation", label, Name(variant)},
          [=, kind = kind](benchmark::State& state) { Activations(state, kind, variant); });
    }
  }
  return absl::OkStatus();
}

constexpr char kHelp[] =
    "kernel_bench: the stages of the arithmetic at the reference shapes; each is checked before it is timed\n\n"
    "  kernel_bench --isa all --benchmark_min_time=0.1\n"
    "  kernel_bench --benchmark_filter='(first_layer|scores|pooling|attention)/paper/200x100'\n\n"
    "Stages: gather, first_layer, scores, pooling, attention (the three before), tower, dense, activation. `peak` is\n"
    "the share of the multiply-add rate and `limit` that of multiply-adds, sigmoids and memory together, as this very\n"
    "run measured them: compare figures of one run only.\n";

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) {
  return din::bench::RunBenchmarks(argc, argv, {.help = din::bench::kHelp, .register_all = din::bench::RegisterAll});
}
