// A whole request through the model at the reference shapes: decode, and Score on every instruction set of this CPU.
// Scores are held against the definition in double before anything is timed.
//
//   model_bench --benchmark_filter='score/paper/200x100/avx512'
//
// score/...        dense part: tables of 1,000 rows, which stay in the cache
// score_gather/... tables of 1,000,000 items and 10,000 categories, other ids in every request
// decode/...       from the request's columns to rows
// `peak` is the share of the multiply-add rate that this very run measured on registers (peak.h).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/peak.h"
#include "benchmark/benchmark.h"
#include "model/din_model.h"
#include "model/input.h"
#include "model/reference_model.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using testing::OrDie;
using testing::RawModel;
using testing::Rng;

constexpr double kTolerance = 1e-5;
constexpr size_t kRequests = 16;  // other ids each time; in turn

struct Shape {
  size_t candidates;
  size_t behaviours;
};
constexpr Shape kShapes[] = {{1, 50}, {50, 50}, {200, 50}, {200, 100}, {500, 100}, {1000, 100}, {200, 1000}};

std::string Name(const Shape& shape) { return absl::StrCat(shape.candidates, "x", shape.behaviours); }

enum class Kind { kPaper, kCompact };
enum class Tables { kInCache, kLarge };

// Operations of the factored form (kernels/activation_unit.h): per pair the first layer over q∘k, the others and
// the pooling; per candidate the tower.
double Flops(Kind kind, const Shape& shape) {
  const double pairs = static_cast<double>(shape.candidates * shape.behaviours);
  const auto candidates = static_cast<double>(shape.candidates);
  if (kind == Kind::kPaper) {
    return pairs * 2 * (128 * 80 + 80 * 40 + 40 + 128) + candidates * 2 * (384 * 80 + 80 * 40 + 40);
  }
  return pairs * 2 * (36 * 36 + 36 + 36) + candidates * 2 * (192 * 200 + 200 * 80 + 80);
}

// A model with its tables, made when a benchmark first asks for it.
struct Bed {
  RawModel raw;
  std::map<InstructionSet, std::unique_ptr<const DinModel>> models;

  const DinModel& On(InstructionSet isa) {
    auto& model = models[isa];
    if (model == nullptr) model = OrDie(DinModel::Create(raw.spec, raw.tensors, isa));
    return *model;
  }
};

Bed& BedFor(Kind kind, Tables tables) {
  static std::map<std::pair<Kind, Tables>, Bed> beds;
  const auto [it, made] = beds.try_emplace({kind, tables});
  if (made) {
    testing::BenchModelOptions options;
    if (tables == Tables::kLarge) options.item_rows = 1'000'000, options.category_rows = 10'000;
    it->second.raw = kind == Kind::kPaper ? testing::PaperModel(options) : testing::CompactModel(options);
  }
  return it->second;
}

v1::GoldenCase DrawRequest(const Bed& bed, const Shape& shape, Rng& rng) {
  return testing::RandomRequest(rng, bed.raw.spec, bed.raw.tensors,
                                {.candidates = shape.candidates, .behaviours = shape.behaviours});
}

std::vector<ScoringInput> DrawInputs(const Bed& bed, const DinModel& model, const Shape& shape) {
  Rng rng(shape.candidates * 10'000 + shape.behaviours);
  std::vector<ScoringInput> inputs(kRequests);
  for (ScoringInput& input : inputs) input = testing::DecodeOrDie(model.decoder(), DrawRequest(bed, shape, rng));
  return inputs;
}

// The same user with a few of the candidates. A score does not depend on the other candidates, so the definition, which
// is slow, need not be asked for all of them.
ScoringInput Excerpt(const ScoringInput& input, const v1::ModelSpec& spec, const std::vector<size_t>& kept) {
  ScoringInput excerpt = input;
  excerpt.candidates = kept.size();
  excerpt.out_of_vocabulary.assign(kept.size(), 0);
  for (int f = 0; f < spec.features_size(); ++f) {
    if (spec.features(f).scope() != v1::CANDIDATE) continue;
    excerpt.columns[f].rows.clear();
    for (const size_t c : kept) excerpt.columns[f].rows.push_back(input.columns[f].rows[c]);
  }
  return excerpt;
}

// Largest difference to the definition over eight candidates from all over the request.
double LargestError(const Bed& bed, const DinModel& model, const ScoringInput& input,
                    const std::vector<float>& scores) {
  std::vector<size_t> kept;
  for (size_t i = 0; i < 8; ++i) kept.push_back(i * (input.candidates - 1) / 7);
  const auto truth =
      OrDie(reference::Score<double>(model.resolved(), bed.raw.tensors, Excerpt(input, model.spec(), kept)));
  double largest = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    const double error = std::abs(truth.scores[i] - static_cast<double>(scores[kept[i]]));
    largest = error <= largest ? largest : error;  // a NaN stays
  }
  return largest;
}

