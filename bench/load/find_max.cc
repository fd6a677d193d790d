#include "bench/load/find_max.h"

#include <algorithm>
#include <cmath>

namespace din::load {
namespace {

class Search {
 public:
  Search(const FindMaxOptions& options, const std::function<absl::StatusOr<Verdict>(double)>& probe)
      : options_(options), probe_(probe) {}

  absl::StatusOr<FindMaxResult> Find() {
    double rate = std::clamp(options_.start, options_.least, options_.most);
    for (int search = 0;; ++search) {
      const absl::Status status = Bracket(rate);
      if (!status.ok()) return status;
      if (high_ == 0) return FindMaxResult{low_, "--max-rate"};
      if (low_ == 0) return FindMaxResult{0, bound_};
      if (const absl::Status bisected = Bisect(); !bisected.ok()) return bisected;
      // What bounded the answer may have been a bad spell of the machine, minutes ago.
      absl::StatusOr<bool> passes = search < kSearches ? Try(high_) : false;
      if (!passes.ok()) return passes.status();
      if (!*passes) return FindMaxResult{low_, bound_};
      rate = low_;
      high_ = 0;
    }
  }

 private:
  static constexpr int kSearches = 3;

  // Doubles or halves until low_ passed and high_ did not, or one of them cannot be had.
  absl::Status Bracket(double rate) {
    while (high_ == 0 || low_ == 0) {
      if (rate > low_) {
        const absl::StatusOr<bool> passed = Try(rate);
        if (!passed.ok()) return passed.status();
      }
      if (high_ == 0 && low_ >= options_.most) return absl::OkStatus();
      if (low_ == 0 && high_ <= options_.least) return absl::OkStatus();
      rate = high_ == 0 ? std::min(low_ * 2, options_.most) : std::max(high_ / 2, options_.least);
    }
    return absl::OkStatus();
  }

  absl::Status Bisect() {
    while (high_ > low_ * (1 + options_.precision)) {
      const absl::StatusOr<bool> passed = Try(std::sqrt(low_ * high_));
      if (!passed.ok()) return passed.status();
    }
    return absl::OkStatus();
  }

  // Notes the rate as the new end of the bracket.
  absl::StatusOr<bool> Try(double rate) {
    const absl::StatusOr<bool> passed = Passes(rate);
    if (passed.ok()) (*passed ? low_ : high_) = rate;
    return passed;
  }

  absl::StatusOr<bool> Passes(double rate) {
    int met = 0;
    int missed = 0;
    bool unproven = false;
    while (met < 2 && missed < 2) {
      absl::StatusOr<Verdict> verdict = probe_(rate);
      if (!verdict.ok()) return verdict.status();
      (*verdict == Verdict::kMet ? met : missed) += 1;
      unproven = unproven || *verdict == Verdict::kUnproven;
    }
    if (missed == 2) bound_ = unproven ? "the generator" : "the objective";
    return met == 2;
  }

  const FindMaxOptions& options_;
  const std::function<absl::StatusOr<Verdict>(double)>& probe_;
  double low_ = 0;   // passed
  double high_ = 0;  // did not
  std::string bound_;
};

}  // namespace

absl::StatusOr<FindMaxResult> FindMax(const FindMaxOptions& options,
                                      const std::function<absl::StatusOr<Verdict>(double)>& probe) {
  return Search(options, probe).Find();
}

}  // namespace din::load
