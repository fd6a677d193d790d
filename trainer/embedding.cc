#include "trainer/embedding.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace din {
namespace {

// Rows of a large vocabulary are in no cache. A few rows ahead is far enough for memory to answer, and near enough for
// the lines to stay; of a longer row the processor follows by itself.
constexpr size_t kAhead = 16;
void Prefetch(const float* row) {
  constexpr size_t kLine = 64 / sizeof(float);
  __builtin_prefetch(row);
  __builtin_prefetch(row + kLine);  // where it does not begin with a line
}

}  // namespace

TrainableTable RandomTable(size_t rows, size_t dim, size_t random_dim, double deviation, uint64_t seed) {
  TrainableTable table{rows, dim, std::vector<float>(rows * dim)};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  for (size_t row = 0; row < rows; ++row) {
    for (float& w : table.Row(row).first(random_dim)) w = normal(random);
  }
  return table;
}

void Gather(const TrainableTable& table, std::span<const int64_t> rows, std::span<float> out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) Prefetch(table.weights.data() + rows[i + kAhead] * table.dim);
    const std::span<float> to = out.subspan(i * table.dim, table.dim);
    if (static_cast<size_t>(rows[i]) == table.rows) {
      std::ranges::fill(to, 0.0f);
    } else {
      std::ranges::copy(table.Row(rows[i]), to.begin());
    }
  }
}

void AddMiniBatchAware(const TrainableTable& table, std::span<const int64_t> rows, std::span<const uint32_t> counts,
                       double lambda, std::span<float> gradients) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) __builtin_prefetch(counts.data() + rows[i + kAhead]);
    if (static_cast<size_t>(rows[i]) == table.rows) continue;
    const std::span<const float> row = table.Row(rows[i]);
    const float decay = static_cast<float>(lambda / std::max(counts[rows[i]], 1u));
    for (size_t d = 0; d < row.size(); ++d) gradients[i * table.dim + d] += decay * row[d];
  }
}

void AddTouchedL2(const TrainableTable& table, std::span<const int64_t> rows, double lambda,
                  std::span<float> gradients) {
  const float decay = static_cast<float>(lambda);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (static_cast<size_t>(rows[i]) == table.rows) continue;
    const std::span<const float> row = table.Row(rows[i]);
    for (size_t d = 0; d < row.size(); ++d) gradients[i * table.dim + d] += decay * row[d];
  }
}

RowOptimiser::RowOptimiser(size_t rows, size_t dim, const Options& options)
    : rows_(rows), dim_(dim), options_(options) {
  if (options.kind == OptimiserKind::kSgd) return;
  state_.first_moment.resize(rows * dim);
  state_.second_moment.resize(rows * dim);
  state_.steps.resize(rows);
}

void RowOptimiser::Step(std::span<float> weights, std::span<const int64_t> rows, std::span<const float> gradients,
                        double learning_rate) {
  const float beta1 = static_cast<float>(options_.beta1);
  const float beta2 = static_cast<float>(options_.beta2);
  const float epsilon = static_cast<float>(options_.epsilon);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) {
      const size_t ahead = rows[i + kAhead];
      Prefetch(weights.data() + ahead * dim_);
      if (options_.kind == OptimiserKind::kAdam) {
        Prefetch(state_.first_moment.data() + ahead * dim_);
        Prefetch(state_.second_moment.data() + ahead * dim_);
        __builtin_prefetch(state_.steps.data() + ahead);
      }
    }
    const size_t row = rows[i];
    if (row == rows_) continue;
    float* w = weights.data() + row * dim_;
    const float* g = gradients.data() + i * dim_;
    if (options_.kind == OptimiserKind::kSgd) {
      const float rate = static_cast<float>(learning_rate);
      for (size_t d = 0; d < dim_; ++d) w[d] -= rate * g[d];
      continue;
    }
    const double step = ++state_.steps[row];
    const float rate = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, step)));
    const float second_scale = static_cast<float>(1 / (1 - std::pow(options_.beta2, step)));
    float* m = state_.first_moment.data() + row * dim_;
    float* v = state_.second_moment.data() + row * dim_;
    for (size_t d = 0; d < dim_; ++d) {
      m[d] = beta1 * m[d] + (1 - beta1) * g[d];
      v[d] = beta2 * v[d] + (1 - beta2) * g[d] * g[d];
      w[d] -= rate * m[d] / (std::sqrt(v[d] * second_scale) + epsilon);
    }
  }
}

}  // namespace din
