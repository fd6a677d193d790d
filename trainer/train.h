// Trains one model: mini-batches, Adam or SGD, regularisation of the touched rows, early stopping on held-out users,
// checkpoints.
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
#include "model/tensor.h"
#include "model_loader/memory_budget.h"
#include "trainer/batch.h"
#include "trainer/checkpoint.h"
#include "trainer/dataset.h"
#include "trainer/embedding.h"
#include "trainer/metrics.h"
#include "trainer/model_shape.h"
#include "trainer/progress.h"
#include "trainer/samples.h"

namespace din {

struct TrainOptions {
  int epochs = 5;
  int patience = 2;  // epochs without a better held-out AUC before it stops
  int batch = 512;
  OptimiserKind optimiser = OptimiserKind::kAdam;
  double learning_rate = 2e-3;
  double decay = 1;                 // the learning rate is multiplied by this …
  int decay_every = 1;              // … after so many epochs
  double mba = 0.05;                // lambda of mini-batch aware regularisation; 0: none
  double l2 = 0;                    // lambda of plain L2 on the touched rows; 0: none
  double dropout = 0;               // part of the ids of a sample that are left out in training (section 6.5)
  int64_t most_frequent = 0;        // values of each field that get an embedding; 0: all (section 6.5)
  double initial_deviation = 0.05;  // of the embeddings
  uint64_t seed = 1;
  int threads = 2;  // 1: the same seed gives the same bits
};

// Gflop/s of libtorch's matrix product, the best of a few small ones: milliseconds.
double MatrixGflops();

// Whether the tables of a training fit into memory with all that belongs to them, and the copy that is made of them while a
// snapshot is written, or of optimiser and best epoch, too, while a checkpoint is. RESOURCE_EXHAUSTED with the rows, the
// need and what is free in bytes when not.
absl::Status CheckMemory(const Dataset& data, const ModelShape& shape, const TrainOptions& options, bool checkpoints,
                         const MemoryBudget& budget = TightestMemoryBudget(0));

struct EpochReport {
  double loss = 0;  // mean over the training samples
  double held_out_auc = 0;
  double held_out_log_loss = 0;
};

struct FitReport {
  std::vector<EpochReport> epochs;  // those run
  int best_epoch = 0;               // 1-based: whose weights are kept
  Metrics held_out;                 // of the best epoch
  double seconds = 0;
  double cpu_seconds = 0;  // of all threads
};

// One thread; libtorch brings its own for the arithmetic.
class Trainer {
 public:
  // `shape` is over these data (ModelShape::Over). `data` and `split` must outlive the trainer.
  Trainer(const Dataset& data, const Split& split, const ModelShape& shape, const TrainOptions& options);
  ~Trainer();

  // Goes on from a checkpoint of the same data, shape and options, as if it had never stopped: INVALID_ARGUMENT when
  // an array does not fit, naming it.
  absl::Status Restore(const Checkpoint& checkpoint);

  // Leaves the weights of the best epoch by AUC on the held-out part; the test part is not looked at. Without held-out
  // samples the last epoch is kept. With a `checkpoint_path` the state is written there after every epoch, `options`
  // with it. FAILED_PRECONDITION when the loss stops being a number: epoch, batch, learning rate; the last checkpoint
  // stays.
  absl::StatusOr<FitReport> Fit(Progress& progress, const std::string& checkpoint_path = "",
                                const std::string& options = "");

  // libtorch's own scores in evaluation mode, in the order of the samples.
  std::vector<float> Score(std::span<const Sample> samples);

  // Rounds the embeddings to this type, as Export writes them, so that Score is of what will be served.
  void RoundEmbeddings(DataType type);

  // Under the names of model_spec.proto: table.item, att0.l0.w, tower.l0.act.mean, head.w, …
  std::map<std::string, Weight> Weights() const;

  // Which values have a row, by field.
  std::span<const KeptValues> kept() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
