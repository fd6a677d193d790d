// How much a new version's scores differ from those of the live one: the gate for models that are whole, reproduce
// their golden scores, and are wrong all the same.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/din_model.h"
#include "proto/model_spec.pb.h"

namespace din {

class LoadControl;

struct DriftBounds {
  double largest_change = std::numeric_limits<double>::infinity();  // of a score
  double mean_change = std::numeric_limits<double>::infinity();     // |change|, over all scores
  double rank_correlation = -1;                                     // at least; mean of Spearman's rho over the cases

  bool any() const {
    return largest_change < std::numeric_limits<double>::infinity() ||
           mean_change < std::numeric_limits<double>::infinity() || rank_correlation > -1;
  }
};

struct Drift {
  double largest_change = 0;
  std::string largest_case;  // where that was
  double mean_change = 0;
  double rank_correlation = 1;  // 1 where the live version gives no case two scores that differ
};

// Both models score the requests of `cases`. FAILED_PRECONDITION when the live one cannot: it wants other features.
// CANCELLED by the control, which may be null.
absl::StatusOr<Drift> MeasureDrift(const DinModel& live, const DinModel& next, const std::vector<v1::GoldenCase>& cases,
                                   const LoadControl* control);

// FAILED_PRECONDITION with all figures and the bound that was passed.
absl::Status CheckDrift(const Drift& drift, const DriftBounds& bounds);

}  // namespace din
