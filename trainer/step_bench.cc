// What a training step costs outside the network: finding the rows of a mini-batch, reading, regularising and updating
// them. It must depend on the rows that the batch touches, never on the vocabulary. Four kinds of work take turns in
// one run, so that what else the machine does falls on all of them, and are compared turn by turn:
//   small    a table of 10^4 rows
//   large    a table of 10^7 rows, of which the batches touch 10^4: what the vocabulary costs
//   cold     a table of 10^7 rows, touched anywhere: what it costs, besides, that rows are in no cache
//   memory   the same rows as cold, read and written without a calculation: what of that is the memory's alone
// step_bench [TURNS]: 100 unless given; about 5 GB of memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "trainer/batch.h"
#include "trainer/dataset.h"
#include "trainer/embedding.h"
#include "trainer/samples.h"

namespace din {
namespace {

constexpr size_t kDim = 16;
constexpr int kHistory = 50;
constexpr size_t kBatch = 512;
constexpr size_t kBatches = 64;
constexpr double kRate = 1e-3;
constexpr double kLambda = 0.05;

// One table and mini-batches that touch rows [0, touched) of it.
struct Training {
  Training(size_t rows, size_t touched)
      : table(RandomTable(rows, kDim, kDim, 0.05, 1)), adam(rows, kDim, {}), counts(rows, 7), kept{{.rows = rows}} {
    std::mt19937_64 random(1);
    std::uniform_int_distribution<int32_t> item(0, static_cast<int32_t>(touched) - 1);
    data.user_begin = {0};
    for (size_t user = 0; user < kBatches * kBatch; ++user) {
      data.user_ids.emplace_back();
      for (int k = 0; k < kHistory; ++k) data.events.push_back({.item = item(random), .order = k});
      data.user_begin.push_back(data.events.size());
      samples.push_back({.user = static_cast<int32_t>(user), .position = kHistory, .item = item(random)});
    }
    builder = std::make_unique<BatchBuilder>(data, kept, kHistory);
  }

  void Build(size_t number) { builder->Build(std::span(samples).subspan(number % kBatches * kBatch, kBatch), batch); }
  std::span<const int64_t> rows() const { return batch.fields[0].distinct; }

  void Step(size_t number) {
    Build(number);
    values.resize(rows().size() * kDim);
    Gather(table, rows(), values);  // stands for the gradient, too: as good as any
    AddMiniBatchAware(table, rows(), counts, kLambda, values);
    adam.Step(table.weights, rows(), values, kRate);
  }

  // Everything that a step reads and writes of these rows, in as few passes.
  void Touch() {
    for (const int64_t row : rows()) {
      for (std::vector<float>* array : {&table.weights, &adam.state().first_moment, &adam.state().second_moment}) {
        for (float& v : std::span(*array).subspan(row * kDim, kDim)) v += nothing;
      }
      adam.state().steps[row] += counts[row] == 0;
      places[row] += counts[row] == 0;
    }
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
  std::vector<uint64_t> places = std::vector<uint64_t>(table.rows);  // as the builder has them
  volatile float zero = 0;
  float nothing = zero;  // the compiler does not know
};

// The first step against plain loops in double, so that nothing wrong is timed.
void Check(Training& training) {
  const std::vector<float> before = training.table.weights;
  training.Step(0);
  std::vector<bool> is_touched(training.table.rows);
  for (const int64_t row : training.rows()) is_touched[row] = true;
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

template <typename Work>
double CpuMicroseconds(const Work& work) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e6 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  work();
  return now() - start;
}

// The p-quantile; reorders.
double Quantile(std::vector<double>& values, double p) {
  const auto at = values.begin() + static_cast<ptrdiff_t>(p * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, at);
  return *at;
}

void Run(size_t turns) {
  constexpr size_t kSmall = 10'000, kLarge = 10'000'000;
  Training small(kSmall, kSmall), large(kLarge, kSmall), cold(kLarge, kLarge);
  const char* const names[] = {"small", "large", "cold", "memory"};
  Training* const trainings[] = {&small, &large, &cold, &cold};
  constexpr size_t kSteps = 4;  // of one turn
  std::vector<double> times[4], over_small[4], beside_memory;
  double rows[4] = {};

  for (Training* training : {&small, &large, &cold}) {
    Check(*training);
    for (size_t i = 0; i < kBatches; ++i) training->Step(i);  // no first touch is timed
  }
  for (size_t turn = 0; turn < turns; ++turn) {
    double a_row[4];
    for (size_t kind = 0; kind < std::size(names); ++kind) {
      Training& training = *trainings[kind];
      // Far from the rows that `cold` has just had in the cache.
      const size_t first = turn * kSteps + (kind == 3 ? kBatches / 2 : 0);
      double time = 0, touched = 0;
      for (size_t i = first; i < first + kSteps; ++i) {
        if (kind == 3) training.Build(i);
        time += CpuMicroseconds([&] { kind == 3 ? training.Touch() : training.Step(i); });
        touched += static_cast<double>(training.rows().size());
      }
      times[kind].push_back(time / kSteps);
      rows[kind] += touched / static_cast<double>(turns * kSteps);
      a_row[kind] = time / touched;
      over_small[kind].push_back(a_row[kind] / a_row[0]);
    }
    beside_memory.push_back((a_row[2] - a_row[3]) / a_row[0]);
  }
  const auto print_ratio = [](std::vector<double>& ratios) {
    std::printf("%.3f (%.3f to %.3f)\n", Quantile(ratios, 0.5), Quantile(ratios, 0.25), Quantile(ratios, 0.75));
  };
  std::printf("%-8s %12s %12s %10s   %s\n", "", "CPU us/step", "rows/step", "ns/row", "a row over small's (quartiles)");
  for (size_t kind = 0; kind < std::size(names); ++kind) {
    const double time = Quantile(times[kind], 0.5);
    std::printf("%-8s %12.0f %12.0f %10.1f   ", names[kind], time, rows[kind], 1e3 * time / rows[kind]);
    print_ratio(over_small[kind]);
  }
  std::printf("%-46s", "cold less memory");
  print_ratio(beside_memory);
}

}  // namespace
}  // namespace din

int main(int argc, char** argv) {
  const int turns = argc > 1 ? std::atoi(argv[1]) : 100;
  if (argc > 2 || turns < 1) {
    std::fprintf(stderr, "usage: step_bench [TURNS]\n");
    return 2;
  }
  din::Run(static_cast<size_t>(turns));
}
