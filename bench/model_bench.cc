// The stages of a request at the reference shapes: from its bytes to the bytes of the answer. Scores are held against
// the definition in double, everything else against what it must give back, before anything is timed.
//
//   model_bench --isa all
//   model_bench --snapshot models/ads/7        a model of your own
//
// score/...        gather, attention, tower: DinModel::Score; tables of 1,000 rows, which stay in the cache
// kernels/...      of small requests, only the calls of kernels that this score/ consists of, on data that stands ready
// score_gather/... score/ with 1,000,000 items and 10,000 of each other field, other ids in every request
// parse/...        from bytes to the message
// decode/...       from the message to rows, with every check of untrusted input
// rank/...         the candidates, best first
// encode/...       the answer's message, and its bytes
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/harness.h"
#include "bench/kernel_calls.h"
#include "benchmark/benchmark.h"
#include "kernels/flush_denormals.h"
#include "model/din_model.h"
#include "model/input.h"
#include "model/reference_model.h"
#include "model_loader/load_model.h"
#include "proto/scoring.pb.h"
#include "server/score_request.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using testing::OrDie;
using testing::RawModel;
using testing::Rng;

// Largest error of a score against the definition in double. What bf16 costs depends on the weights, and those of the
// reference shapes are random, for about 50 behaviours: here it is told apart from what is wrong, and the error is
// reported. A snapshot says itself what is too much.
double Tolerance(const v1::ModelSpec& spec, const Shape& shape, const Variant& variant) {
  if (variant.precision != Precision::kBf16) return 1e-5;
  if (spec.bf16_tolerance() > 0) return spec.bf16_tolerance();
  return shape.behaviours <= 100 ? 1e-2 : 1e-1;
}
// Requests that take turns, for so many rows that no cache holds those of all; a few where the tables fit anyhow.
constexpr size_t kRows = 400'000;
constexpr size_t kRequests = 16;

// A model with its tensors, made when a benchmark first asks for it.
class Bed {
 public:
  virtual ~Bed() = default;
  virtual const v1::ModelSpec& spec() const = 0;
  virtual const TensorMap& tensors() const = 0;

  const DinModel& On(const Variant& variant) { return *Loaded(variant).model; }
  const LoadedModel& Loaded(const Variant& variant) {
    LoadedModel& loaded = models_[Name(variant)];
    if (loaded.model == nullptr) {
      loaded.name = "bench";
      loaded.version = 1;
      loaded.model = OrDie(DinModel::Create(spec(), tensors(), variant.isa, variant.precision));
    }
    return loaded;
  }

 private:
  std::map<std::string, LoadedModel> models_;
};

class RandomBed final : public Bed {
 public:
  explicit RandomBed(RawModel raw) : raw_(std::move(raw)) {}
  const v1::ModelSpec& spec() const override { return raw_.spec; }
  const TensorMap& tensors() const override { return raw_.tensors; }

 private:
  const RawModel raw_;
};

class SnapshotBed final : public Bed {
 public:
  explicit SnapshotBed(std::unique_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)) {}
  const v1::ModelSpec& spec() const override { return snapshot_->spec(); }
  const TensorMap& tensors() const override { return snapshot_->tensors(); }

 private:
  const std::unique_ptr<const Snapshot> snapshot_;
};

enum class Tables { kInCache, kLarge };

Bed& RandomBedOf(RawModel (*make)(const testing::BenchModelOptions&), Tables tables) {
  static std::map<std::pair<void*, Tables>, RandomBed> beds;
  const std::pair<void*, Tables> key{reinterpret_cast<void*>(make), tables};
  auto bed = beds.find(key);
  if (bed == beds.end()) {
    testing::BenchModelOptions options;
    if (tables == Tables::kLarge) options.item_rows = 1'000'000, options.category_rows = 10'000;
    bed = beds.try_emplace(key, make(options)).first;
  }
  return bed->second;
}

// ---------------------------------------------------------------------------------------------------------------------

v1::GoldenCase DrawRequest(const Bed& bed, const Shape& shape, Rng& rng) {
  return testing::RandomRequest(rng, bed.spec(), bed.tensors(),
                                {.candidates = shape.candidates, .behaviours = shape.behaviours});
}

