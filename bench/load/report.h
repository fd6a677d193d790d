// What din-load tells: a table for the terminal, JSON for programs, one HTML file for people.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/load/find_max.h"
#include "bench/load/objective.h"
#include "bench/load/summary.h"
#include "bench/machine.h"
#include "nlohmann/json_fwd.hpp"

namespace din::load {

struct Report {
  std::string command;  // as it was typed
  std::string started;  // RFC 3339
  bench::Machine machine;
  std::string address;
  std::string model;  // empty where the server told nothing of it
  int64_t version = 0;
  std::string digest;
  std::string instruction_set;
  std::string requests;  // where they come from
  size_t distinct_requests = 0;
  double mean_bytes = 0;
  double mean_candidates = 0;
  double mean_behaviours = 0;
  std::string arrivals;  // "poisson" or "constant"
  int connections = 0;
  int threads = 0;
  double deadline_ms = 0;  // 0: none
  double warm_up_seconds = 0;
  std::string scheduling;  // of the generator's threads
  std::optional<Objective> objective;
  std::optional<FindMaxResult> max;
  std::vector<RunSummary> runs;
};

// The members are described in docs/benchmarks.md ("The JSON of din-load"); times are in microseconds.
nlohmann::json ToJson(const Report& report);

// A page that needs nothing else: no network, no other file.
std::string ToHtml(const Report& report);

// One run, over several lines.
std::string ToTable(const RunSummary& run);
// One run in a line, under ToLineHeader().
std::string ToLine(const RunSummary& run);
std::string ToLineHeader();

}  // namespace din::load
