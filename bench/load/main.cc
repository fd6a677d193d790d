// din-load: connects, prepares the requests, runs, reports.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/client_context.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/load/options.h"
#include "bench/load/process_usage.h"
#include "bench/load/report.h"
#include "bench/load/request_file.h"
#include "bench/load/request_set.h"
#include "nlohmann/json.hpp"
#include "proto/scoring.grpc.pb.h"

namespace din::load {
namespace {

std::atomic<bool> stop{false};

// The first Ctrl-C ends the run and reports it, the second ends the program.
void OnSignal(int signal) {
  stop = true;
  std::signal(signal, SIG_DFL);
}

absl::StatusOr<v1::GetModelMetadataResponse> Metadata(const Channels& channels, const std::string& model) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetModelMetadataRequest request;
  request.set_model(model);
  v1::GetModelMetadataResponse response;
  const auto stub = v1::ScoringService::NewStub(channels.front());
  if (const grpc::Status status = stub->GetModelMetadata(&context, request, &response); !status.ok()) {
    return absl::UnavailableError(absl::StrCat("GetModelMetadata: ", status.error_message()));
  }
  return response;
}

absl::StatusOr<std::vector<v1::ScoreRequest>> Requests(const Options& options,
                                                       const std::vector<v1::GoldenCase>& expected,
                                                       const absl::StatusOr<v1::GetModelMetadataResponse>& metadata) {
  if (!options.requests_file.empty()) return ReadRequests(options.requests_file);
  if (!expected.empty()) {
    std::vector<v1::ScoreRequest> requests;
    for (const v1::GoldenCase& golden : expected) requests.push_back(RequestOf(golden, options.draw.model));
    return requests;
  }
  if (!metadata.ok()) return metadata.status();
  return DrawRequests(*metadata, options.draw);
}

absl::StatusOr<RequestSet> Prepare(const Options& options,
                                   const absl::StatusOr<v1::GetModelMetadataResponse>& metadata) {
  std::vector<v1::GoldenCase> expected;
  if (!options.expect_file.empty()) {
    absl::StatusOr<std::vector<v1::GoldenCase>> cases = ReadCases(options.expect_file);
    if (!cases.ok()) return cases.status();
    expected = *std::move(cases);
    for (v1::GoldenCase& golden : expected) {
      if (options.tolerance > 0) golden.set_tolerance(options.tolerance);
    }
  }
  const absl::StatusOr<std::vector<v1::ScoreRequest>> requests = Requests(options, expected, metadata);
  if (!requests.ok()) return requests.status();
  if (!expected.empty() && expected.size() != requests->size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.expect_file, ": ", expected.size(), " cases for ", requests->size(), " requests"));
  }
  if (!options.record_file.empty()) {
    if (absl::Status status = WriteRequests(options.record_file, *requests); !status.ok()) return status;
  }
  const std::string& file = options.requests_file.empty() ? options.expect_file : options.requests_file;
  RequestSetBuilder builder(file.empty() ? options.draw.Describe() : file);
  for (size_t r = 0; r < requests->size(); ++r) {
    if (expected.empty()) {
      builder.Add((*requests)[r]);
    } else if (absl::Status status = builder.AddExpecting((*requests)[r], expected[r]); !status.ok()) {
      return status;
    }
  }
  return std::move(builder).Build();
}

// A line that rewrites itself on a terminal, and one every ten seconds elsewhere.
void ShowLive(const LiveState& state) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (!terminal && static_cast<int64_t>(state.seconds + 0.5) % 10 != 0) return;
  const auto ms = [](int64_t ns) { return static_cast<double>(ns) * 1e-6; };
  absl::FPrintF(stderr, "%s%6.0f s%s  %7d/s  good %7d/s  p50 %8.2f ms  p99 %8.2f ms  in flight %5d  errors %d%s",
                terminal ? "\r" : "", state.seconds, state.warm_up ? " (warm-up)" : "", state.recent.sent,
                state.recent.good, ms(state.recent.latency.Quantile(0.5)), ms(state.recent.latency.Quantile(0.99)),
                state.in_flight, state.recent.errors, terminal ? "\x1b[K" : "\n");
  std::fflush(stderr);
}

// Runs and summarises; knows what all runs of this program have in common.
class Runner {
 public:
  Runner(const Options& options, const Channels& channels, const RequestSet& requests, Report& report)
      : options_(options), channels_(channels), requests_(requests), report_(report) {}

  const RunSummary& Once(const std::string& role, const Schedule& schedule) {
    const RunPlan plan{.schedule = schedule.WithWarmUp(options_.warm_up_seconds),
                       .warm_up_seconds = options_.warm_up_seconds,
                       .arrivals = options_.arrivals,
                       .seed = options_.seed + report_.runs.size()};
    const auto before = ReadProcessUsage(options_.server_pid);
    const absl::Time begin = absl::Now();
    const RunOutcome outcome = Run(channels_, requests_, plan, options_.engine, stop, ShowLive);
    const double wall = absl::ToDoubleSeconds(absl::Now() - begin);
    if (isatty(STDERR_FILENO) != 0) std::fputs("\r\x1b[K", stderr);
    RunSummary summary = Summarise(outcome, options_.find_max);
    summary.role = role;
    summary.offered_rate = schedule.MeanRate();
    summary.client_cores = outcome.client_cpu_seconds / wall;
    if (const auto after = ReadProcessUsage(options_.server_pid); before && after) {
      summary.server_cores = (after->cpu_seconds - before->cpu_seconds) / wall;
      summary.server_bytes = after->resident_bytes;
    }
    if (options_.engine.scheduling == Scheduling::kRealtime) {
      report_.scheduling = outcome.realtime ? "realtime" : "ordinary (realtime was refused)";
    }
    return report_.runs.emplace_back(std::move(summary));
  }