std::vector<ScoringInput> DrawInputs(const Bed& bed, const DinModel& model, const Shape& shape, size_t count) {
  Rng rng(shape.candidates * 10'000 + shape.behaviours);
  std::vector<ScoringInput> inputs(count);
  for (ScoringInput& input : inputs) input = testing::DecodeOrDie(model.decoder(), DrawRequest(bed, shape, rng));
  return inputs;
}

v1::ScoreRequest AsScoreRequest(const v1::GoldenCase& drawn) {
  v1::ScoreRequest request;
  *request.mutable_features() = drawn.features();
  *request.mutable_sequences() = drawn.sequences();
  *request.mutable_candidates() = drawn.candidates();
  return request;
}

// What a Score of this input takes in the factored form (kernels/activation_unit.h).
class WorkCounter {
 public:
  WorkCounter(const ResolvedSpec& resolved, const ScoringInput& input)
      : resolved_(resolved), input_(input), candidates_(static_cast<double>(input.candidates)) {
    work_.unit = "candidates/s";
    work_.items = candidates_;
  }

  Work Count() {
    for (int g = 0; g < resolved_.spec.attentions_size(); ++g) Attention(g);
    for (int p = 0; p < resolved_.spec.pre_towers_size(); ++p) {
      Layers(Rows(resolved_.pre_towers[p]), resolved_.pre_towers[p].in_width, resolved_.spec.pre_towers(p).layers());
    }
    const v1::Tower& tower = resolved_.spec.tower();
    const double out = Layers(candidates_, resolved_.tower.in_width, tower.layers());
    Multiply(candidates_ * out * tower.classes());
    work_.sigmoids += candidates_;
    return work_;
  }

 private:
  void Attention(int g) {
    const v1::Attention& spec = resolved_.spec.attentions(g);
    const ResolvedSpec::Attention& attention = resolved_.attentions[g];
    const ScoringInput::Sequence& sequence = input_.sequences[attention.sequence];
    const double pairs = candidates_ * (sequence.empty ? 0 : static_cast<double>(sequence.positions.size()));
    work_.pairs += pairs;
    const double before = work_.flops;
    const double last = Layers(pairs, attention.key.width, spec.layers());
    work_.hidden_flops += std::exchange(work_.flops, before) - before;
    Multiply(pairs * last);
    Multiply(pairs * static_cast<double>(attention.key.width));
    if (attention.value_width != attention.key.width) {
      Multiply(candidates_ * static_cast<double>(attention.value_width * attention.key.width));
    }
  }

  // Returns the width of the last layer.
  double Layers(double rows, size_t width, const google::protobuf::RepeatedPtrField<v1::Layer>& layers) {
    auto in = static_cast<double>(width);
    for (const v1::Layer& layer : layers) {
      Multiply(rows * in * layer.units());
      switch (layer.activation().kind()) {
        case v1::Activation::SIGMOID:
        case v1::Activation::TANH:
        case v1::Activation::SILU:
        case v1::Activation::DICE:
          work_.sigmoids += rows * layer.units();
          break;
        default:
          break;
      }
      in = layer.units();
    }
    return in;
  }

  double Rows(const ResolvedSpec::Network& network) const {
    const auto per_candidate = [](const ResolvedSpec::Term& term) {
      return term.a.per_candidate || (term.is_product && term.b.per_candidate);
    };
    return std::ranges::any_of(network.input, per_candidate) ? candidates_ : 1;
  }

  void Multiply(double multiply_adds) { work_.flops += 2 * multiply_adds; }

  const ResolvedSpec& resolved_;
  const ScoringInput& input_;
  const double candidates_;
  Work work_;
};

// ---------------------------------------------------------------------------------------------------------------------

// The same user with a few of the candidates. A score does not depend on the other candidates, so the definition, which
// is slow, need not be asked for all of them.
ScoringInput Excerpt(const ScoringInput& input, const v1::ModelSpec& spec, const std::vector<size_t>& kept) {
  ScoringInput excerpt = input;
  excerpt.candidates = kept.size();
  excerpt.out_of_vocabulary.assign(kept.size(), 0);
  for (int f = 0; f < spec.features_size(); ++f) {
    if (spec.features(f).scope() != v1::CANDIDATE) continue;
    const ScoringInput::Column& from = input.columns[f];
    ScoringInput::Column& to = excerpt.columns[f];
    to = {};
    if (!from.offsets.empty()) to.offsets.push_back(0);
    for (const size_t c : kept) {
      const size_t begin = from.offsets.empty() ? c : from.offsets[c];
      const size_t end = from.offsets.empty() ? c + 1 : from.offsets[c + 1];
      const auto copy = [&](const auto& source, auto& target) {
        if (!source.empty()) target.insert(target.end(), &source[0] + begin, &source[0] + end);
      };
      copy(from.rows, to.rows);
      copy(from.is_padding, to.is_padding);
      if (!from.offsets.empty()) to.offsets.push_back(static_cast<uint32_t>(to.rows.size()));
      const size_t width = from.values.size() / input.candidates;
      to.values.insert(to.values.end(), from.values.begin() + static_cast<ptrdiff_t>(c * width),
                       from.values.begin() + static_cast<ptrdiff_t>((c + 1) * width));
    }
  }
  return excerpt;
}

// Largest difference to the definition over eight candidates from all over the request.
double LargestError(const Bed& bed, const DinModel& model, const ScoringInput& input,
                    const std::vector<float>& scores) {
  std::vector<size_t> kept;
  for (size_t i = 0; i < 8; ++i) kept.push_back(i * (input.candidates - 1) / 7);
  const auto truth =
      OrDie(reference::Score<double>(model.resolved(), bed.tensors(), Excerpt(input, model.spec(), kept)));
  double largest = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    const double error = std::abs(truth.scores[i] - static_cast<double>(scores[kept[i]]));
    largest = error <= largest ? largest : error;  // a NaN stays
  }
  return largest;
}

