// din-load's command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/load/engine.h"
#include "bench/load/find_max.h"
#include "bench/load/objective.h"
#include "bench/load/request_draw.h"
#include "bench/load/schedule.h"

namespace din::load {

struct Options {
  Target target;
  double connect_seconds = 10;

  // Load. `profile` wins over rate and duration.
  double rate = 1000;
  double seconds = 30;
  std::optional<Schedule> profile;
  double warm_up_seconds = 2;
  Arrivals arrivals = Arrivals::kPoisson;
  uint64_t seed = 1;
  EngineOptions engine;

  // Requests: `requests_file`, or `expect_file` alone, or drawn.
  std::string requests_file;
  std::string expect_file;
  double tolerance = 0;  // of expected scores; 0: each case's own
  std::string record_file;
  DrawOptions draw;

  // What to do; at most one of the two, else a single run.
  std::optional<Objective> find_max;
  FindMaxOptions search;
  std::vector<double> sweep;

  int server_pid = 0;     // 0: not known
  std::string json_file;  // "-": standard output
  std::string html_file;
};

// INVALID_ARGUMENT: the option, its value, and what it takes.
absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments);

// "1000,2000,5000", or "FROM..TO/N": N rates with equal ratios between them.
absl::StatusOr<std::vector<double>> ParseRates(const std::string& text);

std::string HelpText();

}  // namespace din::load
