// How good scores are against labels. DIN, section 6.2.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "trainer/samples.h"

namespace din {

struct Metrics {
  size_t samples = 0;
  // sum over users of impressions * AUC / sum of impressions. Users whose labels are all alike have no AUC: they are
  // left out of both sums and counted.
  double user_auc = 0;
  size_t users = 0;
  size_t one_class_users = 0;
  double auc = 0;          // over all samples together
  double log_loss = 0;     // mean, natural logarithm
  double calibration = 0;  // sum of scores / sum of labels
  // Samples by score, lowest first, in ten parts of equal size (as far as the number allows).
  struct Decile {
    double predicted = 0;  // mean score
    double observed = 0;   // mean label
  };
  std::vector<Decile> deciles;  // empty for fewer than ten samples
};

// scores[i] in [0, 1] is for samples[i]. An AUC that does not exist (one class only) is NaN, and so is the calibration
// when nothing was clicked. With a score that is NaN, the AUC and the log loss are.
Metrics Evaluate(std::span<const Sample> samples, std::span<const float> scores);

// The part of the (positive, negative) pairs that scores order rightly; a tie is half a pair. NaN for one class, or a NaN.
double Auc(std::span<const float> labels, std::span<const float> scores);

// RelaImpr (DIN, section 6.2), in per cent: how much further from chance than the base an AUC is.
double RelaImpr(double auc, double base_auc);

}  // namespace din
