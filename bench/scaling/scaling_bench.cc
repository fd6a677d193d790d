// How the cost of a request grows. Prints "series,x,y" lines for plot.py; bench/measure.sh puts the two together.
//
//   scaling_bench pairs [MOST]    microseconds against candidates x behaviours, up to MOST (1e7)
//   scaling_bench rows [MOST]     microseconds against rows of the item table (F16), up to MOST (1e8), as far as memory
//                                 reaches; look-ups in small pages as well, and cache misses one after the other
//   scaling_bench models [MOST]   microseconds against the number of models that take turns, up to MOST (256)
//   scaling_bench memory [MOST]   megabytes of a loaded snapshot, and seconds that loading takes, up to MOST rows (8e6)
//
// One thread, the best instruction set. A figure is the median over repetitions. Scores are not checked here:
// model_bench does that, for the same model and kernels.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/din_model.h"
#include "model_loader/load_model.h"
#include "model_loader/memory.h"
#include "model_loader/memory_budget.h"
#include "model_loader/snapshot_writer.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using testing::OrDie;
using testing::RawModel;
using testing::Rng;

constexpr uint32_t kItemWidth = 64;

void Print(const std::string& series, double x, double y) {
  std::printf("%s,%.10g,%.6g\n", series.c_str(), x, y);
  std::fflush(stdout);
}

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Microseconds of score(n), n = 0, 1, ...: the median over at least nine calls, and half a second where they are short.
template <typename Score>
double MedianUs(const Score& score) {
  score(0);
  std::vector<double> us;
  const double begin = Now();
  for (size_t n = 1; us.size() < 9 || (Now() - begin < 0.5 && us.size() < 20'000); ++n) {
    const double before = Now();
    score(n);
    us.push_back((Now() - before) * 1e6);
  }
  std::ranges::nth_element(us, us.begin() + static_cast<ptrdiff_t>(us.size() / 2));
  return us[us.size() / 2];
}

std::vector<ScoringInput> DrawInputs(const RawModel& raw, const DinModel& model, size_t candidates, size_t behaviours,
                                     size_t count) {
  Rng rng(candidates * 100'000 + behaviours);
  std::vector<ScoringInput> inputs(count);
  for (ScoringInput& input : inputs) {
    input = testing::DecodeOrDie(
        model.decoder(),
        testing::RandomRequest(rng, raw.spec, raw.tensors, {.candidates = candidates, .behaviours = behaviours}));
  }
  return inputs;
}

double ScoreUs(const DinModel& model, const std::vector<ScoringInput>& inputs) {
  Workspace workspace;
  std::vector<float> scores(inputs[0].candidates);
  return MedianUs([&](size_t n) { model.Score(inputs[n % inputs.size()], workspace, scores); });
}

// ---------------------------------------------------------------------------------------------------------------------

void Pairs(double most) {
  for (const auto& [make, label] : {std::pair{&testing::PaperModel, "paper"}, {&testing::CompactModel, "compact"}}) {
    const RawModel raw = make({});
    const auto model = OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet()));
    const auto measure = [&](const std::string& series, size_t candidates, size_t behaviours) {
      const auto pairs = static_cast<double>(candidates * behaviours);
      if (pairs > most) return;
      Print(absl::StrCat(label, ", ", series), pairs,
            ScoreUs(*model, DrawInputs(raw, *model, candidates, behaviours, 4)));
    };
    for (const size_t candidates : {100, 300, 1000, 3000}) measure("B x 100", candidates, 100);
    for (const size_t behaviours : {10, 30, 100, 300, 1000, 3000, 10'000}) {
      measure("1000 x H", 1000, behaviours);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

enum class Pages { kHuge, kSmall };

// Another number of rows for the item table, of F16 numbers within [-1, 1) in memory of its own.
MemoryRegion ResizeItems(RawModel& raw, int64_t rows, Pages pages = Pages::kHuge) {
  raw.spec.mutable_tables(0)->set_rows(rows);
  raw.spec.mutable_id_maps(0)->mutable_identity()->set_size(rows);
  const size_t values = static_cast<size_t>(rows) * kItemWidth;
  MemoryRegion memory = OrDie(MemoryRegion::Create(values * sizeof(uint16_t)));
  if (pages == Pages::kSmall) madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE);
  // Four at a time, each with an exponent below that of one: the fill must not take minutes.
  auto* words = reinterpret_cast<uint64_t*>(memory.data());
  uint64_t state = 1;
  for (size_t w = 0; w < values / 4; ++w) {
    state = state * 6364136223846793005 + 1442695040888963407;
    words[w] = (state ^ state >> 29) & 0xBBFF'BBFF'BBFF'BBFF;
  }
  raw.tensors["table.item"] = {
      .type = DataType::kF16, .shape = {rows, kItemWidth}, .data = memory.data(), .bytes = values * sizeof(uint16_t)};
  return memory;
}

constexpr size_t kRowBytes = kItemWidth * sizeof(uint16_t);

// Which row is read is known only when the row before has come.
double ReadInTurnUs(const MemoryRegion& table, size_t rows, size_t reads) {
  uint64_t state = 1;
  return MedianUs([&](size_t) {
    for (size_t r = 0; r < reads; ++r) {
      const auto row = static_cast<size_t>((state >> 32) * rows >> 32);
      state = state * 6364136223846793005 + 1442695040888963407 +
              *reinterpret_cast<const uint64_t*>(table.data() + row * kRowBytes);
    }
    [[maybe_unused]] volatile uint64_t kept = state;  // or nothing need be read
  });
}

void Rows(double most) {
  constexpr size_t kCandidates = 200, kBehaviours = 100;
  for (const double rows : {1e4, 1e5, 1e6, 1e7, 3e7, 1e8}) {
    if (rows > most) break;
    // And a gigabyte for all else.
    const MemoryBudget budget = TightestMemoryBudget(0);
    const double left = static_cast<double>(budget.limit) - static_cast<double>(budget.used);
    if (const double needed = rows * kRowBytes + 1e9; needed > left) {
      std::fprintf(stderr, "scaling_bench: left out %.0f rows and more: they need %.1f GB, %.1f are free\n", rows,
                   needed * 1e-9, left * 1e-9);
      break;
    }
    for (const Pages pages : {Pages::kHuge, Pages::kSmall}) {
      RawModel raw = testing::PaperModel();
      const MemoryRegion memory = ResizeItems(raw, static_cast<int64_t>(rows), pages);
      const auto model = OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet()));
      // So many that what one has read is out of the caches when its turn comes again: 600,000 rows of 128 bytes.
      const std::vector<ScoringInput> inputs = DrawInputs(raw, *model, kCandidates, kBehaviours, 2000);
      if (pages == Pages::kHuge) Print("whole request", rows, ScoreUs(*model, inputs));
      const EmbeddingTable table{memory.data(), RowType::kF16, static_cast<size_t>(rows), kItemWidth};
      std::vector<float> out(kCandidates * kItemWidth);
      Print(pages == Pages::kHuge ? "look-up of 200 items" : "in small pages", rows, MedianUs([&](size_t n) {
              // Other requests than those that were scored just now.
              const auto& ids = inputs[(n + inputs.size() / 2) % inputs.size()].columns[0].rows;
              Gather(table, ids, out.data(), kItemWidth, BestInstructionSet());
            }));
      if (pages == Pages::kHuge) {
        Print("200 reads in turn", rows, ReadInTurnUs(memory, static_cast<size_t>(rows), kCandidates));
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

void Models(double most) {
  for (const auto& [candidates, behaviours] : {std::pair<size_t, size_t>{200, 100}, {50, 50}, {1, 50}}) {
    std::vector<RawModel> raws;
    std::vector<std::unique_ptr<const DinModel>> models;
    std::vector<std::vector<ScoringInput>> inputs;
    Workspace workspace;
    std::vector<float> scores(candidates);
    // The same numbers in memory of their own: drawing 256 models would take minutes.
    const RawModel original = testing::PaperModel();
    for (size_t count = 1; static_cast<double>(count) <= most; count *= 4) {
      while (models.size() < count) {
        RawModel& raw = raws.emplace_back();
        raw.spec = original.spec;
        for (const auto& [name, tensor] : original.tensors) {
          auto& bytes = raw.memory.emplace_back(std::make_unique<std::byte[]>(tensor.bytes));
          std::memcpy(bytes.get(), tensor.data, tensor.bytes);
          raw.tensors[name] = tensor;
          raw.tensors[name].data = bytes.get();
        }
        models.push_back(OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet())));
        inputs.push_back(DrawInputs(raw, *models.back(), candidates, behaviours, 2));
      }
      Print(absl::StrCat(candidates, " x ", behaviours), static_cast<double>(count), MedianUs([&](size_t n) {
              const size_t m = n % count;
              models[m]->Score(inputs[m][n / count % 2], workspace, scores);
            }));
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// The item ids become keys of a vocabulary.
std::vector<int64_t> UseVocabulary(RawModel& raw, int64_t rows) {
  v1::IdMap& map = *raw.spec.mutable_id_maps(0);
  map.mutable_vocabulary()->set_first_row(0);
  std::vector<int64_t> keys(static_cast<size_t>(rows));
  for (size_t k = 0; k < keys.size(); ++k) keys[k] = static_cast<int64_t>(k * 2'654'435'761u + 12'345);
  raw.AddIntegers("vocab." + map.name() + ".keys", keys);
  return keys;
}

// From a directory on disk, as the server loads it.
void Memory(const std::string& directory, double most) {
  enum class Ids { kIdentity, kVocabulary };
  for (const auto& [ids, label] : {std::pair{Ids::kIdentity, "ids are rows"}, {Ids::kVocabulary, "vocabulary"}}) {
    for (const int64_t rows : {1'000'000, 2'000'000, 4'000'000, 8'000'000}) {
      if (static_cast<double>(rows) > most) break;
      std::filesystem::remove_all(directory);
      {
        RawModel raw = testing::PaperModel();
        const MemoryRegion memory = ResizeItems(raw, rows);
        if (ids == Ids::kVocabulary) UseVocabulary(raw, rows);
        const absl::Status status =
            WriteSnapshot(directory, 1, {.spec = raw.spec, .tensors = raw.tensors, .golden = {}, .unverified = true});
        if (!status.ok()) testing::Die(status.ToString());
      }
      const double before = ResidentBytes();
      const double begin = Now();
      const ModelHandle model =
          OrDie(LoadModelFrom(absl::StrCat(directory, "/1"), "scaling", 1, {.allow_unverified = true}));
      Print(absl::StrCat("seconds, ", label), static_cast<double>(rows), Now() - begin);
      Print(absl::StrCat("resident MB, ", label), static_cast<double>(rows), (ResidentBytes() - before) * 1e-6);
    }
  }
  std::filesystem::remove_all(directory);
}

int Main(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments[0];
  double most = INFINITY;
  if (arguments.size() <= 1 || (arguments.size() == 2 && absl::SimpleAtod(arguments[1], &most) && most >= 1)) {
    if (what == "pairs") return Pairs(std::min(most, 1e7)), 0;
    if (what == "rows") return Rows(most), 0;
    if (what == "models") return Models(std::min(most, 256.0)), 0;
    if (what == "memory") {
      return Memory((std::filesystem::temp_directory_path() / absl::StrCat("din-scaling-", getpid())).string(), most),
             0;
    }
  }
  std::fputs("scaling_bench pairs|rows|models|memory [MOST]\n", stderr);
  return 2;
}

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) { return din::bench::Main(std::vector<std::string>(argv + 1, argv + argc)); }
