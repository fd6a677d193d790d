// What a training step costs outside the network: finding the rows of a mini-batch, reading, regularising and updating
// them. It must depend on the rows that the batch touches, never on the vocabulary: compare
//   step/10000/10000          a table of 10^4 rows
//   step/10000000/10000       a table of 10^7 rows, of which the batches touch the same 10^4: what the vocabulary costs
//   step/10000000/10000000    a table of 10^7 rows, touched anywhere: and what it costs that rows are not in the cache
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "trainer/batch.h"
#include "trainer/dataset.h"
#include "trainer/embedding.h"
#include "trainer/samples.h"

namespace din {
namespace {

constexpr size_t kDim = 16;
constexpr int kHistory = 50;
constexpr size_t kBatch = 512;
constexpr double kRate = 1e-3;
constexpr double kLambda = 0.05;

// One table and mini-batches that touch rows [0, touched) of it.
struct Training {
  Training(size_t rows, size_t touched)
      : table(RandomTable(rows, kDim, kDim, 0.05, 1)), adam(rows, kDim, {}), counts(rows, 7), kept{{.rows = rows}} {
    std::mt19937_64 random(1);
    std::uniform_int_distribution<int32_t> item(0, static_cast<int32_t>(touched) - 1);
    data.items.resize(rows);
    data.user_begin = {0};
    constexpr size_t kUsers = 64 * kBatch;
    for (size_t user = 0; user < kUsers; ++user) {
      data.user_ids.emplace_back();
      for (int k = 0; k < kHistory; ++k) data.events.push_back({.item = item(random), .order = k});
      data.user_begin.push_back(data.events.size());
      samples.push_back({.user = static_cast<int32_t>(user), .position = kHistory, .item = item(random)});
    }
    builder = std::make_unique<BatchBuilder>(data, kept, kHistory);
  }

  void Step() {
    builder->Build(std::span(samples).subspan(at, kBatch), batch);
    at = (at + kBatch) % samples.size();
    const std::vector<int64_t>& rows = batch.fields[0].distinct;
    values.resize(rows.size() * kDim);
    Gather(table, rows, values);  // stands for the gradient, too: as good as any
    AddMiniBatchAware(table, rows, counts, kLambda, values);
    adam.Step(table.weights, rows, values, kRate);
  }

  Dataset data;
  std::vector<Sample> samples;
  TrainableTable table;
  RowOptimiser adam;
  std::vector<uint32_t> counts;
  std::vector<KeptValues> kept;
  std::unique_ptr<BatchBuilder> builder;
  Batch batch;
  std::vector<float> values;
  size_t at = 0;
};

// The first step against plain loops in double, so that nothing wrong is timed.
void Check(Training& training) {
  const std::vector<float> before = training.table.weights;
  training.Step();
  std::vector<bool> is_touched(training.table.rows);
  for (const int64_t row : training.batch.fields[0].distinct) is_touched[row] = true;
  for (size_t i = 0; i < before.size(); ++i) {
    const double w = before[i];
    const double g = w + kLambda / 7 * w;
    // The first step of Adam: m / (1 - beta1) = g, v / (1 - beta2) = g^2.
    const double expected = is_touched[i / kDim] ? w - kRate * g / (std::abs(g) + 1e-8) : w;
    if (!(std::abs(training.table.weights[i] - expected) < 1e-6)) {
      std::fprintf(stderr, "step_bench: row %zu is %g after a step, expected %g\n", i / kDim,
                   static_cast<double>(training.table.weights[i]), expected);
      std::exit(1);
    }
  }
}

void Step(benchmark::State& state) {
  Training training(static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)));
  Check(training);
  for (int i = 0; i < 64; ++i) training.Step();  // every batch once: no first touch is timed
  size_t rows = 0;
  for (auto _ : state) {
    training.Step();
    rows += training.batch.fields[0].distinct.size();
  }
  state.counters["rows_per_step"] = static_cast<double>(rows) / static_cast<double>(state.iterations());
  state.counters["time_per_row"] =
      benchmark::Counter(static_cast<double>(rows), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(Step)
    ->Name("step")
    ->Args({10'000, 10'000})
    ->Args({10'000'000, 10'000})
    ->Args({10'000'000, 10'000'000})
    ->Iterations(512)  // a fixed number: to find one, the tables would be made again and again
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace din

BENCHMARK_MAIN();
