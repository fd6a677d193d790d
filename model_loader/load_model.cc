#include "model_loader/load_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/golden.h"
#include "model_loader/load_control.h"

namespace din {
namespace {

// The largest |score - expected| over the golden cases; the first one beyond its tolerance is the error.
absl::StatusOr<double> Verify(const DinModel& model, const std::vector<v1::GoldenCase>& cases, LoadControl* control) {
  const bool bf16 = model.precision() == Precision::kBf16;
  ScoringInput input;
  Workspace workspace;
  std::vector<float> scores;
  double largest = 0;
  for (const v1::GoldenCase& golden : cases) {
    if (control != nullptr) DIN_RETURN_IF_ERROR(control->Check());
    const RequestColumns columns{golden.features(), golden.sequences(), golden.candidates()};
    if (absl::Status status = model.decoder().Decode(columns, kGoldenInputLimits, input); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("golden case \"", golden.id(), "\": ", status.message()));
    }
    if (input.candidates != static_cast<size_t>(golden.scores_size())) {
      return absl::InvalidArgumentError(absl::StrCat("golden case \"", golden.id(), "\": ", input.candidates,
                                                     " candidates, ", golden.scores_size(), " scores"));
    }
    const double tolerance = bf16 ? model.spec().bf16_tolerance() : golden.tolerance();
    scores.assign(input.candidates, std::numeric_limits<float>::quiet_NaN());
    model.Score(input, workspace, scores);
    for (size_t c = 0; c < scores.size(); ++c) {
      const double error = std::abs(static_cast<double>(scores[c]) - golden.scores(static_cast<int>(c)));
      if (!(error <= tolerance)) {  // not <=, so that a NaN is an error, too
        return absl::FailedPreconditionError(
            absl::StrCat("golden case \"", golden.id(), "\", candidate ", c, ": score ", scores[c], ", expected ",
                         golden.scores(static_cast<int>(c)), ", |difference| ", error, " > tolerance ", tolerance, " (",
                         std::string(Name(model.instruction_set())), ", ", std::string(Name(model.precision())), ")"));
      }
      largest = std::max(largest, error);
    }
  }
  return largest;
}

absl::Status InDirectory(const absl::Status& status, const std::string& directory) {
  return absl::Status(status.code(), absl::StrCat(directory, ": ", status.message()));
}

std::optional<Precision> PrecisionOf(const v1::ModelSpec& spec) {
  switch (spec.precision()) {
    case v1::PRECISION_FP32:
      return Precision::kFp32;
    case v1::PRECISION_FP32_SPLIT:
      return Precision::kFp32Split;
    case v1::PRECISION_BF16:
      return Precision::kBf16;
    default:
      return std::nullopt;
  }
}

// Builds the model in the precision asked for, or in the default or fp32 where this CPU has it not or it does not
// reproduce the golden scores; notes why.
absl::Status BuildAndVerify(const LoadOptions& options, LoadedModel& loaded) {
  const Snapshot& snapshot = *loaded.snapshot;
  LoadControl* const control = options.read.control;
  loaded.precision_asked = options.precision ? options.precision : PrecisionOf(snapshot.spec());
  const auto note = [&](const std::string& why) {
    absl::StrAppend(&loaded.precision_note, loaded.precision_note.empty() ? "" : "; ", why);
  };
  std::optional<Precision> precision = loaded.precision_asked;  // none: the fastest exact one
  if (precision == Precision::kBf16 && (snapshot.spec().bf16_tolerance() == 0 || snapshot.golden().empty())) {
    note(snapshot.golden().empty() ? "bf16: there are no golden cases to hold it to"
                                   : "bf16: the model states no bf16_tolerance");
    precision.reset();
  }
  for (;;) {
    if (precision && !Supports(options.instruction_set, *precision)) {
      note(absl::StrCat(std::string(Name(*precision)), ": this CPU has no instructions for it"));
      precision.reset();
    }
    DIN_ASSIGN_OR_RETURN(loaded.model,
                         DinModel::Create(snapshot.spec(), snapshot.tensors(), options.instruction_set, precision));
    if (control != nullptr) control->BeginVerifying();
    const absl::StatusOr<double> error = Verify(*loaded.model, snapshot.golden(), control);
    if (error.ok()) {
      loaded.largest_golden_error = *error;
      return absl::OkStatus();
    }
    const Precision used = loaded.model->precision();
    if (used == Precision::kFp32 || !absl::IsFailedPrecondition(error.status())) return error.status();
    note(std::string(error.status().message()));
    if (used == Precision::kBf16) {
      precision.reset();
    } else {
      precision = Precision::kFp32;
    }
  }
}

absl::StatusOr<ModelHandle> Load(const std::string& directory, const std::string& name, int64_t version,
                                 const LoadOptions& options) {
  auto loaded = std::make_shared<LoadedModel>();
  loaded->name = name;
  loaded->version = version;
  // Nothing underneath: a server that has just started, or a tool.
  DIN_ASSIGN_OR_RETURN(loaded->snapshot, options.read.base == nullptr ? OpenWithBases(directory, options.read)
                                                                      : Snapshot::Open(directory, options.read));
  if (loaded->snapshot->unverified() && !options.allow_unverified) {
    return InDirectory(
        absl::FailedPreconditionError("unverified: published without golden cases, and allow-unverified is off"),
        directory);
  }
  if (absl::Status status = BuildAndVerify(options, *loaded); !status.ok()) return InDirectory(status, directory);
  if (options.live != nullptr && options.drift.any()) {
    if (loaded->snapshot->golden().empty()) {
      return InDirectory(absl::FailedPreconditionError("drift: there are no golden cases to measure it on"), directory);
    }
    const auto drift =
        MeasureDrift(*options.live->model, *loaded->model, loaded->snapshot->golden(), options.read.control);
    if (!drift.ok()) return InDirectory(drift.status(), directory);
    const absl::Status within = CheckDrift(*drift, options.drift);
    if (!within.ok()) return InDirectory(within, directory);
  }
  return ModelHandle(std::move(loaded));
}

}  // namespace

absl::StatusOr<ModelHandle> LoadModelFrom(const std::string& directory, const std::string& name, int64_t version,
                                          const LoadOptions& options) {
  try {
    return Load(directory, name, version, options);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(directory, ": out of memory"));
  }
}

absl::StatusOr<ModelHandle> LoadModel(const std::string& root, const std::string& name, int64_t version,
                                      const LoadOptions& options) {
  return LoadModelFrom(absl::StrCat(root, "/", name, "/", version), name, version, options);
}

}  // namespace din
