// Embedding tables while they are trained: only the rows that a mini-batch touches are read, regularised and updated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace din {

struct EmbeddingTable {
  size_t rows = 0;
  size_t dim = 0;
  std::vector<float> weights;  // [rows, dim]

  std::span<float> Row(size_t row) { return {weights.data() + row * dim, dim}; }
  std::span<const float> Row(size_t row) const { return {weights.data() + row * dim, dim}; }
};

// Normal with this standard deviation; the same seed gives the same table.
EmbeddingTable RandomTable(size_t rows, size_t dim, double deviation, uint64_t seed);

// out[i] = table[rows[i]]; out is [rows.size(), dim].
void Gather(const EmbeddingTable& table, std::span<const int64_t> rows, std::span<float> out);

// Mini-batch aware regularisation (DIN, section 5.1): adds lambda / n_j * w_j to the gradient of every row j that the
// batch touches; others are not regularised, as they are not updated. counts[j] is n_j over the training set; a row
// with n_j = 0 counts as 1. `rows` are distinct; `gradients` is [rows.size(), dim].
void AddMiniBatchAware(const EmbeddingTable& table, std::span<const int64_t> rows, std::span<const uint32_t> counts,
                       double lambda, std::span<float> gradients);

// Adam (Kingma and Ba, algorithm 1) on single rows: each row runs Adam on the sequence of its own gradients, with a
// step count of its own. A row that a batch does not touch keeps its weights and moments, and its moments do not decay;
// so it differs from dense Adam on a table of which some rows have zero gradients, and a rare row's first step is of
// full size. One thread.
class RowAdam {
 public:
  struct Options {
    double learning_rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
  };

  RowAdam(const EmbeddingTable& table, const Options& options);

  // `table` is of the shape given at construction; `rows` are distinct; `gradients` is [rows.size(), dim].
  void Step(EmbeddingTable& table, std::span<const int64_t> rows, std::span<const float> gradients);

 private:
  Options options_;
  std::vector<float> first_moment_;   // [rows, dim]
  std::vector<float> second_moment_;  // [rows, dim]
  std::vector<uint32_t> steps_;       // [rows]
};

}  // namespace din
