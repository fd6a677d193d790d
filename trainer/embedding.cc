#include "trainer/embedding.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace din {

EmbeddingTable RandomTable(size_t rows, size_t dim, double deviation, uint64_t seed) {
  EmbeddingTable table{rows, dim, std::vector<float>(rows * dim)};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  for (float& w : table.weights) w = normal(random);
  return table;
}

void Gather(const EmbeddingTable& table, std::span<const int64_t> rows, std::span<float> out) {
  for (size_t i = 0; i < rows.size(); ++i) std::ranges::copy(table.Row(rows[i]), out.begin() + i * table.dim);
}

void AddMiniBatchAware(const EmbeddingTable& table, std::span<const int64_t> rows, std::span<const uint32_t> counts,
                       double lambda, std::span<float> gradients) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<const float> row = table.Row(rows[i]);
    const float decay = static_cast<float>(lambda / std::max(counts[rows[i]], 1u));
    for (size_t d = 0; d < row.size(); ++d) gradients[i * table.dim + d] += decay * row[d];
  }
}

RowAdam::RowAdam(const EmbeddingTable& table, const Options& options)
    : options_(options),
      first_moment_(table.weights.size()),
      second_moment_(table.weights.size()),
      steps_(table.rows) {}

void RowAdam::Step(EmbeddingTable& table, std::span<const int64_t> rows, std::span<const float> gradients) {
  const float beta1 = static_cast<float>(options_.beta1);
  const float beta2 = static_cast<float>(options_.beta2);
  const float epsilon = static_cast<float>(options_.epsilon);
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t row = rows[i];
    const double step = ++steps_[row];
    const float rate = static_cast<float>(options_.learning_rate / (1 - std::pow(options_.beta1, step)));
    const float second_scale = static_cast<float>(1 / (1 - std::pow(options_.beta2, step)));
    float* w = table.weights.data() + row * table.dim;
    float* m = first_moment_.data() + row * table.dim;
    float* v = second_moment_.data() + row * table.dim;
    const float* g = gradients.data() + i * table.dim;
    for (size_t d = 0; d < table.dim; ++d) {
      m[d] = beta1 * m[d] + (1 - beta1) * g[d];
      v[d] = beta2 * v[d] + (1 - beta2) * g[d] * g[d];
      w[d] -= rate * m[d] / (std::sqrt(v[d] * second_scale) + epsilon);
    }
  }
}

}  // namespace din
