// compare.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"
#include "trainer/commands.h"
#include "trainer/compare.h"
#include "trainer/model_options.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/train.h"

namespace din {
namespace {

constexpr char kAllVariants[] =
    "lr,base,base+mba,wide-deep,pnn,deepfm,din,din+dice,din+mba,din+dice+mba,din+dice+mba+product";

// What "+mba" and the like switch on; off, the paper's plain model with PReLU remains.
struct Lambdas {
  double mba = 0.05;
  double l2 = 1e-5;
  double dropout = 0.5;  // section 6.5
  int64_t most_frequent = 10'000;
};

// INVALID_ARGUMENT names what is not known and what is nearest.
absl::Status Apply(const std::string& variant, const Lambdas& lambdas, TrainingOptions& training) {
  const std::vector<std::string> words = absl::StrSplit(variant, '+');
  const auto model = std::ranges::find(kModelNames, words[0]);
  if (model == std::end(kModelNames)) {
    return absl::InvalidArgumentError(absl::StrCat("--variants: unknown model \"", words[0], "\"; did you mean ",
                                                   std::string(Nearest(words[0], kModelNames)), "?"));
  }
  training.model = static_cast<int>(model - std::begin(kModelNames));
  training.activation = static_cast<int>(Activation::kPRelu);
  training.product = 0;
  training.train.mba = training.train.l2 = training.train.dropout = 0;
  training.train.most_frequent = 0;
  for (size_t i = 1; i < words.size(); ++i) {
    constexpr std::string_view kAdditions[] = {"dice", "mba", "l2", "dropout", "filter", "product"};
    switch (std::ranges::find(kAdditions, words[i]) - std::begin(kAdditions)) {
      case 0:
        training.activation = static_cast<int>(Activation::kDice);
        break;
      case 1:
        training.train.mba = lambdas.mba;
        break;
      case 2:
        training.train.l2 = lambdas.l2;
        break;
      case 3:
        training.train.dropout = lambdas.dropout;
        break;
      case 4:
        training.train.most_frequent = lambdas.most_frequent;
        break;
      case 5:
        training.product = 1;
        break;
      default:
        return absl::InvalidArgumentError(absl::StrCat("--variants: \"", variant, "\": unknown addition \"", words[i],
                                                       "\"; did you mean ", std::string(Nearest(words[i], kAdditions)),
                                                       "?"));
    }
  }
  training.Settle();
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::UnavailableError(absl::StrCat(path.string(), ": cannot be read"));
  return text.str();
}

// Whole or not at all.
absl::Status WriteAll(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path part = path.string() + ".part";
  std::ofstream file(part, std::ios::binary);
  file << text;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(part, path, error);
  return file && !error ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path.string(), ": cannot be written"));
}

// The runs of one comparison, each in a file of its own, so that what is done is done.
class Runs {
 public:
  // `options` says what all runs have in common: INVALID_ARGUMENT when the directory holds runs of other options.
  static absl::StatusOr<Runs> Open(const std::string& out, const std::vector<std::string>& options) {
    Runs runs;
    runs.directory_ = std::filesystem::path(out) / "runs";
    std::error_code error;
    std::filesystem::create_directories(runs.directory_, error);
    if (error) return absl::UnavailableError(absl::StrCat(out, ": ", error.message()));
    const std::filesystem::path path = std::filesystem::path(out) / "options.json";
    const std::string text = nlohmann::json(options).dump(1) + "\n";
    if (!std::filesystem::exists(path, error)) {
      DIN_RETURN_IF_ERROR(WriteAll(path, text));
      return runs;
    }
    DIN_ASSIGN_OR_RETURN(const std::string before, ReadAll(path));
    if (before == text) return runs;
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": the runs there are of other options; give the same, or another --out"));
  }

  bool Has(const std::string& variant, uint64_t seed) const {
    std::error_code ignored;
    return std::filesystem::exists(PathOf(variant, seed), ignored);
  }
  absl::StatusOr<RunResult> Get(const std::string& variant, uint64_t seed) const {
    DIN_ASSIGN_OR_RETURN(const std::string text, ReadAll(PathOf(variant, seed)));
    absl::StatusOr<RunResult> run = ParseRun(text);
    if (run.ok()) return run;
    return absl::DataLossError(absl::StrCat(PathOf(variant, seed).string(), ": ", std::string(run.status().message())));
  }
  absl::Status Put(const RunResult& run) const { return WriteAll(PathOf(run.variant, run.seed), FormatRun(run)); }

 private:
  std::filesystem::path PathOf(const std::string& variant, uint64_t seed) const {
    return directory_ / absl::StrCat(variant, "-", seed, ".json");
  }
  std::filesystem::path directory_;
};

absl::StatusOr<RunResult> RunOne(const Dataset& data, const DataOptions& source, const TrainingOptions& training,
                                 const std::string& variant) {
  const ModelShape shape = training.shape.Over(data);
  DIN_RETURN_IF_ERROR(CheckMemory(data, shape, training.train, /*checkpoints=*/false));
  DIN_ASSIGN_OR_RETURN(const Split split, MakeSamples(data, source.SamplesFor(training.train.seed, shape.max_history)));
  Trainer trainer(data, split, shape, training.train);
  Progress progress(stderr);
  progress.Line(absl::StrFormat("%s, seed %d", variant, training.train.seed));
  DIN_ASSIGN_OR_RETURN(const FitReport report, trainer.Fit(progress));
  return RunResult{.variant = variant,
                   .seed = training.train.seed,
                   .epochs = report.epochs,
                   .best_epoch = report.best_epoch,
                   .test = Evaluate(split.test, trainer.Score(split.test)),
                   .seconds = report.seconds,
                   .cpu_seconds = report.cpu_seconds};
}

