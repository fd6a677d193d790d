// What a training is, and bringing it back from its checkpoint.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/dataset.h"
#include "trainer/model_options.h"
#include "trainer/model_shape.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/samples.h"
#include "trainer/train.h"

namespace din {

// The options of train that decide what comes out of it; a checkpoint holds them all.
struct TrainingCommand {
  DataOptions data;
  TrainingOptions training;

  Options Describe();
  SampleOptions SampleChoice() const { return data.SamplesFor(training.train.seed, training.shape.max_history); }
};

// Options::Values as a checkpoint keeps them.
std::string OptionsToJson(const std::vector<std::string>& values);
absl::StatusOr<std::vector<std::string>> OptionsFromJson(const std::string& text);

// INVALID_ARGUMENT names an option that a training may not change when it goes on.
absl::Status CheckSameTraining(const std::vector<std::string>& before, const std::vector<std::string>& now);

struct Restored {
  TrainingCommand command;
  std::optional<Dataset> data;
  Split split;
  std::unique_ptr<Trainer> trainer;
  ModelShape shape;
};

// Reads the data again, makes the same samples, and takes the weights of the best epoch. An empty `data_path` stands
// for where they were.
absl::StatusOr<std::unique_ptr<Restored>> Restore(const std::string& checkpoint, const std::string& data_path,
                                                  Progress& progress);

}  // namespace din
