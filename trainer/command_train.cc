// train, export, verify, demo-requests.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"
#include "model_loader/load_model.h"
#include "trainer/commands.h"
#include "trainer/demo_requests.h"
#include "trainer/export.h"
#include "trainer/metrics.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/restore.h"
#include "trainer/served_scores.h"
#include "trainer/train.h"

namespace din {
namespace {

void PrintDeciles(const Metrics& m) {
  if (m.deciles.empty()) return;
  std::printf("calibration by decile of the score, predicted/observed:");
  for (const Metrics::Decile& d : m.deciles) std::printf("  %.3f/%.3f", d.predicted, d.observed);
  std::printf("\n");
}

// --- Publishing -----------------------------------------------------------------------------------------------------

struct Destination {
  std::string out;
  int64_t version = 1;
  int golden = 20;
  int precision = 0;

  void AddTo(Options& o) {
    o.Add("out", "model directory MODEL_ROOT/NAME; the snapshot becomes a version in it", &out);
    o.Add("version", "of the snapshot", &version, 1, INT64_MAX);
    o.Add("golden", "golden requests in the snapshot, 0: the whole test set", &golden, 0, 10'000);
    o.AddChoice("precision", "of the embeddings", {"f32", "f16", "bf16"}, &precision);
  }

  // Told before the training, not after it.
  absl::Status Check() const {
    DIN_RETURN_IF_ERROR(Required("out", out));
    const std::filesystem::path path = std::filesystem::path(out) / absl::StrCat(version);
    std::error_code error;
    if (std::filesystem::exists(path, error)) {
      return absl::AlreadyExistsError(absl::StrCat(path.string(), ": there already; choose another --version"));
    }
    std::filesystem::create_directories(out, error);
    if (error) return absl::UnavailableError(absl::StrCat(out, ": ", error.message()));
    return absl::OkStatus();
  }

  absl::Status Publish(const Dataset& data, const Split& split, const ModelShape& shape, uint64_t seed,
                       Trainer& trainer) const {
    constexpr DataType kTypes[] = {DataType::kF32, DataType::kF16, DataType::kBF16};
    if (precision != 0) trainer.RoundEmbeddings(kTypes[precision]);
    const Metrics test = Evaluate(split.test, trainer.Score(split.test));
    const TrainedModel model{.data = data,
                             .shape = shape,
                             .kept = trainer.kept(),
                             .weights = trainer.Weights(),
                             .score = [&](std::span<const Sample> samples) { return trainer.Score(samples); }};
    DIN_RETURN_IF_ERROR(Export(
        model, split.test,
        {.model_directory = out,
         .version = version,
         .description =
             absl::StrFormat("%s trained by din-train: %d events, seed %d, test user AUC %.4f",
                             kModelNames[static_cast<int>(shape.model)], data.events.size(), seed, test.user_auc),
         .golden_cases = golden,
         .embeddings = kTypes[precision],
         .seed = seed}));
    std::printf("published: %s/%lld\n", out.c_str(), static_cast<long long>(version));
    return absl::OkStatus();
  }
};

}  // namespace

bool WantsHelp(Arguments arguments) {
  return std::ranges::any_of(arguments, [](std::string_view a) { return a == "--help" || a == "-h"; });
}

absl::Status Required(std::string_view option, const std::string& value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", std::string(option), " is missing"));
}

void WarnOfSlowMatrices() {
  constexpr double kSlow =
      10;  // Gflop/s; one core reaches about 3 with the reference BLAS and 50 or more with OpenBLAS
  const double rate = MatrixGflops();
  if (rate >= kSlow) return;
  std::fprintf(stderr,
               "din-train: matrix products run at %.1f Gflop/s; with OpenBLAS training is several times faster: "
               "apt-get install libopenblas0-openmp\n",
               rate);
}

// --- train ----------------------------------------------------------------------------------------------------------

absl::Status TrainCommand(Arguments arguments) {
  TrainingCommand command;
  Destination destination;
  std::string checkpoint;
  const Options of_training = command.Describe();
  Options options = of_training;
  destination.AddTo(options);
  options.Add("checkpoint", "file written after every epoch; when it is there, the training goes on from it",
              &checkpoint);
  if (WantsHelp(arguments)) {
    std::printf("din-train train --data DIR --out MODEL_ROOT/NAME [options]\n%s", options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("data", command.data.data));
  DIN_RETURN_IF_ERROR(destination.Check());
  const std::vector<std::string> values = of_training.Values();
  command.training.Settle();

  std::optional<Checkpoint> before;
  std::error_code ignored;
  if (!checkpoint.empty() && std::filesystem::exists(checkpoint, ignored)) {
    DIN_ASSIGN_OR_RETURN(before, ReadCheckpoint(checkpoint));
    DIN_ASSIGN_OR_RETURN(const std::vector<std::string> then, OptionsFromJson(before->options));
    DIN_RETURN_IF_ERROR(CheckSameTraining(then, values));
  }

  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const Dataset data, command.data.Read(progress));
  const ModelShape shape = command.training.shape.Over(data);
  DIN_RETURN_IF_ERROR(CheckMemory(data, shape, command.training.train, !checkpoint.empty()));
  DIN_ASSIGN_OR_RETURN(const Split split, MakeSamples(data, command.SampleChoice()));
  std::printf("samples: %zu to train, %zu of held-out users to choose the epoch, %zu to test\n", split.train.size(),
              split.held_out.size(), split.test.size());
  std::fflush(stdout);

  Trainer trainer(data, split, shape, command.training.train);
  if (before) DIN_RETURN_IF_ERROR(trainer.Restore(*before));
  before.reset();
  WarnOfSlowMatrices();
  const absl::StatusOr<FitReport> report = trainer.Fit(progress, checkpoint, OptionsToJson(values));
  if (!report.ok()) {
    const bool kept = !checkpoint.empty() && std::filesystem::exists(checkpoint, ignored);
    return absl::Status(report.status().code(),
                        absl::StrCat(std::string(report.status().message()),
                                     kept ? absl::StrCat("; the last checkpoint is kept: ", checkpoint) : ""));
  }
  std::printf("trained: %zu epochs in %.1f s, epoch %d kept\n", report->epochs.size(), report->seconds,
              report->best_epoch);
  const Metrics test = Evaluate(split.test, trainer.Score(split.test));
  PrintMetrics("held out", report->held_out);
  PrintMetrics("test", test);
  PrintDeciles(test);
  return destination.Publish(data, split, shape, command.training.train.seed, trainer);
}

// --- export ---------------------------------------------------------------------------------------------------------

absl::Status ExportCommand(Arguments arguments) {
  Destination destination;
  std::string checkpoint, data;
  Options options;
  options.Add("checkpoint", "of din-train train", &checkpoint);
  options.Add("data", "where the data of the training are now, when they have moved", &data);
  destination.AddTo(options);
  if (WantsHelp(arguments)) {
    std::printf("din-train export --checkpoint FILE --out MODEL_ROOT/NAME [options]\n%s", options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("checkpoint", checkpoint));
  DIN_RETURN_IF_ERROR(destination.Check());
  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const auto restored, Restore(checkpoint, data, progress));
  return destination.Publish(*restored->data, restored->split, restored->shape, restored->command.training.train.seed,
                             *restored->trainer);
}

// --- verify ---------------------------------------------------------------------------------------------------------

absl::Status VerifyCommand(Arguments arguments) {
  std::string checkpoint, snapshot, data_path;
  double tolerance = 1e-5;
  Options options;
  options.Add("checkpoint", "of din-train train", &checkpoint);
  options.Add("snapshot", "directory MODEL_ROOT/NAME/VERSION that was exported from it", &snapshot);
  options.Add("data", "where the data of the training are now, when they have moved", &data_path);
  options.Add("tolerance", "largest difference of two scores", &tolerance, 0, 1);
  if (WantsHelp(arguments)) {
    std::printf("din-train verify --checkpoint FILE --snapshot MODEL_ROOT/NAME/VERSION [options]\n%s",
                options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("checkpoint", checkpoint));
  DIN_RETURN_IF_ERROR(Required("snapshot", snapshot));
  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const auto restored, Restore(checkpoint, data_path, progress));
  const Dataset& data = *restored->data;
  const std::vector<Sample>& test = restored->split.test;

  DIN_ASSIGN_OR_RETURN(const auto loaded, LoadModelFrom(snapshot, "model", 1, {}));
  const DinModel& model = *loaded->model;
  // Tables of 16 bits are served rounded: libtorch scores with the same numbers.
  for (const v1::Table& table : loaded->snapshot->spec().tables()) {
    const auto tensor = loaded->snapshot->tensors().find("table." + table.name());
    if (tensor != loaded->snapshot->tensors().end()) restored->trainer->RoundEmbeddings(tensor->second.type);
  }
  std::vector<float> served(test.size());
  Workspace workspace;
  ScoringInput input;
  for (size_t i = 0; i < test.size(); ++i) {
    const v1::GoldenCase request = MakeCase(data, {&test[i], 1}, restored->shape.max_history);
    const RequestColumns columns{request.features(), request.sequences(), request.candidates()};
    DIN_RETURN_IF_ERROR(model.decoder().Decode(columns, {}, input));
    model.Score(input, workspace, {&served[i], 1});
  }
  return CompareServed(test, restored->trainer->Score(test), served, tolerance);
}

// --- demo-requests --------------------------------------------------------------------------------------------------

absl::Status DemoRequestsCommand(Arguments arguments) {
  DataOptions source;
  int64_t seed = 1;
  DemoRequestOptions request;
  Options options;
  options.Add("data", "as for train", &source.data);
  source.AddFeaturesTo(options);
  options.Add("out", "directory for user-<id>.json and next.tsv", &request.out);
  options.Add("model", "name that the requests ask for", &request.model);
  options.Add("users", "how many", &request.users, 1, 100'000);
  options.Add("candidates", "of each request", &request.candidates, 1, 4096);
  options.Add("history", "behaviours of each request, the most recent", &request.max_history, 1, 4096);
  options.Add("seed", "of users and candidates", &seed, 0, INT64_MAX);
  if (WantsHelp(arguments)) {
    std::printf("din-train demo-requests --data DIR --out DIR [options]\n%s", options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("data", source.data));
  DIN_RETURN_IF_ERROR(Required("out", request.out));
  request.seed = static_cast<uint64_t>(seed);
  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const Dataset data, source.Read(progress));
  DIN_RETURN_IF_ERROR(WriteDemoRequests(data, request));
  std::printf("requests: %s\n", request.out.c_str());
  return absl::OkStatus();
}

}  // namespace din
