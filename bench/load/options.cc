#include "bench/load/options.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/load/flags.h"

namespace din::load {
namespace {

absl::Status ReadIds(const std::string& map, const std::string& path, DrawOptions& draw) {
  std::ifstream file(path);
  std::vector<std::string>& ids = draw.ids[map];
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) ids.push_back(line);
  }
  if (ids.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no ids in it"));
  return absl::OkStatus();
}

absl::Status ParseVersions(const std::string& value, std::set<int64_t>& versions) {
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(value, ','))) {
    int64_t version = 0;
    if (!absl::SimpleAtoi(part, &version) || version < 1) return Bad(value, "versions, such as 3 or 3,4");
    versions.insert(version);
  }
  return absl::OkStatus();
}

std::vector<Flag> TargetFlags(Options& o) {
  return {
      {"", "", "Server", {}},
      {"server", "ADDRESS", "host:port or unix:/path (default: $DIN_SERVER, or 127.0.0.1:8500)",
       Text(&o.target.address)},
      {"connections", "N", "connections of their own (1)", Within(&o.target.connections, 1, 1000)},
      {"connect-timeout", "TIME", "give up when they are not all there by then (10s)", Seconds(&o.connect_seconds)},
      {"ca", "FILE", "TLS: the authority that the server's certificate must come from", Text(&o.target.ca_file)},
      {"cert", "FILE", "TLS: our certificate", Text(&o.target.certificate_file)},
      {"key", "FILE", "TLS: its key", Text(&o.target.key_file)},
      {"server-name", "NAME", "TLS: the name in the server's certificate", Text(&o.target.server_name)},
      {"metadata", "KEY=VALUE", "sent with every request; may be given again", KeyValue([&o](auto& key, auto& value) {
         o.engine.metadata.emplace_back(key, value);
         return absl::OkStatus();
       })},
      {"server-pid", "PID", "a server on this machine: also report its CPU and memory",
       Within(&o.server_pid, 1, 1 << 30)},
  };
}

std::vector<Flag> LoadFlags(Options& o) {
  return {
      {"", "", "Load", {}},
      {"rate", "N", "requests per second (1000)", Within(&o.rate, 1e-3, 1e7)},
      {"duration", "TIME", "measured time (30s)", Seconds(&o.seconds)},
      {"profile", "PIECES", "steps and ramps instead: RATE:TIME or RATE..RATE:TIME, with commas between",
       Parsed(&o.profile, [](const std::string& text) { return Schedule::Parse(text); })},
      {"warm-up", "TIME", "sent before, not measured (2s)", Seconds(&o.warm_up_seconds)},
      {"arrivals", "KIND", "poisson or constant (poisson)",
       Choice<Arrivals>(&o.arrivals, {{"poisson", Arrivals::kPoisson}, {"constant", Arrivals::kConstant}})},
      {"deadline", "TIME", "of each request, from when it was due; later answers are not good (none)",
       Nanoseconds(&o.engine.deadline_ns)},
      {"drain", "TIME", "wait for answers after the last send (10s)", Nanoseconds(&o.engine.drain_ns)},
      {"seed", "N", "of the arrivals and of drawn requests (1)", Within(&o.seed, 0, 1e15)},
      {"threads", "N", "pairs of a sending and a receiving thread (1)", Within(&o.engine.threads, 1, 256)},
      {"in-flight", "N", "more unanswered requests than this are not sent (100000)",
       Within(&o.engine.in_flight, 1, 1e7)},
      {"spin", "TIME", "spin this long before each send, to be on time (30us)", Nanoseconds(&o.engine.spin_ns)},
      {"scheduling", "KIND", "ordinary or realtime: the latter keeps a busy server off our threads (ordinary)",
       Choice<Scheduling>(&o.engine.scheduling,
                          {{"ordinary", Scheduling::kOrdinary}, {"realtime", Scheduling::kRealtime}})},
  };
}

std::vector<Flag> RequestFlags(Options& o) {
  using Fields = DrawOptions::Fields;
  return {
      {"", "", "Requests: from a file, or drawn for the model that the server has", {}},
      {"requests", "FILE", "ScoreRequests: .jsonl (one a line), .json (one), else binary, length-delimited",
       Text(&o.requests_file)},
      {"expect", "FILE", "golden cases (JSON lines) whose scores must come back; without --requests their requests too",
       Text(&o.expect_file)},
      {"tolerance", "X", "of those scores, for a server in another precision (each case's own)",
       Within(&o.tolerance, 0, 1)},
      {"record", "FILE", "write the requests there, to be used again", Text(&o.record_file)},
      {"model", "NAME", "of the model; may be left out where the server has one", Text(&o.draw.model)},
      {"distinct", "N", "different requests to draw (4096)", Within(&o.draw.count, 1, 1e7)},
      {"candidates", "N", "their number, or its median (200)", Within(&o.draw.candidates.median, 1, 1e6)},
      {"candidates-sigma", "S", "log-normal around it (0)", Within(&o.draw.candidates.sigma, 0, 5)},
      {"behaviours", "N", "their number in a sequence, or its median (50)", Within(&o.draw.behaviours.median, 1, 1e6)},
      {"behaviours-sigma", "S", "log-normal around it (0)", Within(&o.draw.behaviours.sigma, 0, 5)},
      {"behaviours-max", "N", "cut there (16384)", Within(&o.draw.behaviours.most, 1, 1e6)},
      {"candidates-max", "N", "cut there (4096)", Within(&o.draw.candidates.most, 1, 1e6)},
      {"zipf", "S", "popularity of ids: rank^-S; 0: uniform (1)", Within(&o.draw.zipf, 0, 5)},
      {"oov", "SHARE", "of ids that the model does not know, where it allows them (0)",
       Within(&o.draw.out_of_vocabulary, 0, 1)},
      {"top-k", "N", "answers asked for; 0: all (0)", Within(&o.draw.top_k, 0, 1e6)},
      {"fields", "KIND", "required, or all: also what a side table would supply (required)",
       Choice<Fields>(&o.draw.fields, {{"required", Fields::kRequired}, {"all", Fields::kAll}})},
      {"ids", "MAP=FILE", "ids that an id map knows, one a line, popular first: needed for a vocabulary",
       KeyValue([&o](auto& map, auto& path) { return ReadIds(map, path, o.draw); })},
      {"verify-every", "N", "look at every n-th answer; 0: at none (1)", Within(&o.engine.verify_every, 0, 1e9)},
      {"versions", "LIST", "model versions that may answer (any)",
       [&o](const std::string& value) { return ParseVersions(value, o.engine.versions); }},
  };
}

