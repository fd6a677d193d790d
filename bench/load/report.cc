#include "bench/load/report.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "bench/load/report_page.h"
#include "nlohmann/json.hpp"

namespace din::load {
namespace {

using nlohmann::json;

json ToJson(const Quantiles& q) {
  return {{"p50", q.p50},   {"p90", q.p90}, {"p95", q.p95},   {"p99", q.p99},
          {"p999", q.p999}, {"max", q.max}, {"mean", q.mean}, {"count", q.count}};
}

json ToJson(const Timeline& t) {
  return {{"slice_s", t.slice_seconds}, {"sent", t.sent},     {"good", t.good},     {"errors", t.errors},
          {"p50_us", t.p50_us},         {"p99_us", t.p99_us}, {"max_us", t.max_us}, {"worst_lag_us", t.worst_lag_us}};
}

json ToJson(const RunSummary& run) {
  json out = {{"role", run.role},
              {"offered_rate", run.offered_rate},
              {"seconds", run.seconds},
              {"valid", run.invalid.empty()},
              {"invalid_because", run.invalid},
              {"sent", run.sent},
              {"ok", run.ok},
              {"good", run.good},
              {"goodput", run.goodput},
              {"errors", run.errors},
              {"wrong_answers", run.wrong},
              {"latency_us", ToJson(run.latency)},
              {"refusal_us", ToJson(run.refusal)},
              {"lag_us", ToJson(run.lag)},
              {"percentiles_us", run.percentiles},
              {"timeline", ToJson(run.timeline)},
              {"client_cores", run.client_cores}};
  out["events"] = json::array();
  for (const Event& event : run.events) {
    const char* kind = event.kind == Event::Kind::kSwap ? "swap" : "errors";
    out["events"].push_back({{"t", event.seconds}, {"kind", kind}, {"text", event.text}});
  }
  out["versions"] = json::object();
  for (const auto& [version, answers] : run.versions) out["versions"][absl::StrCat(version)] = answers;
  if (run.server_cores) {
    out["server_cores"] = *run.server_cores;
    if (*run.server_cores > 0) out["goodput_per_core"] = run.goodput / *run.server_cores;
  }
  if (run.server_bytes) out["server_resident_bytes"] = *run.server_bytes;
  if (run.at_objective_us != 0) out["at_objective_us"] = run.at_objective_us;
  return out;
}

// "812 us", "4.25 ms", "1.30 s".
std::string Time(double us) {
  if (us < 0) return "never";
  if (us < 1000) return absl::StrFormat("%.0f us", us);
  if (us < 1e6) return absl::StrFormat("%.2f ms", us / 1e3);
  return absl::StrFormat("%.2f s", us / 1e6);
}

std::string Row(const char* name, const Quantiles& q) {
  return absl::StrFormat("  %-9s %10s %10s %10s %10s %10s %10s\n", name, Time(q.p50), Time(q.p90), Time(q.p95),
                         Time(q.p99), Time(q.p999), Time(q.max));
}

}  // namespace

json ToJson(const Report& r) {
  json out = {{"tool", "din-load"},
              {"format", 1},
              {"command", r.command},
              {"started", r.started},
              {"machine",
               {{"cpu", r.machine.cpu},
                {"cores", r.machine.cores},
                {"memory_bytes", r.machine.memory_bytes},
                {"kernel", r.machine.kernel}}},
              {"server",
               {{"address", r.address},
                {"model", r.model},
                {"version", r.version},
                {"digest", r.digest},
                {"instruction_set", r.instruction_set}}},
              {"requests",
               {{"source", r.requests},
                {"distinct", r.distinct_requests},
                {"mean_bytes", r.mean_bytes},
                {"mean_candidates", r.mean_candidates},
                {"mean_behaviours", r.mean_behaviours}}},
              {"load",
               {{"arrivals", r.arrivals},
                {"connections", r.connections},
                {"threads", r.threads},
                {"deadline_ms", r.deadline_ms},
                {"warm_up_s", r.warm_up_seconds},
                {"scheduling", r.scheduling}}},
              {"runs", json::array()}};
  for (const RunSummary& run : r.runs) out["runs"].push_back(ToJson(run));
  if (r.objective) {
    out["objective"] = {
        {"text", r.objective->text}, {"quantile", r.objective->quantile}, {"limit_us", r.objective->limit_ns / 1e3}};
  }
  if (r.max) out["max"] = {{"rate", r.max->rate}, {"bounded_by", r.max->bounded_by}};
  return out;
}

std::string ToHtml(const Report& report) {
  // "<" would let a string of the data end the script element.
  const std::string data =
      absl::StrReplaceAll(ToJson(report).dump(-1, ' ', true, json::error_handler_t::replace), {{"<", "\\u003c"}});
  return absl::StrReplaceAll(std::string(kReportPage), {{"/*DATA*/null", data}});
}

std::string ToTable(const RunSummary& run) {
  std::string out = absl::StrFormat("\n  %.0f requests/s offered for %.4g s: %d sent, %d right answers",
                                    run.offered_rate, run.seconds, run.sent, run.ok);
  absl::StrAppend(&out, absl::StrFormat(", goodput %.1f/s\n\n", run.goodput));
  absl::StrAppend(
      &out, absl::StrFormat("  %-9s %10s %10s %10s %10s %10s %10s\n", "", "p50", "p90", "p95", "p99", "p99.9", "max"));
  absl::StrAppend(&out, Row("latency", run.latency));
  if (run.refusal.count > 0) absl::StrAppend(&out, Row("refusals", run.refusal));
  absl::StrAppend(&out, Row("send lag", run.lag), "\n");
  for (const auto& [name, count] : run.errors) {
    absl::StrAppend(&out, absl::StrFormat("  %-19s %d (%.3g %%)\n", name, count, 100.0 * count / run.sent));
  }
  for (const std::string& reason : run.wrong) absl::StrAppend(&out, "  wrong: ", reason, "\n");
  for (const Event& event : run.events) {
    absl::StrAppend(&out, absl::StrFormat("  at %8.2f s       %s\n", event.seconds, event.text));
  }
  absl::StrAppend(&out, absl::StrFormat("  generator           %.2f cores\n", run.client_cores));
  if (run.server_cores) {
    absl::StrAppend(&out, absl::StrFormat("  server              %.2f cores, %.1f good answers per core-second\n",
                                          *run.server_cores, run.goodput / std::max(1e-9, *run.server_cores)));
  }
  if (run.invalid.empty()) {
    absl::StrAppend(&out, "  VALID\n");
  }
  for (const std::string& reason : run.invalid) absl::StrAppend(&out, "  INVALID: ", reason, "\n");
  return out;
}

std::string ToLineHeader() {
  return absl::StrFormat("%10s %10s %10s %10s %10s %10s %9s %9s  %s\n", "offered/s", "goodput/s", "p50", "p90", "p99",
                         "p99.9", "errors", "lag p99", "");
}

std::string ToLine(const RunSummary& run) {
  std::string note;
  if (run.server_cores) note = absl::StrFormat("server %.2f cores ", *run.server_cores);
  return absl::StrFormat("%10.0f %10.1f %10s %10s %10s %10s %9d %9s  %s%s\n", run.offered_rate, run.goodput,
                         Time(run.latency.p50), Time(run.latency.p90), Time(run.latency.p99), Time(run.latency.p999),
                         run.sent - run.ok, Time(run.lag.p99), note, run.invalid.empty() ? "" : "INVALID");
}

}  // namespace din::load