// The variants whose curves are worth a look: each with mini-batch aware regularisation, and the same without.
std::vector<std::string> Plotted(const std::vector<std::string>& variants) {
  std::vector<std::string> plotted;
  for (const std::string& variant : variants) {
    std::vector<std::string> words = absl::StrSplit(variant, '+');
    if (std::erase(words, "mba") == 0) continue;
    const std::string without = absl::StrJoin(words, "+");
    if (std::ranges::find(variants, without) == variants.end()) continue;
    plotted.insert(plotted.end(), {without, variant});
  }
  return plotted;
}

}  // namespace

absl::Status CompareCommand(Arguments arguments) {
  DataOptions source;
  TrainingOptions training;
  training.train.epochs = training.train.patience = 6;
  training.train.threads = 1;
  Lambdas lambdas;
  std::string out, variants_text = kAllVariants;
  int seeds = 3, most_runs = 0;
  Options common;
  source.AddTo(common);
  training.AddTo(common);
  common.Add("mba", "lambda of +mba", &lambdas.mba, 0, 1e6);
  common.Add("l2", "lambda of +l2", &lambdas.l2, 0, 1e6);
  common.Add("dropout", "part of +dropout", &lambdas.dropout, 0, 0.99);
  common.Add("most-frequent", "values that +filter keeps of each field", &lambdas.most_frequent, 1, INT32_MAX);
  Options options = common;
  options.Add("out", "directory for runs/, compare.md, compare.json and epochs.svg", &out);
  options.Add("variants",
              "models (lr, base, wide-deep, pnn, deepfm, din) with +dice +mba +l2 +dropout +filter +product",
              &variants_text);
  options.Add("seeds", "1, 2, ... this many", &seeds, 1, 1000);
  options.Add("runs", "stop after this many trainings, 0: when all are done", &most_runs, 0, 1'000'000);
  if (WantsHelp(arguments)) {
    std::printf(
        "din-train compare --data DIR --out DIR [options]\n"
        "Trains every variant with every seed; runs that are in --out already are not run again.\n%s",
        options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("data", source.data));
  DIN_RETURN_IF_ERROR(Required("out", out));
  const std::vector<std::string> variants = absl::StrSplit(variants_text, ',');
  for (const std::string& variant : variants) DIN_RETURN_IF_ERROR(Apply(variant, lambdas, training));
  const std::vector<std::string> values = common.Values();
  DIN_ASSIGN_OR_RETURN(const Runs runs, Runs::Open(out, values));

  std::optional<Dataset> data;
  std::vector<RunResult> results;
  int done_now = 0;
  size_t missing = 0;
  for (int seed = 1; seed <= seeds; ++seed) {
    for (const std::string& variant : variants) {
      if (!runs.Has(variant, seed)) {
        if (most_runs > 0 && done_now == most_runs) {
          ++missing;
          continue;
        }
        if (!data) {
          Progress progress(stderr);
          DIN_ASSIGN_OR_RETURN(data, source.Read(progress));
          WarnOfSlowMatrices();
        }
        training.seed = seed;
        DIN_RETURN_IF_ERROR(Apply(variant, lambdas, training));
        DIN_ASSIGN_OR_RETURN(const RunResult run, RunOne(*data, source, training, variant));
        std::fprintf(stderr, "%s, seed %d: test user AUC %.4f, epoch %d of %zu, %.0f s of CPU\n", variant.c_str(), seed,
                     run.test.user_auc, run.best_epoch, run.epochs.size(), run.cpu_seconds);
        DIN_RETURN_IF_ERROR(runs.Put(run));
        ++done_now;
      }
      DIN_ASSIGN_OR_RETURN(RunResult run, runs.Get(variant, seed));
      results.push_back(std::move(run));
    }
  }
  // In the order of the variants, whatever the order of the runs.
  std::ranges::stable_sort(
      results, {}, [&](const RunResult& run) { return std::ranges::find(variants, run.variant) - variants.begin(); });
  const std::vector<Comparison> rows = Compare(results);
  std::fputs(FormatTable(rows, TableStyle::kTerminal).c_str(), stdout);
  if (missing > 0) {
    std::printf("%zu runs of %zu are missing: the same command goes on\n", missing, variants.size() * seeds);
    return absl::OkStatus();
  }
  const std::filesystem::path directory(out);
  DIN_RETURN_IF_ERROR(WriteAll(directory / "compare.md", FormatTable(rows, TableStyle::kMarkdown)));
  DIN_RETURN_IF_ERROR(WriteAll(directory / "compare.json", FormatJson(rows, results, nlohmann::json(values).dump())));
  const std::string plot = PlotEpochs(results, Plotted(variants), "Held-out user AUC over epochs");
  if (!plot.empty()) DIN_RETURN_IF_ERROR(WriteAll(directory / "epochs.svg", plot));
  std::printf("written: %s/compare.md, compare.json%s\n", out.c_str(), plot.empty() ? "" : ", epochs.svg");
  return absl::OkStatus();
}

}  // namespace din