void Score(benchmark::State& state, Kind kind, Tables tables, const Shape& shape, InstructionSet isa) {
  Bed& bed = BedFor(kind, tables);
  const DinModel& model = bed.On(isa);
  const std::vector<ScoringInput> inputs = DrawInputs(bed, model, shape);
  Workspace workspace;
  std::vector<float> scores(shape.candidates);
  model.Score(inputs[0], workspace, scores);
  const double error = LargestError(bed, model, inputs[0], scores);
  if (!(error <= kTolerance)) {
    state.SkipWithError(absl::StrCat("largest error against the definition: ", error, " > ", kTolerance).c_str());
    return;
  }
  size_t next = 0;
  for (auto _ : state) {
    model.Score(inputs[next++ % inputs.size()], workspace, scores);
    benchmark::DoNotOptimize(scores.data());
  }
  using benchmark::Counter;
  const auto pairs = static_cast<double>(shape.candidates * shape.behaviours);
  const double flops = Flops(kind, shape);
  state.counters["candidates/s"] = Counter(static_cast<double>(shape.candidates), Counter::kIsIterationInvariantRate);
  state.counters["pairs/s"] = Counter(pairs, Counter::kIsIterationInvariantRate);
  state.counters["FLOP/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["peak"] = Counter(flops / PeakFlops(isa), Counter::kIsIterationInvariantRate);
  state.counters["error"] = error;
}

void Decode(benchmark::State& state, Kind kind, const Shape& shape) {
  Bed& bed = BedFor(kind, Tables::kInCache);
  const DinModel& model = bed.On(BestInstructionSet());
  Rng rng(1);
  const v1::GoldenCase request = DrawRequest(bed, shape, rng);
  const RequestColumns columns{request.features(), request.sequences(), request.candidates()};
  ScoringInput input;
  for (auto _ : state) {
    if (!model.decoder().Decode(columns, {}, input).ok()) {
      state.SkipWithError("the request was refused");
      return;
    }
    benchmark::DoNotOptimize(input.candidates);
  }
  const auto ids = static_cast<double>(shape.candidates + shape.behaviours) * (kind == Kind::kPaper ? 2 : 3);
  state.counters["ids/s"] = benchmark::Counter(ids, benchmark::Counter::kIsIterationInvariantRate);
}

void Register() {
  const auto add = [](const std::string& name, auto function) {
    benchmark::RegisterBenchmark(name.c_str(), function)->Unit(benchmark::kMicrosecond);
  };
  for (const auto& [kind, label] : {std::pair{Kind::kPaper, "paper"}, {Kind::kCompact, "compact"}}) {
    for (const Shape& shape : kShapes) {
      for (const InstructionSet isa : SupportedInstructionSets()) {
        const std::string rest = absl::StrCat(label, "/", Name(shape), "/", std::string(din::Name(isa)));
        add("score/" + rest, [=, kind = kind](auto& state) { Score(state, kind, Tables::kInCache, shape, isa); });
        if (isa != BestInstructionSet()) continue;
        add("score_gather/" + rest, [=, kind = kind](auto& state) { Score(state, kind, Tables::kLarge, shape, isa); });
      }
      add(absl::StrCat("decode/", label, "/", Name(shape)),
          [=, kind = kind](auto& state) { Decode(state, kind, shape); });
    }
  }
}

void DescribeContext() {
  std::string sets;
  for (const InstructionSet isa : SupportedInstructionSets()) {
    absl::StrAppend(&sets, sets.empty() ? "" : ", ", std::string(din::Name(isa)), " at ",
                    std::llround(PeakFlops(isa) * 1e-9), " GFLOP/s");
  }
  benchmark::AddCustomContext("instruction sets", sets);
  benchmark::AddCustomContext("threads", "1");
}

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  din::bench::DescribeContext();
  din::bench::Register();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