// `memory_row`: bytes of the row that is read for each candidate and behaviour from a table that no cache holds.
void Score(benchmark::State& state, Bed& bed, const Shape& shape, const Variant& variant, double memory_row) {
  const DinModel& model = bed.On(variant);
  const size_t requests = memory_row == 0 ? kRequests : kRows / (shape.candidates + shape.behaviours);
  const std::vector<ScoringInput> inputs = DrawInputs(bed, model, shape, requests);
  Workspace workspace;
  std::vector<float> scores(shape.candidates);
  model.Score(inputs[0], workspace, scores);
  const double error = LargestError(bed, model, inputs[0], scores);
  if (const double tolerance = Tolerance(bed.spec(), shape, variant); !(error <= tolerance)) {
    return Refuse(state, absl::StrCat("largest error against the definition: ", error, " > ", tolerance));
  }
  size_t next = 0;
  for (auto _ : state) {
    model.Score(inputs[next++ % inputs.size()], workspace, scores);
    benchmark::DoNotOptimize(scores.data());
  }
  Work work = WorkCounter(model.resolved(), inputs[0]).Count();
  work.memory_bytes = static_cast<double>(shape.candidates + shape.behaviours) * memory_row;
  Report(state, work, variant);
  state.counters["error"] = error;
}

// The same requests as Score's, in the same order.
void Kernels(benchmark::State& state, Bed& bed, const Shape& shape, const Variant& variant) {
  const DinModel& model = bed.On(variant);
  const std::vector<ScoringInput> inputs = DrawInputs(bed, model, shape, kRequests);
  Workspace workspace;
  std::vector<float> scores(shape.candidates), expected(shape.candidates);
  KernelCalls calls(model, bed.tensors(), shape.candidates, shape.behaviours);
  const ScopedFlushDenormals flush;
  for (const ScoringInput& input : inputs) {
    model.Score(input, workspace, expected);
    calls.GatherRows(input);
    calls.Pool();
    calls.Assemble();
    calls.Tower(scores);
    if (scores != expected) return Refuse(state, "the kernels alone give other scores than the model");
  }
  size_t next = 0;
  for (auto _ : state) {
    calls.GatherRows(inputs[next++ % inputs.size()]);
    calls.Pool();
    calls.Tower(scores);
    benchmark::DoNotOptimize(scores.data());
  }
  Report(state, WorkCounter(model.resolved(), inputs[0]).Count(), variant);
}

// ---------------------------------------------------------------------------------------------------------------------

void Parse(benchmark::State& state, Bed& bed, const Shape& shape, const Variant& variant) {
  Rng rng(1);
  const v1::ScoreRequest request = AsScoreRequest(DrawRequest(bed, shape, rng));
  const std::string bytes = request.SerializeAsString();
  v1::ScoreRequest parsed;
  if (!parsed.ParseFromString(bytes) || parsed.SerializeAsString() != bytes) {
    return Refuse(state, "the message is not what was serialised");
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(parsed.ParseFromString(bytes));
    benchmark::ClobberMemory();
  }
  Report(state, {.unit = "requests/s", .items = 1, .bytes = static_cast<double>(bytes.size())}, variant);
}

