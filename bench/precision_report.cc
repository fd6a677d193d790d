// How far scores are from the definition in double, for every arithmetic in which this CPU can score pairs, as
// Markdown. A matrix unit that it lacks is emulated: the roundings are the same. Says nothing about time.
//
//   precision_report
//   precision_report models/ads/7      a model of your own, on its golden cases: what bf16_tolerance can it keep?
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/din_model.h"
#include "model/reference_model.h"
#include "model_loader/snapshot.h"
#include "tests/kernels/arithmetic.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using testing::OrDie;
using testing::RawModel;
using testing::Rng;

constexpr double kBounds[] = {1e-7, 1e-6, 1e-5, 1e-4, 1e-3, std::numeric_limits<double>::infinity()};

class Report {
 public:
  Report(std::string name, const v1::ModelSpec& spec, const TensorMap& tensors)
      : name_(std::move(name)), tensors_(tensors), arithmetics_(SupportedArithmetics()), errors_(arithmetics_.size()) {
    for (const Arithmetic& arithmetic : arithmetics_) {
      const ScopedMatrixUnit scoped(arithmetic.matrix);
      models_.push_back(OrDie(DinModel::Create(spec, tensors, arithmetic.isa, arithmetic.precision)));
    }
  }

  void Add(const v1::GoldenCase& request) {
    const ScoringInput input = testing::DecodeOrDie(models_[0]->decoder(), request);
    const auto exact = OrDie(reference::Score<double>(models_[0]->resolved(), tensors_, input));
    std::vector<float> scores(input.candidates);
    for (size_t m = 0; m < models_.size(); ++m) {
      models_[m]->Score(input, workspace_, scores);
      for (size_t c = 0; c < scores.size(); ++c) errors_[m].push_back(std::abs(scores[c] - exact.scores[c]));
    }
  }

  void Print() {
    for (size_t m = 0; m < models_.size(); ++m) {
      std::vector<double>& errors = errors_[m];
      std::sort(errors.begin(), errors.end());
      const auto last = static_cast<double>(errors.size() - 1);
      std::printf("| %s | %s |", name_.c_str(), arithmetics_[m].Name().c_str());
      for (const double quantile : {0.5, 0.99, 1.0}) {
        std::printf(" %.1e |", errors[static_cast<size_t>(quantile * last)]);
      }
      auto first = errors.begin();
      for (const double bound : kBounds) {
        const auto end = std::lower_bound(first, errors.end(), bound);
        const auto share = static_cast<double>(end - first) / static_cast<double>(errors.size());
        std::printf(" %s |", end == first ? "" : absl::StrFormat("%.1f %%", 100 * share).c_str());
        first = end;
      }
      std::printf("\n");
    }
    std::fflush(stdout);
  }

 private:
  const std::string name_;
  const TensorMap& tensors_;
  const std::vector<Arithmetic> arithmetics_;
  std::vector<std::unique_ptr<const DinModel>> models_;
  std::vector<std::vector<double>> errors_;  // of each model's scores
  Workspace workspace_;
};

void ReportRandom(const std::string& name, const RawModel& raw, size_t behaviours, size_t requests) {
  Report report(absl::StrCat(name, ", ", behaviours), raw.spec, raw.tensors);
  Rng rng(5);
  for (size_t r = 0; r < requests; ++r) {
    report.Add(testing::RandomRequest(rng, raw.spec, raw.tensors, {50, behaviours, 0}));
  }
  report.Print();
}

int Main(int argc, char** argv) {
  if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
    std::fprintf(stderr, "precision_report [SNAPSHOT]: errors of every arithmetic against the definition in double\n");
    return 2;
  }
  std::printf("| %s | arithmetic | median | p99 | largest |", argc == 2 ? "model" : "model, behaviours");
  for (const double bound : kBounds) std::printf(bound < 1 ? " < %.0e |" : " more |", bound);
  std::printf("\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  if (argc == 2) {
    const auto snapshot = OrDie(OpenWithBases(argv[1], {}));
    Report report(argv[1], snapshot->spec(), snapshot->tensors());
    for (const v1::GoldenCase& golden : snapshot->golden()) report.Add(golden);
    report.Print();
    return 0;
  }
  for (const auto& [behaviours, requests] : {std::pair<size_t, size_t>{50, 20}, {100, 20}, {1000, 4}}) {
    // Their logits spread by 1.5 at that length.
    ReportRandom("paper", testing::PaperModel({.behaviours = behaviours}), behaviours, requests);
    ReportRandom("compact", testing::CompactModel({.behaviours = behaviours}), behaviours, requests);
  }
  return 0;
}

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) { return din::bench::Main(argc, argv); }