std::vector<Flag> ModeFlags(Options& o) {
  return {
      {"", "", "Several runs", {}},
      {"find-max", "OBJECTIVE", "the highest rate that keeps it, such as p99<5ms; the search begins at --rate",
       Parsed(&o.find_max, [](const std::string& text) { return ParseObjective(text); })},
      {"max-rate", "N", "of the search (1e6)", Within(&o.search.most, 1, 1e7)},
      {"precision", "SHARE", "of the search (0.03)", Within(&o.search.precision, 0.001, 0.5)},
      {"sweep", "RATES", "one run at each: 1000,2000,5000 or FROM..TO/N with equal ratios",
       Parsed(&o.sweep, ParseRates)},
      {"", "", "Output", {}},
      {"json", "FILE", "all figures; - is standard output", Text(&o.json_file)},
      {"html", "FILE", "the report as one page that needs no network", Text(&o.html_file)},
  };
}

std::vector<Flag> AllFlags(Options& o) {
  std::vector<Flag> flags;
  for (auto& group : {TargetFlags(o), LoadFlags(o), RequestFlags(o), ModeFlags(o)}) {
    flags.insert(flags.end(), group.begin(), group.end());
  }
  return flags;
}

absl::Status Conflicts(const Options& o) {
  if (o.find_max && !o.sweep.empty()) return absl::InvalidArgumentError("--find-max and --sweep: one at a time");
  if (o.profile && (o.find_max || !o.sweep.empty())) {
    return absl::InvalidArgumentError("--profile: not with --find-max or --sweep, which choose the rates");
  }
  if (o.target.ca_file.empty() && !(o.target.certificate_file + o.target.key_file + o.target.server_name).empty()) {
    return absl::InvalidArgumentError("--cert, --key, --server-name: TLS needs --ca too");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<double>> ParseRates(const std::string& text) {
  std::vector<double> rates;
  const std::vector<std::string> halves = absl::StrSplit(text, '/');
  if (halves.size() == 2) {
    const std::vector<std::string> ends = absl::StrSplit(halves[0], "..");
    double from = 0, to = 0;
    int count = 0;
    if (ends.size() == 2 && absl::SimpleAtod(ends[0], &from) && absl::SimpleAtod(ends[1], &to) &&
        absl::SimpleAtoi(halves[1], &count) && from > 0 && to > from && count >= 2 && count <= 1000) {
      for (int i = 0; i < count; ++i) rates.push_back(from * std::pow(to / from, static_cast<double>(i) / (count - 1)));
      return rates;
    }
  } else {
    for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
      if (!absl::SimpleAtod(part, &rates.emplace_back()) || !(rates.back() > 0 && rates.back() <= 1e7)) rates.clear();
      if (rates.empty()) break;
    }
    if (!rates.empty()) return rates;
  }
  return Bad(text, "RATE,RATE,... or FROM..TO/N");
}

absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  const char* server = std::getenv("DIN_SERVER");
  options.target.address = server != nullptr && *server != '\0' ? server : "127.0.0.1:8500";
  if (absl::Status status = ParseFlags(AllFlags(options), arguments); !status.ok()) return status;
  options.search.start = options.rate;
  options.draw.seed = options.seed;
  if (absl::Status status = Conflicts(options); !status.ok()) return status;
  return options;
}

std::string HelpText() {
  Options options;
  std::string text =
      "din-load: open-loop load for a din-server\n\n"
      "Requests are sent when they are due, whatever became of those before, and latency is counted from that time, so "
      "a\n"
      "server that stalls is seen to stall. A run in which the generator itself was late is declared invalid.\n\n"
      "  din-load --server 127.0.0.1:8500 --rate 2000 --duration 30s --html report.html\n"
      "  din-load --find-max 'p99<5ms' --duration 10s\n"
      "  din-load --sweep 500..8000/9 --duration 10s --html curve.html\n";
  absl::StrAppend(&text, FormatFlags(AllFlags(options)));
  absl::StrAppend(
      &text, "\nExit code: 0 well; 1 could not run; 2 wrong usage; 3 a run is invalid; 4 a wrong answer came back.\n");
  return text;
}

}  // namespace din::load
