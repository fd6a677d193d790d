#include "trainer/served_scores.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"

namespace din {

void PrintMetrics(const std::string& what, const Metrics& m) {
  std::printf(
      "%s: user AUC %.4f (%zu users, %zu of one class left out)  AUC %.4f  log loss %.4f  calibration %.3f  "
      "(%zu samples)\n",
      what.c_str(), m.user_auc, m.users, m.one_class_users, m.auc, m.log_loss, m.calibration, m.samples);
}

absl::Status CompareServed(std::span<const Sample> samples, std::span<const float> trained,
                           std::span<const float> served, double tolerance) {
  double largest = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const double difference = std::abs(static_cast<double>(served[i]) - trained[i]);
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(largest)) break;
  }
  const Metrics of_trained = Evaluate(samples, trained);
  const Metrics of_served = Evaluate(samples, served);
  PrintMetrics("libtorch", of_trained);
  PrintMetrics("served  ", of_served);
  std::printf("largest difference of a score: %.2g over %zu samples\n", largest, samples.size());
  if (!(largest <= tolerance)) {
    return absl::FailedPreconditionError(absl::StrFormat("a score differs by %g > limit %g", largest, tolerance));
  }
  constexpr double kFourDecimals = 5e-5;
  const auto differ = [](double a, double b) { return std::abs(a - b) >= kFourDecimals; };
  if (differ(of_trained.user_auc, of_served.user_auc) || differ(of_trained.auc, of_served.auc)) {
    return absl::FailedPreconditionError("an AUC differs in the fourth decimal");
  }
  return absl::OkStatus();
}

}  // namespace din
