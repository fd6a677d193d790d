// The same DIN, the same weights, the same requests: dinserve beside what people would use instead, on one machine in
// one run. Every contestant's scores are held against those of dinserve in fp32 before it is timed: within 1e-5, but in
// bf16, whose largest difference is told. Prints Markdown.
//
//   peers_bench [--threads N] [--rounds N] [--only PART-OF-A-SHAPE'S-NAME]
//   peers_bench --onnx DIRECTORY      writes the paper's graphs there, for other runtimes, and stops
//
// Contestants take turns round by round, so that whatever else the machine does hits all of them. A figure is the
// median over the rounds, with the half distance of the quartiles behind it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/peers/scorer.h"
#include "kernels/instruction_set.h"
#include "kernels/precision.h"
#include "tests/model/bench_model.h"

namespace din::peers {
namespace {

using testing::OrDie;

constexpr double kTolerance = 1e-5;
// Tells bf16 from what is wrong. What it costs depends on the weights, and these are random.
constexpr double kBf16Tolerance = 1e-2;
constexpr double kRoundSeconds = 0.05;  // at least this long, and one request

struct Settings {
  int threads = 1;
  int rounds = 9;
  std::string only;  // a part of a shape's name
  std::string onnx;  // a directory; empty: measure
};

struct Shape {
  bool paper;
  size_t candidates;
  size_t behaviours;
  Inputs inputs = Inputs::kDense;
  std::string Name() const {
    return absl::StrCat(paper ? "paper " : "compact ", candidates, " x ", behaviours,
                        inputs == Inputs::kRows ? ", with look-up" : "");
  }
};
constexpr Shape kShapes[] = {{true, 1, 50},
                             {true, 50, 50},
                             {true, 200, 50},
                             {true, 200, 100},
                             {true, 500, 100},
                             {true, 1000, 100},
                             {true, 200, 1000},
                             {true, 200, 100, Inputs::kRows},
                             {false, 200, 100},
                             {false, 1000, 100},
                             {false, 200, 100, Inputs::kRows}};

std::vector<Precision> Precisions() {
  std::vector<Precision> all;
  for (const Precision precision : {Precision::kFp32, Precision::kFp32Split, Precision::kBf16}) {
    if (Supports(BestInstructionSet(), precision)) all.push_back(precision);
  }
  return all;
}

// A model in the forms that contestants need.
struct Bed {
  testing::RawModel raw;
  PeerModel peer;
  std::vector<std::unique_ptr<const DinModel>> ours;  // in each precision of this CPU, fp32 first

  explicit Bed(const Shape& shape) {
    testing::BenchModelOptions options{.behaviours = shape.behaviours};
    if (shape.inputs == Inputs::kRows) options.item_rows = 1'000'000, options.category_rows = 10'000;
    raw = shape.paper ? testing::PaperModel(options) : testing::CompactModel(options);
    peer = MakePeerModel(raw.spec, raw.tensors);
    for (const Precision precision : Precisions()) {
      ours.push_back(OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet(), precision)));
    }
  }
};

// Where rows are looked up, other rows in every request, and more than a cache holds; else one is as good as many.
std::vector<PeerRequest> DrawRequests(const PeerModel& model, const Shape& shape) {
  std::mt19937_64 rng(7);
  std::vector<PeerRequest> requests(shape.inputs == Inputs::kRows ? 256 : 1);
  for (PeerRequest& request : requests) request = DrawRequest(model, shape.candidates, shape.behaviours, rng);
  return requests;
}

class Contestant {
 public:
  Contestant(std::string name, double tolerance, std::unique_ptr<Scorer> scorer,
             const std::vector<PeerRequest>& requests)
      : name_(std::move(name)),
        tolerance_(tolerance),
        scorer_(std::move(scorer)),
        requests_(requests.size()),
        scores_(requests[0].candidates) {
    for (const PeerRequest& request : requests) scorer_->Add(request);
  }

  const std::string& name() const { return name_; }
  double tolerance() const { return tolerance_; }