  absl::Status Single() {
    absl::StatusOr<Schedule> schedule = options_.profile ? *options_.profile : Constant(options_.rate);
    if (!schedule.ok()) return schedule.status();
    Print(ToTable(Once("run", *schedule)));
    return absl::OkStatus();
  }

  absl::Status Sweep() {
    Print(ToLineHeader());
    for (const double rate : options_.sweep) {
      const absl::StatusOr<Schedule> schedule = Constant(rate);
      if (!schedule.ok()) return schedule.status();
      if (stop) break;
      Print(ToLine(Once("sweep", *schedule)));
    }
    return absl::OkStatus();
  }

  absl::Status Maximum() {
    Print(ToLineHeader());
    const auto probe = [this](double rate) -> absl::StatusOr<Verdict> {
      const absl::StatusOr<Schedule> schedule = Constant(rate);
      if (!schedule.ok()) return schedule.status();
      if (stop) return absl::CancelledError("stopped before the highest rate was found");
      const RunSummary& run = Once("probe", *schedule);
      Print(ToLine(run));
      if (!Meets(run, *options_.find_max)) return Verdict::kMissed;
      return run.invalid.empty() ? Verdict::kMet : Verdict::kUnproven;
    };
    absl::StatusOr<FindMaxResult> result = FindMax(options_.search, probe);
    if (!result.ok()) return result.status();
    report_.max = *result;
    Print(absl::StrFormat("\n%.0f requests/s is the highest rate with %s (bounded by %s)\n", result->rate,
                          options_.find_max->text, result->bounded_by));
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Schedule> Constant(double rate) const { return Schedule::Create({{rate, rate, options_.seconds}}); }

  // JSON on standard output must stay alone there.
  void Print(const std::string& text) const {
    std::FILE* file = options_.json_file == "-" ? stderr : stdout;
    std::fputs(text.c_str(), file);
    std::fflush(file);
  }

  const Options& options_;
  const Channels& channels_;
  const RequestSet& requests_;
  Report& report_;
};

Report Describe(const Options& options, const RequestSet& requests,
                const absl::StatusOr<v1::GetModelMetadataResponse>& metadata) {
  Report report;
  report.started = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  report.machine = bench::DescribeMachine();
  report.address = options.target.address;
  if (metadata.ok()) {
    report.model = metadata->model();
    report.version = metadata->version();
    report.digest = metadata->digest();
    report.instruction_set = metadata->instruction_set();
  }
  report.requests = requests.source;
  report.distinct_requests = requests.requests.size();
  report.mean_bytes = requests.mean_bytes;
  report.mean_candidates = requests.mean_candidates;
  report.mean_behaviours = requests.mean_behaviours;
  report.arrivals = options.arrivals == Arrivals::kPoisson ? "poisson" : "constant";
  report.connections = options.target.connections;
  report.threads = options.engine.threads;
  report.deadline_ms = static_cast<double>(options.engine.deadline_ns) * 1e-6;
  report.warm_up_seconds = options.warm_up_seconds;
  report.scheduling = "ordinary";
  report.objective = options.find_max;
  return report;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  return file.flush() ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
}

absl::Status WriteReport(const Options& options, const Report& report) {
  absl::Status status;
  if (!options.json_file.empty()) {
    status = WriteFile(options.json_file,
                       ToJson(report).dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  if (!options.html_file.empty()) status.Update(WriteFile(options.html_file, ToHtml(report)));
  return status;
}

absl::StatusOr<Report> RunAll(const Options& options, const std::string& command) {
  const absl::StatusOr<Channels> channels = Connect(options.target, options.connect_seconds);
  if (!channels.ok()) return channels.status();
  const absl::StatusOr<v1::GetModelMetadataResponse> metadata = Metadata(*channels, options.draw.model);
  const absl::StatusOr<RequestSet> requests = Prepare(options, metadata);
  if (!requests.ok()) return requests.status();
  Report report = Describe(options, *requests, metadata);
  report.command = command;
  Runner runner(options, *channels, *requests, report);
  absl::Status status;
  if (options.find_max) {
    status = runner.Maximum();
  } else {
    status = options.sweep.empty() ? runner.Single() : runner.Sweep();
  }
  // What was measured until then is still worth writing.
  status.Update(WriteReport(options, report));
  if (!status.ok()) return status;
  return report;
}

// A probe that is invalid only bounds the search.
int ExitCode(const Report& report) {
  int code = 0;
  for (const RunSummary& run : report.runs) {
    if (run.errors.contains(std::string(Name(kWrongAnswer)))) return 4;
    if (!run.invalid.empty() && run.role != "probe") code = 3;
  }
  return code;
}

std::string Quoted(const std::string& word) {
  if (word.find_first_of(" <>$&;|*?\"'()") == std::string::npos) return word;
  return absl::StrCat("'", word, "'");
}

int Main(const std::vector<std::string>& arguments) {
  std::string command = "din-load";
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") {
      std::fputs(HelpText().c_str(), stdout);
      return 0;
    }
    absl::StrAppend(&command, " ", Quoted(argument));
  }
  const absl::StatusOr<Options> options = ParseOptions(arguments);
  if (!options.ok()) {
    absl::FPrintF(stderr, "din-load: %s\n", std::string(options.status().message()));
    return 2;
  }
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  const absl::StatusOr<Report> report = RunAll(*options, command);
  if (!report.ok()) {
    absl::FPrintF(stderr, "din-load: %s\n", std::string(report.status().message()));
    return 1;
  }
  return ExitCode(*report);
}

}  // namespace
}  // namespace din::load

int main(int argc, char** argv) { return din::load::Main(std::vector<std::string>(argv + 1, argv + argc)); }
