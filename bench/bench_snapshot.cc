// bench-snapshot: publishes a model of a reference shape with random weights and golden cases, for load tests.
//
//   bench-snapshot paper|compact MODEL_DIRECTORY [VERSION [ITEM_ROWS [CATEGORY_ROWS]]]
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/din_model.h"
#include "model/reference_model.h"
#include "model_loader/snapshot_writer.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using testing::OrDie;

// Small ones: the definition in double is slow.
std::vector<v1::GoldenCase> GoldenCases(const testing::RawModel& raw) {
  const auto model = OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet()));
  testing::Rng rng(1);
  std::vector<v1::GoldenCase> cases;
  for (const size_t behaviours : {0, 1, 20, 50}) {
    v1::GoldenCase golden =
        testing::RandomRequest(rng, raw.spec, raw.tensors, {.candidates = 5, .behaviours = behaviours});
    const ScoringInput input = testing::DecodeOrDie(model->decoder(), golden);
    const auto truth = OrDie(reference::Score<double>(model->resolved(), raw.tensors, input));
    golden.set_id(absl::StrCat("behaviours-", behaviours));
    for (const double score : truth.scores) golden.add_scores(static_cast<float>(score));
    golden.set_tolerance(1e-5);
    cases.push_back(std::move(golden));
  }
  return cases;
}

int Main(const std::vector<std::string>& arguments) {
  testing::BenchModelOptions options;
  int64_t version = 1;
  int64_t* const numbers[] = {&version, &options.item_rows, &options.category_rows};
  bool usable =
      arguments.size() >= 2 && arguments.size() <= 5 && (arguments[0] == "paper" || arguments[0] == "compact");
  for (size_t a = 2; usable && a < arguments.size(); ++a) {
    usable = absl::SimpleAtoi(arguments[a], numbers[a - 2]) && *numbers[a - 2] >= 1;
  }
  if (!usable) {
    std::fputs("bench-snapshot paper|compact MODEL_DIRECTORY [VERSION [ITEM_ROWS [CATEGORY_ROWS]]]\n", stderr);
    return 2;
  }
  options.seed = static_cast<uint64_t>(version);
  testing::RawModel raw = arguments[0] == "paper" ? testing::PaperModel(options) : testing::CompactModel(options);
  raw.spec.set_bf16_tolerance(0.01);  // random weights take it worse than trained ones; the default stays fp32
  const absl::Status status =
      WriteSnapshot(arguments[1], version, {.spec = raw.spec, .tensors = raw.tensors, .golden = GoldenCases(raw)});
  if (status.ok()) return 0;
  std::fprintf(stderr, "bench-snapshot: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) { return din::bench::Main(std::vector<std::string>(argv + 1, argv + argc)); }