  const std::vector<float>& ScoresOf(size_t request) {
    scorer_->Score(request, scores_);
    return scores_;
  }

  void Round() {
    const auto begin = std::chrono::steady_clock::now();
    double seconds = 0;
    int scored = 0;
    do {
      scorer_->Score(next_++ % requests_, scores_);
      ++scored;
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    } while (seconds < kRoundSeconds);
    rounds_.push_back(seconds / scored * 1e6);
  }

  // Microseconds per request.
  double Quantile(double q) {
    std::ranges::sort(rounds_);
    return rounds_[static_cast<size_t>(std::lround(q * static_cast<double>(rounds_.size() - 1)))];
  }

 private:
  std::string name_;
  double tolerance_;
  std::unique_ptr<Scorer> scorer_;
  size_t requests_;
  std::vector<float> scores_;
  size_t next_ = 0;
  std::vector<double> rounds_;
};

// Ours first, in fp32 and in what else this CPU has; then what a framework exports, then the graphs by hand.
std::vector<Contestant> Contestants(const Bed& bed, const Shape& shape, const Settings& settings) {
  const std::vector<PeerRequest> requests = DrawRequests(bed.peer, shape);
  const ScorerOptions options{.inputs = shape.inputs, .threads = settings.threads};
  std::vector<Contestant> all;
  for (const auto& model : bed.ours) {
    all.emplace_back(absl::StrCat("dinserve ", std::string(Name(model->precision()))),
                     model->precision() == Precision::kBf16 ? kBf16Tolerance : kTolerance,
                     MakeDinScorer(*model, settings.threads), requests);
  }
  all.emplace_back("libtorch tiled", kTolerance, MakeTorchScorer(bed.peer, options), requests);
  for (const auto& [form, name] : {std::pair{Form::kTiled, "ORT tiled"},
                                   {Form::kSplit, "ORT split"},
                                   {Form::kPerCandidate, "ORT per candidate"}}) {
    all.emplace_back(name, kTolerance, MakeOrtScorer(bed.peer, form, options), requests);
  }
  return all;
}

// The largest difference to dinserve in fp32, by contestant. Also the warm-up.
std::vector<double> CheckAgainstOurs(std::vector<Contestant>& all, const Shape& shape) {
  std::vector<double> largest(all.size());
  const std::vector<float> ours = all[0].ScoresOf(0);
  for (size_t c = 1; c < all.size(); ++c) {
    const std::vector<float>& theirs = all[c].ScoresOf(0);
    for (size_t i = 0; i < ours.size(); ++i) {
      const double difference = std::abs(ours[i] - theirs[i]);
      if (!(difference <= all[c].tolerance())) {
        testing::Die(absl::StrFormat("%s, %s: candidate %d scores %.7f, ours in fp32 %.7f", shape.Name(), all[c].name(),
                                     i, theirs[i], ours[i]));
      }
      largest[c] = std::max(largest[c], difference);
    }
  }
  return largest;
}

// What one shape came to.
struct Row {
  std::string shape;
  std::vector<std::string> names;
  std::vector<double> medians;
  std::vector<double> spreads;
  std::vector<double> differences;
};

