// The same DIN, the same weights, the same requests: dinserve beside what people would use instead, on one machine in
// one run. Every contestant's scores are held against ours (1e-5) before it is timed. Prints Markdown.
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
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/peers/scorer.h"
#include "kernels/instruction_set.h"
#include "tests/model/bench_model.h"

namespace din::peers {
namespace {

using testing::OrDie;

constexpr double kTolerance = 1e-5;
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

// A model in the forms that contestants need.
struct Bed {
  testing::RawModel raw;
  PeerModel peer;
  std::unique_ptr<const DinModel> ours;

  explicit Bed(const Shape& shape) {
    testing::BenchModelOptions options;
    if (shape.inputs == Inputs::kRows) options.item_rows = 1'000'000, options.category_rows = 10'000;
    raw = shape.paper ? testing::PaperModel(options) : testing::CompactModel(options);
    peer = MakePeerModel(raw.spec, raw.tensors);
    ours = OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet()));
  }
};

std::vector<std::vector<int64_t>> DrawRows(const std::vector<PeerTable>& tables, size_t count, std::mt19937_64& rng) {
  std::vector<std::vector<int64_t>> out(tables.size());
  for (size_t f = 0; f < tables.size(); ++f) {
    std::uniform_int_distribution<int64_t> row(0, tables[f].rows - 1);
    for (size_t i = 0; i < count; ++i) out[f].push_back(row(rng));
  }
  return out;
}

// Where rows are looked up, other rows in every request, and more than a cache holds; else one is as good as many.
std::vector<PeerRequest> DrawRequests(const PeerModel& model, const Shape& shape) {
  std::mt19937_64 rng(7);
  std::vector<PeerRequest> requests(shape.inputs == Inputs::kRows ? 256 : 1);
  for (PeerRequest& request : requests) {
    request.candidates = shape.candidates;
    request.behaviours = shape.behaviours;
    request.candidate_rows = DrawRows(model.fields, shape.candidates, rng);
    request.behaviour_rows = DrawRows(model.fields, shape.behaviours, rng);
    for (const auto& row : DrawRows(model.user, 1, rng)) request.user_rows.push_back(row[0]);
  }
  return requests;
}

class Contestant {
 public:
  Contestant(std::unique_ptr<Scorer> scorer, const std::vector<PeerRequest>& requests)
      : scorer_(std::move(scorer)), requests_(requests.size()), scores_(requests[0].candidates) {
    for (const PeerRequest& request : requests) scorer_->Add(request);
  }

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
  double Median() { return Quantile(0.5); }

 private:
  std::unique_ptr<Scorer> scorer_;
  size_t requests_;
  std::vector<float> scores_;
  size_t next_ = 0;
  std::vector<double> rounds_;
};

constexpr const char* kNames[] = {"dinserve", "ORT tiled", "ORT split", "ORT per candidate", "libtorch tiled"};

std::vector<Contestant> Contestants(const Bed& bed, const Shape& shape, const Settings& settings) {
  const std::vector<PeerRequest> requests = DrawRequests(bed.peer, shape);
  const ScorerOptions options{.inputs = shape.inputs, .threads = settings.threads};
  std::vector<Contestant> all;
  all.emplace_back(MakeDinScorer(*bed.ours), requests);
  for (const Form form : {Form::kTiled, Form::kSplit, Form::kPerCandidate}) {
    all.emplace_back(MakeOrtScorer(bed.peer, form, options), requests);
  }
  all.emplace_back(MakeTorchScorer(bed.peer, options), requests);
  return all;
}

// Also the warm-up.
void CheckAgainstOurs(std::vector<Contestant>& all, const Shape& shape) {
  const std::vector<float> ours = all[0].ScoresOf(0);
  for (size_t c = 1; c < all.size(); ++c) {
    const std::vector<float>& theirs = all[c].ScoresOf(0);
    for (size_t i = 0; i < ours.size(); ++i) {
      if (std::abs(ours[i] - theirs[i]) <= kTolerance) continue;
      testing::Die(absl::StrFormat("%s, %s: candidate %d scores %.7f, ours %.7f", shape.Name(), kNames[c], i, theirs[i],
                                   ours[i]));
    }
  }
}

void PrintHeader(const Settings& settings) {
  std::printf(
      "Microseconds a request, median and half the distance of the quartiles of %d rounds; dinserve on 1 thread, the "
      "others on %d.\nAll scores agree with dinserve's within %g.\n\n| shape (B x H) |",
      settings.rounds, settings.threads, kTolerance);
  for (const char* name : kNames) std::printf(" %s |", name);
  std::printf(" best other / dinserve |\n|---|");
  for (size_t c = 0; c <= std::size(kNames); ++c) std::printf("---|");
  std::printf("\n");
}

void RunShape(const Shape& shape, const Settings& settings) {
  const Bed bed(shape);
  std::vector<Contestant> all = Contestants(bed, shape, settings);
  CheckAgainstOurs(all, shape);
  for (int round = 0; round < settings.rounds; ++round) {
    for (Contestant& contestant : all) contestant.Round();
  }
  std::printf("| %s |", shape.Name().c_str());
  double best = INFINITY;
  for (size_t c = 0; c < all.size(); ++c) {
    std::printf(" %.0f ± %.0f |", all[c].Median(), (all[c].Quantile(0.75) - all[c].Quantile(0.25)) / 2);
    if (c > 0) best = std::min(best, all[c].Median());
  }
  std::printf(" %.1f |\n", best / all[0].Median());
  std::fflush(stdout);
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
  PrintHeader(settings);
  for (const Shape& shape : kShapes) {
    if (shape.Name().find(settings.only) != std::string::npos) RunShape(shape, settings);
  }
  return 0;
}

}  // namespace
}  // namespace din::peers

int main(int argc, char** argv) { return din::peers::Main(argc, argv); }
