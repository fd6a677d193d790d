// Embedding tables while they are trained: only the rows that a mini-batch touches are read, regularised and updated.
//
// Row `rows` of a table, one past the last, stands for ids that have no row (batch.h): it reads as zeros and whatever
// is added to it is forgotten.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace din {

struct TrainableTable {
  size_t rows = 0;
  size_t dim = 0;
  std::vector<float> weights;  // [rows, dim]

  std::span<float> Row(size_t row) { return {weights.data() + row * dim, dim}; }
  std::span<const float> Row(size_t row) const { return {weights.data() + row * dim, dim}; }
};

// The first `random_dim` columns normal with this standard deviation, the others zero; the same seed gives the same
// table.
TrainableTable RandomTable(size_t rows, size_t dim, size_t random_dim, double deviation, uint64_t seed);

// out[i] = table[rows[i]]; out is [rows.size(), dim].
void Gather(const TrainableTable& table, std::span<const int64_t> rows, std::span<float> out);

// Mini-batch aware regularisation (DIN, section 5.1): adds lambda / n_j * w_j to the gradient of every row j that the
// batch touches; others are not regularised, as they are not updated. counts[j] is n_j over the training set; a row
// with n_j = 0 counts as 1. `rows` are distinct; `gradients` is [rows.size(), dim].
void AddMiniBatchAware(const TrainableTable& table, std::span<const int64_t> rows, std::span<const uint32_t> counts,
                       double lambda, std::span<float> gradients);

// Plain L2 on the rows that the batch touches: adds lambda * w_j to the gradient of each.
void AddTouchedL2(const TrainableTable& table, std::span<const int64_t> rows, double lambda,
                  std::span<float> gradients);

enum class OptimiserKind { kAdam, kSgd };

// Updates single rows of [rows, dim] weights; dense parameters are a table of one row. One thread.
//
// SGD: w -= rate * g.
//
// Adam (Kingma and Ba, algorithm 1): each row runs Adam on the sequence of its own gradients, with a step count of its
// own. A row that a batch does not touch keeps its weights and moments, and its moments do not decay; so it differs
// from dense Adam on a table of which some rows have zero gradients, and a rare row's first step is of full size.
class RowOptimiser {
 public:
  struct Options {
    OptimiserKind kind = OptimiserKind::kAdam;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
  };

  RowOptimiser(size_t rows, size_t dim, const Options& options);

  // `weights` is [rows, dim]; `rows` are distinct; `gradients` is [rows.size(), dim].
  void Step(std::span<float> weights, std::span<const int64_t> rows, std::span<const float> gradients,
            double learning_rate);

  // What it remembers, for checkpoints; empty for SGD.
  struct State {
    std::vector<float> first_moment;   // [rows, dim]
    std::vector<float> second_moment;  // [rows, dim]
    std::vector<int32_t> steps;        // [rows]
  };
  State& state() { return state_; }

  // Bytes for each row, the weights not counted.
  static size_t BytesPerRow(OptimiserKind kind, size_t dim) {
    return kind == OptimiserKind::kSgd ? 0 : 2 * dim * sizeof(float) + sizeof(int32_t);
  }

 private:
  size_t rows_;
  size_t dim_;
  Options options_;
  State state_;
};

}  // namespace din