// A second decoding of what another decoder of the model made must give the same; and the scores of such rows are what
// score/ compares with the definition.
void Decode(benchmark::State& state, Bed& bed, const Shape& shape, const Variant& variant) {
  const DinModel& model = bed.On(variant);
  Rng rng(1);
  const v1::GoldenCase drawn = DrawRequest(bed, shape, rng);
  const v1::ScoreRequest request = AsScoreRequest(drawn);
  const ScoringInput expected = testing::DecodeOrDie(model.decoder(), drawn);
  ScoringInput input;
  if (const absl::Status status = DecodeScoreRequest(request, model, {}, input); !status.ok()) {
    return Refuse(state, status.ToString());
  }
  double ids = 0;
  for (size_t f = 0; f < expected.columns.size(); ++f) {
    if (input.columns[f].rows != expected.columns[f].rows || input.columns[f].values != expected.columns[f].values) {
      return Refuse(state, absl::StrCat("other rows in feature ", f));
    }
    ids += static_cast<double>(expected.columns[f].rows.size());
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(DecodeScoreRequest(request, model, {}, input).ok());
    benchmark::ClobberMemory();
  }
  Report(state, {.unit = "ids/s", .items = ids, .bytes = ids * (sizeof(int64_t) + sizeof(uint32_t))}, variant);
}

std::vector<float> RandomScores(size_t count) {
  std::mt19937 random(1);
  std::vector<float> scores(count);
  for (float& score : scores) score = std::uniform_real_distribution<float>(0, 1)(random);
  return scores;
}

std::vector<uint32_t> BestFirst(const std::vector<float>& scores) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  return order;
}

void RankCandidates(benchmark::State& state, const Shape& shape, const Variant& variant) {
  const std::vector<float> scores = RandomScores(shape.candidates);
  const std::vector<uint32_t> expected = BestFirst(scores);
  std::vector<uint64_t> ranking;
  Rank(scores, 0, ranking);
  for (size_t i = 0; i < expected.size(); ++i) {
    if (ranking.size() != expected.size() || RankedPosition(ranking[i]) != expected[i]) {
      return Refuse(state, absl::StrCat("rank ", i, " is not that of a stable sort"));
    }
  }
  for (auto _ : state) {
    Rank(scores, 0, ranking);
    benchmark::ClobberMemory();
  }
  const auto count = static_cast<double>(shape.candidates);
  Report(state, {.unit = "candidates/s", .items = count, .bytes = count * (sizeof(float) + sizeof(uint64_t))}, variant);
}

void Encode(benchmark::State& state, Bed& bed, const Shape& shape, const Variant& variant) {
  const LoadedModel& loaded = bed.Loaded(variant);
  Rng rng(1);
  const v1::ScoreRequest request = AsScoreRequest(DrawRequest(bed, shape, rng));
  ScoringInput input;
  if (const absl::Status status = DecodeScoreRequest(request, *loaded.model, {}, input); !status.ok()) {
    return Refuse(state, status.ToString());
  }
  const std::vector<float> scores = RandomScores(shape.candidates);
  std::vector<uint64_t> ranking;
  Rank(scores, 0, ranking);
  v1::ScoreResponse response;
  std::string bytes;
  const auto run = [&] {
    response.Clear();
    EncodeScoreResponse({request, loaded, input, scores, ranking}, response);
    response.SerializeToString(&bytes);
  };
  run();
  v1::ScoreResponse answer;
  const std::vector<uint32_t> expected = BestFirst(scores);
  if (!answer.ParseFromString(bytes) || answer.index_size() != static_cast<int>(expected.size())) {
    return Refuse(state, "not as many answers as candidates");
  }
  for (int i = 0; i < answer.index_size(); ++i) {
    if (answer.index(i) != expected[i] || answer.scores(i) != scores[expected[i]]) {
      return Refuse(state, absl::StrCat("answer ", i, " is not that of its rank"));
    }
  }
  for (auto _ : state) {
    run();
    benchmark::ClobberMemory();
  }
  Report(state,
         {.unit = "candidates/s",
          .items = static_cast<double>(shape.candidates),
          .bytes = static_cast<double>(bytes.size())},
         variant);
}

// ---------------------------------------------------------------------------------------------------------------------

