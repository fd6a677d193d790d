// From a directory to a model that may go live.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/din_model.h"
#include "model_loader/drift.h"
#include "model_loader/snapshot.h"

namespace din {

// One version of one model, verified. Immutable; shared by all who use it; freed by the last one.
struct LoadedModel {
  std::string name;
  int64_t version = 0;
  std::unique_ptr<const Snapshot> snapshot;  // owns the memory that `model` reads
  std::unique_ptr<const DinModel> model;
  double largest_golden_error = 0;
  std::optional<Precision> precision_asked;  // by the options or the spec; none: the fastest exact one
  std::string precision_note;                // why model->precision() is not what was asked for; empty: it is
};

// Pins one version: while it is held, that version stays whole.
using ModelHandle = std::shared_ptr<const LoadedModel>;

struct LoadOptions {
  ReadOptions read;
  InstructionSet instruction_set = BestInstructionSet();
  std::optional<Precision> precision;  // instead of what the spec asks for; bf16 only where the spec has a tolerance
  DriftBounds drift;                   // against `live`, on the golden cases of the new version
  ModelHandle live;                    // null: nothing to compare with
  bool allow_unverified = false;       // versions without golden cases, too; else FAILED_PRECONDITION
};

// Opens <root>/<name>/<version>, builds the model and holds it to its golden cases, in the precision asked for or,
// where that does not reproduce them, in the next more exact one: bf16, the default, fp32. Errors as Snapshot::Open,
// and FAILED_PRECONDITION when a golden score is not reproduced: the case, the candidate, got, expected, tolerance;
// RESOURCE_EXHAUSTED when memory runs out.
absl::StatusOr<ModelHandle> LoadModel(const std::string& root, const std::string& name, int64_t version,
                                      const LoadOptions& options);

// The same for a directory anywhere (`dinctl verify DIR`).
absl::StatusOr<ModelHandle> LoadModelFrom(const std::string& directory, const std::string& name, int64_t version,
                                          const LoadOptions& options);

}  // namespace din
