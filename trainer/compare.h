// The paper's table on one data set: models by seeds, paired differences, and what they do not tell apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/metrics.h"
#include "trainer/train.h"

namespace din {

// One training: a model's name with what is added to it, "din+dice+mba", and a seed.
struct RunResult {
  std::string variant;
  uint64_t seed = 0;
  std::vector<EpochReport> epochs;
  int best_epoch = 0;
  Metrics test;  // without deciles
  double seconds = 0;
  double cpu_seconds = 0;
};

// As a JSON object, and back. INVALID_ARGUMENT for one that is none.
std::string FormatRun(const RunResult& run);
absl::StatusOr<RunResult> ParseRun(const std::string& json);

// A mean with its 95 % confidence interval by Student's t: half is NaN for fewer than two values.
struct Estimate {
  double mean = 0;
  double half = 0;

  bool excludes_zero() const { return mean - half > 0 || mean + half < 0; }
};
Estimate Mean95(const std::vector<double>& values);

// One line of the table.
struct Comparison {
  std::string variant;
  size_t seeds = 0;
  Estimate user_auc;
  double auc = 0, log_loss = 0, calibration = 0, cpu_seconds = 0;  // means
  double rela_impr = 0;                                            // of the mean user AUC over the base's
  Estimate over_base;                                              // user AUC less the base's, paired by seed
  Estimate under_best;  // the best variant's user AUC less this one's, paired by seed
  enum Verdict { kBase, kAhead, kBehind, kTie };
  Verdict verdict = kTie;  // against the base; kTie when the interval holds zero, or there is none
  bool ties_with_best = false;
};

// In the order in which variants first occur. The base is the variant "base", or else the first; only seeds that both
// have are paired.
std::vector<Comparison> Compare(const std::vector<RunResult>& runs);

enum class TableStyle { kTerminal, kMarkdown };
std::string FormatTable(const std::vector<Comparison>& rows, TableStyle style);

// Everything, for machines.
std::string FormatJson(const std::vector<Comparison>& rows, const std::vector<RunResult>& runs,
                       const std::string& options);

// Held-out AUC over the epochs of these variants, means over the seeds, as an SVG.
std::string PlotEpochs(const std::vector<RunResult>& runs, const std::vector<std::string>& variants,
                       const std::string& title);

}  // namespace din
