// The command-line options that describe a training, shared by train and compare, and as they stand in a checkpoint.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/model_shape.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/samples.h"
#include "trainer/train.h"

namespace din {

// Names as the command line and reports have them.
inline constexpr std::string_view kModelNames[] = {"lr", "base", "wide-deep", "pnn", "deepfm", "din"};

// What to read and how to make samples of it.
struct DataOptions {
  std::string data;
  int protocol = 0;
  int sequences = 0;
  int time_context = 0;
  SampleOptions samples;

  void AddTo(Options& options);
  void AddFeaturesTo(Options& options);  // --sequences and --time-context
  // After Parse: reads the data, saying what was found. INVALID_ARGUMENT when --data is missing.
  absl::StatusOr<Dataset> Read(Progress& progress) const;
  SampleOptions SamplesFor(uint64_t seed, int max_history) const;
};

// Everything about a model that is not a regularisation variant of it.
struct TrainingOptions {
  int model = static_cast<int>(Model::kDin);
  int activation = 0;
  int attention_input = 0;
  int product = 1;
  int pooling = 1;
  int dim = 16;
  int optimiser = 0;
  double learning_rate = 0;  // 0: the optimiser's own
  int64_t seed = 1;
  ModelShape shape;
  TrainOptions train;

  // Which a comparison decides itself: model, activation, product, mba, l2, dropout, most-frequent, seed.
  void AddVariantsTo(Options& options);
  void AddTo(Options& options);
  // After Parse.
  void Settle();
};

}  // namespace din
