// When requests are sent, decided before anything is known of the answers: that is what makes the load open-loop.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace din::load {

// A rate over time: pieces that hold a rate (a step) or go from one to another (a ramp). Immutable.
class Schedule {
 public:
  struct Piece {
    double begin_rate = 0;  // requests/s
    double end_rate = 0;
    double seconds = 0;
  };

  // INVALID_ARGUMENT: no pieces, a negative or infinite rate, a time that is not positive, no request at all.
  static absl::StatusOr<Schedule> Create(std::vector<Piece> pieces);
  // "RATE:TIME" or "RATE..RATE:TIME", with commas between: "2000:10s,2000..8000:30s,2000:10s".
  static absl::StatusOr<Schedule> Parse(std::string_view text);

  // The same with `seconds` of the first piece's beginning in front of it.
  Schedule WithWarmUp(double seconds) const;

  double Seconds() const;
  double Requests() const;  // expected number: the integral of the rate
  double MeanRate() const { return Requests() / Seconds(); }
  double RateAt(double seconds) const;
  // The time at which the integral of the rate reaches n; none beyond Requests().
  std::optional<double> TimeOf(double n) const;

 private:
  explicit Schedule(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {}
  std::vector<Piece> pieces_;
};

enum class Arrivals {
  kPoisson,   // independent users: gaps are exponential, bursts happen
  kConstant,  // evenly spaced
};

// The arrivals of a schedule one after the other: unit-rate arrivals, put through the inverse of the integrated rate.
// The same for the same seed. One thread.
class ArrivalStream {
 public:
  ArrivalStream(const Schedule& schedule, Arrivals arrivals, uint64_t seed);
  // Nanoseconds since the beginning, ascending; none after the end.
  std::optional<int64_t> Next();

 private:
  Schedule schedule_;
  Arrivals arrivals_;
  std::mt19937_64 rng_;
  std::exponential_distribution<double> gap_{1.0};
  double n_ = 0;
};

}  // namespace din::load
