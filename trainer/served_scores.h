// Whether what is served is what was trained.
#pragma once

#include <span>
#include <string>

#include "absl/status/status.h"
#include "trainer/metrics.h"
#include "trainer/samples.h"

namespace din {

// "libtorch: user AUC 0.7935 …", a line on stdout.
void PrintMetrics(const std::string& what, const Metrics& metrics);

// Prints the metrics of both and the largest difference of two scores of one sample. FAILED_PRECONDITION when that is
// beyond `tolerance` (or not a number), or when the AUCs differ in the fourth decimal.
absl::Status CompareServed(std::span<const Sample> samples, std::span<const float> trained,
                           std::span<const float> served, double tolerance);

}  // namespace din
