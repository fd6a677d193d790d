// Trains one DIN: mini-batches, Adam, mini-batch aware regularisation, early stopping on held-out users.
//
// This header is free of libtorch, so that what surrounds training compiles quickly.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/din_shape.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/samples.h"

namespace din {

struct TrainOptions {
  int epochs = 5;
  int patience = 2;  // epochs without a better held-out AUC before it stops
  int batch = 512;
  double learning_rate = 2e-3;
  double mba = 0.05;                // lambda of mini-batch aware regularisation; 0: none
  double initial_deviation = 0.05;  // of the embeddings
  uint64_t seed = 1;
  int threads = 2;  // 1: the same seed gives the same bits
};

// Gflop/s of libtorch's matrix product, the best of a few small ones: milliseconds.
double MatrixGflops();

// A raw layer or table as it is exported, row-major.
struct Weight {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct FitReport {
  int epochs = 0;      // run
  int best_epoch = 0;  // 1-based: whose weights are kept
  Metrics held_out;    // of the best epoch
  double seconds = 0;
};

// One thread; libtorch brings its own for the arithmetic.
class DinTrainer {
 public:
  // `data` must outlive the trainer.
  DinTrainer(const Dataset& data, const DinShape& shape, const TrainOptions& options);
  ~DinTrainer();

  // Leaves the weights of the best epoch by AUC on `split.held_out`; the test part is not looked at. Without held-out
  // samples the last epoch is kept. FAILED_PRECONDITION when the loss stops being a number: epoch, batch, learning
  // rate.
  absl::StatusOr<FitReport> Fit(const Split& split, Progress& progress);

  // libtorch's own scores in evaluation mode, in the order of the samples.
  std::vector<float> Score(std::span<const Sample> samples);

  // Under the names of model_spec.proto: table.item, att0.l0.w, tower.l0.act.mean, head.w, …
  std::map<std::string, Weight> Weights() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
