#include "bench/load/schedule.h"

#include <cmath>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace din::load {
namespace {

double RequestsIn(const Schedule::Piece& piece) { return (piece.begin_rate + piece.end_rate) / 2 * piece.seconds; }

absl::StatusOr<Schedule::Piece> ParsePiece(const std::string& text) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(absl::StrCat("profile: \"", text, "\" is not RATE:TIME or RATE..RATE:TIME"));
  };
  const std::vector<std::string> halves = absl::StrSplit(text, ':');
  if (halves.size() != 2) return bad();
  const std::vector<std::string> rates = absl::StrSplit(halves[0], "..");
  Schedule::Piece piece;
  absl::Duration time;
  if (rates.size() > 2 || !absl::SimpleAtod(rates.front(), &piece.begin_rate) ||
      !absl::SimpleAtod(rates.back(), &piece.end_rate) || !absl::ParseDuration(halves[1], &time)) {
    return bad();
  }
  piece.seconds = absl::ToDoubleSeconds(time);
  return piece;
}

}  // namespace

absl::StatusOr<Schedule> Schedule::Create(std::vector<Piece> pieces) {
  double requests = 0;
  for (const Piece& piece : pieces) {
    for (const double rate : {piece.begin_rate, piece.end_rate}) {
      if (!(rate >= 0 && rate <= 1e7)) {
        return absl::InvalidArgumentError(absl::StrCat("rate: ", rate, " is not within [0, 1e7] requests/s"));
      }
    }
    if (!(piece.seconds > 0 && piece.seconds <= 1e6)) {
      return absl::InvalidArgumentError(absl::StrCat("duration: ", piece.seconds, " is not within (0, 1e6] s"));
    }
    requests += RequestsIn(piece);
  }
  if (requests < 1) return absl::InvalidArgumentError("schedule: not a single request in it");
  return Schedule(std::move(pieces));
}

absl::StatusOr<Schedule> Schedule::Parse(std::string_view text) {
  std::vector<Piece> pieces;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(std::string(text), ','))) {
    absl::StatusOr<Piece> piece = ParsePiece(part);
    if (!piece.ok()) return piece.status();
    pieces.push_back(*piece);
  }
  return Create(std::move(pieces));
}

Schedule Schedule::WithWarmUp(double seconds) const {
  if (seconds <= 0) return *this;
  std::vector<Piece> pieces = pieces_;
  const double rate = pieces.front().begin_rate;
  pieces.insert(pieces.begin(), {rate, rate, seconds});
  return Schedule(std::move(pieces));
}

double Schedule::Seconds() const {
  return std::accumulate(pieces_.begin(), pieces_.end(), 0.0, [](double s, const Piece& p) { return s + p.seconds; });
}

double Schedule::Requests() const {
  return std::accumulate(pieces_.begin(), pieces_.end(), 0.0,
                         [](double s, const Piece& p) { return s + RequestsIn(p); });
}

double Schedule::RateAt(double seconds) const {
  for (const Piece& piece : pieces_) {
    if (seconds < piece.seconds)
      return piece.begin_rate + (piece.end_rate - piece.begin_rate) * seconds / piece.seconds;
    seconds -= piece.seconds;
  }
  return 0;
}

std::optional<double> Schedule::TimeOf(double n) const {
  double begin = 0;
  for (const Piece& piece : pieces_) {
    const double here = RequestsIn(piece);
    if (n < here) {
      // Solves begin_rate t + (end_rate - begin_rate) t^2 / (2 seconds) = n in the form that does not cancel.
      const double slope = (piece.end_rate - piece.begin_rate) / piece.seconds;
      const double root = std::sqrt(std::max(0.0, piece.begin_rate * piece.begin_rate + 2 * slope * n));
      return n == 0 ? begin : begin + 2 * n / (piece.begin_rate + root);
    }
    n -= here;
    begin += piece.seconds;
  }
  return std::nullopt;
}

ArrivalStream::ArrivalStream(const Schedule& schedule, Arrivals arrivals, uint64_t seed)
    : schedule_(schedule), arrivals_(arrivals), rng_(seed) {}

std::optional<int64_t> ArrivalStream::Next() {
  if (arrivals_ == Arrivals::kPoisson) n_ += gap_(rng_);
  const std::optional<double> time = schedule_.TimeOf(n_);
  if (arrivals_ == Arrivals::kConstant) n_ += 1;
  if (!time) return std::nullopt;
  return std::llround(*time * 1e9);
}

}  // namespace din::load
