#include "model_loader/load_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/load_control.h"

namespace din {
namespace {

// Golden cases come from the publisher, who may know requests larger than this server would take.
constexpr InputLimits kGoldenLimits = {.candidates = 1u << 20, .behaviours = 1u << 20, .list_ids = 1u << 24};

// The largest |score - expected| over the golden cases; the first one beyond its tolerance is the error.
absl::StatusOr<double> Verify(const DinModel& model, const std::vector<v1::GoldenCase>& cases, LoadControl* control) {
  ScoringInput input;
  Workspace workspace;
  std::vector<float> scores;
  double largest = 0;
  for (const v1::GoldenCase& golden : cases) {
    if (control != nullptr) DIN_RETURN_IF_ERROR(control->Check());
    const RequestColumns columns{golden.features(), golden.sequences(), golden.candidates()};
    if (absl::Status status = model.decoder().Decode(columns, kGoldenLimits, input); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("golden case \"", golden.id(), "\": ", status.message()));
    }
    if (input.candidates != static_cast<size_t>(golden.scores_size())) {
      return absl::InvalidArgumentError(absl::StrCat("golden case \"", golden.id(), "\": ", input.candidates,
                                                     " candidates, ", golden.scores_size(), " scores"));
    }
    scores.assign(input.candidates, std::numeric_limits<float>::quiet_NaN());
    model.Score(input, workspace, scores);
    for (size_t c = 0; c < scores.size(); ++c) {
      const double error = std::abs(static_cast<double>(scores[c]) - golden.scores(static_cast<int>(c)));
      if (!(error <= golden.tolerance())) {  // not <=, so that a NaN is an error, too
        return absl::FailedPreconditionError(
            absl::StrCat("golden case \"", golden.id(), "\", candidate ", c, ": score ", scores[c], ", expected ",
                         golden.scores(static_cast<int>(c)), ", |difference| ", error, " > tolerance ",
                         golden.tolerance(), " (", std::string(Name(model.instruction_set())), ")"));
      }
      largest = std::max(largest, error);
    }
  }
  return largest;
}

absl::Status InDirectory(const absl::Status& status, const std::string& directory) {
  return absl::Status(status.code(), absl::StrCat(directory, ": ", status.message()));
}

}  // namespace

absl::StatusOr<ModelHandle> LoadModelFrom(const std::string& directory, const std::string& name, int64_t version,
                                          const LoadOptions& options) {
  auto loaded = std::make_shared<LoadedModel>();
  loaded->name = name;
  loaded->version = version;
  DIN_ASSIGN_OR_RETURN(loaded->snapshot, Snapshot::Open(directory, options.read));
  if (loaded->snapshot->unverified() && !options.allow_unverified) {
    return InDirectory(
        absl::FailedPreconditionError("unverified: published without golden cases, and allow-unverified is off"),
        directory);
  }
  auto model = DinModel::Create(loaded->snapshot->spec(), loaded->snapshot->tensors(), options.instruction_set);
  if (!model.ok()) return InDirectory(model.status(), directory);
  loaded->model = *std::move(model);
  LoadControl* const control = options.read.control;
  if (control != nullptr) control->BeginVerifying();
  const absl::StatusOr<double> error = Verify(*loaded->model, loaded->snapshot->golden(), control);
  if (!error.ok()) return InDirectory(error.status(), directory);
  loaded->largest_golden_error = *error;
  return ModelHandle(std::move(loaded));
}

absl::StatusOr<ModelHandle> LoadModel(const std::string& root, const std::string& name, int64_t version,
                                      const LoadOptions& options) {
  return LoadModelFrom(absl::StrCat(root, "/", name, "/", version), name, version, options);
}

}  // namespace din