Row Measure(const Shape& shape, const Settings& settings) {
  const Bed bed(shape);
  std::vector<Contestant> all = Contestants(bed, shape, settings);
  Row row{.shape = shape.Name(), .differences = CheckAgainstOurs(all, shape)};
  for (int round = 0; round < settings.rounds; ++round) {
    for (Contestant& contestant : all) {
      // The threads of another runtime may still spin in wait for work.
      if (settings.threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      contestant.Round();
    }
  }
  for (Contestant& contestant : all) {
    row.names.push_back(contestant.name());
    row.medians.push_back(contestant.Quantile(0.5));
    row.spreads.push_back((contestant.Quantile(0.75) - contestant.Quantile(0.25)) / 2);
  }
  return row;
}

std::string Rule(size_t columns) {
  std::string rule = "\n|---|";
  for (size_t c = 0; c < columns; ++c) rule += "---|";
  return rule + "\n";
}

void PrintTimes(const std::vector<Row>& rows, const Settings& settings) {
  std::printf("Microseconds a request, median and half the distance of the quartiles of %d rounds; threads: %d.\n\n",
              settings.rounds, settings.threads);
  std::printf("| B x H |");
  for (const std::string& name : rows[0].names) std::printf(" %s |", name.c_str());
  std::printf("%s", Rule(rows[0].names.size()).c_str());
  for (const Row& row : rows) {
    std::printf("| %s |", row.shape.c_str());
    for (size_t c = 0; c < row.medians.size(); ++c) std::printf(" %.0f ± %.0f |", row.medians[c], row.spreads[c]);
    std::printf("\n");
  }
}

// How many times as long the others take, by precision of ours.
void PrintRatios(const std::vector<Row>& rows) {
  const size_t ours = Precisions().size();
  const size_t tiled = ours + 1;  // ORT; behind libtorch's
  std::printf("\n| B x H |");
  for (size_t c = 0; c < ours; ++c) {
    const char* name = rows[0].names[c].c_str();
    std::printf(" libtorch / %s | ORT tiled / %s | best ORT by hand / %s |", name, name, name);
    if (c > 0) std::printf(" largest difference of %s |", name);
  }
  std::printf("%s", Rule(4 * ours - 1).c_str());
  for (const Row& row : rows) {
    std::printf("| %s |", row.shape.c_str());
    const double by_hand =
        *std::min_element(row.medians.begin() + static_cast<ptrdiff_t>(tiled) + 1, row.medians.end());
    for (size_t c = 0; c < ours; ++c) {
      const double mine = row.medians[c];
      std::printf(" %.1f | %.1f | %.1f |", row.medians[ours] / mine, row.medians[tiled] / mine, by_hand / mine);
      if (c > 0) std::printf(" %.1e |", row.differences[c]);
    }
    std::printf("\n");
  }
}

int WriteGraphs(const std::string& directory) {
  const Bed bed({true, 1, 1, Inputs::kRows});
  for (const auto& [form, name] : {std::pair{Form::kTiled, "tiled"}, {Form::kSplit, "split"}}) {
    std::ofstream file(absl::StrCat(directory, "/paper-", name, ".onnx"), std::ios::binary);
    file << ExportOnnx(bed.peer, form, Inputs::kRows);
    if (!file.flush()) {
      std::fprintf(stderr, "peers_bench: %s: cannot be written\n", directory.c_str());
      return 1;
    }
  }
  return 0;
}

int Main(int argc, char** argv) {
  Settings settings;
  for (int a = 1; a + 1 < argc; a += 2) {
    const std::string flag = argv[a];
    const bool known = (flag == "--threads" && absl::SimpleAtoi(argv[a + 1], &settings.threads)) ||
                       (flag == "--rounds" && absl::SimpleAtoi(argv[a + 1], &settings.rounds)) || flag == "--only" ||
                       flag == "--onnx";
    if (flag == "--only") settings.only = argv[a + 1];
    if (flag == "--onnx") settings.onnx = argv[a + 1];
    if (!known || settings.threads < 1 || settings.rounds < 1) {
      std::fputs("peers_bench [--threads N] [--rounds N] [--only PART-OF-A-SHAPE'S-NAME] | --onnx DIRECTORY\n", stderr);
      return 2;
    }
  }
  if (!settings.onnx.empty()) return WriteGraphs(settings.onnx);
  std::vector<Row> rows;
  for (const Shape& shape : kShapes) {
    if (shape.Name().find(settings.only) == std::string::npos) continue;
    std::fprintf(stderr, "peers_bench: %s\n", shape.Name().c_str());
    rows.push_back(Measure(shape, settings));
  }
  if (rows.empty()) {
    std::fprintf(stderr, "peers_bench: --only: no shape has \"%s\" in its name\n", settings.only.c_str());
    return 2;
  }
  PrintTimes(rows, settings);
  PrintRatios(rows);
  return 0;
}

}  // namespace
}  // namespace din::peers

int main(int argc, char** argv) { return din::peers::Main(argc, argv); }