void Add(const std::string& stage, const std::string& label, const Shape& shape, const Variant& variant,
         const std::function<void(benchmark::State&)>& function) {
  const std::string name = absl::StrCat(stage, "/", label, "/", Name(shape), "/", Name(variant));
  benchmark::RegisterBenchmark(name.c_str(), function)->Unit(benchmark::kMicrosecond);
}

void AddStages(const std::string& label, const std::function<Bed&()>& bed, const Variant& variant) {
  for (const Shape& shape : kShapes) {
    Add("score", label, shape, variant, [=](auto& state) { Score(state, bed(), shape, variant, 0); });
    if (variant.precision != Precision::kFp32) continue;
    Add("parse", label, shape, variant, [=](auto& state) { Parse(state, bed(), shape, variant); });
    Add("decode", label, shape, variant, [=](auto& state) { Decode(state, bed(), shape, variant); });
    Add("rank", label, shape, variant, [=](auto& state) { RankCandidates(state, shape, variant); });
    Add("encode", label, shape, variant, [=](auto& state) { Encode(state, bed(), shape, variant); });
  }
}

absl::Status RegisterSnapshot(InstructionSet isa, const std::string& directory) {
  auto snapshot = Snapshot::Open(directory, {});
  if (!snapshot.ok()) return snapshot.status();
  benchmark::AddCustomContext("snapshot", absl::StrCat(directory, ", manifest ", (*snapshot)->digest().substr(0, 16)));
  static SnapshotBed bed(*std::move(snapshot));
  for (const Variant& variant : Variants(isa)) {
    // As the server would: bf16 only for a model that says how far it may be off.
    if (variant.precision == Precision::kBf16 && bed.spec().bf16_tolerance() == 0) continue;
    const auto model = DinModel::Create(bed.spec(), bed.tensors(), variant.isa, variant.precision);
    if (!model.ok()) return model.status();
    AddStages(
        "snapshot", []() -> Bed& { return bed; }, variant);
  }
  return absl::OkStatus();
}

absl::Status RegisterAll(InstructionSet isa, const std::string& snapshot) {
  if (!snapshot.empty()) return RegisterSnapshot(isa, snapshot);
  benchmark::AddCustomContext("snapshot", "none: the reference shapes paper and compact, random weights, seed 1");
  struct Named {
    const char* label;
    RawModel (*make)(const testing::BenchModelOptions&);
    double item_row;  // bytes of an item's embedding
  };
  for (const Variant& variant : Variants(isa)) {
    for (const Named& model : {Named{"paper", testing::PaperModel, 256}, {"compact", testing::CompactModel, 48}}) {
      AddStages(
          model.label, [=]() -> Bed& { return RandomBedOf(model.make, Tables::kInCache); }, variant);
      for (const Shape& shape : kShapes) {
        if (shape.candidates * shape.behaviours < 1000) {  // where it matters what a request takes beyond them
          Add("kernels", model.label, shape, variant,
              [=](auto& state) { Kernels(state, RandomBedOf(model.make, Tables::kInCache), shape, variant); });
        }
        Add("score_gather", model.label, shape, variant, [=](auto& state) {
          Score(state, RandomBedOf(model.make, Tables::kLarge), shape, variant, model.item_row);
        });
      }
    }
  }
  return absl::OkStatus();
}

constexpr char kHelp[] =
    "model_bench: a request from its bytes to those of the answer; each stage is checked before it is timed\n\n"
    "  model_bench --isa all --benchmark_filter=score/\n"
    "  model_bench --snapshot models/ads/7 --benchmark_filter='200x100'\n\n"
    "Stages: parse, decode, score, kernels (of score, the calls of kernels alone), score_gather (large tables, other\n"
    "ids every time), rank, encode. `peak` is the share of the multiply-add rate and `limit` that of multiply-adds,\n"
    "sigmoids and memory together, as this very run measured them: compare figures of one run only. `error`: largest\n"
    "difference to the definition in double; above 1e-5 it is not timed. bf16 may be off by what the snapshot states,\n"
    "or 0.01 (0.1 above 100 behaviours, for which the random weights are not made).\n";

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) {
  return din::bench::RunBenchmarks(argc, argv,
                                   {.help = din::bench::kHelp,
                                    .flag = "snapshot",
                                    .flag_value = "DIRECTORY",
                                    .flag_help = "this model at the reference shapes, instead of random ones",
                                    .register_all = din::bench::RegisterAll});
}
