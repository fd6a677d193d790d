// A version that says only what changed must be, bit for bit, the version that it stands for.
#include "model_loader/delta.h"

#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "model/din_model.h"
#include "model_loader/load_model.h"
#include "model_loader/manifest.h"
#include "model_loader/root_scanner.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr uint32_t kSeed = 20240612;

// --- Tensors ---------------------------------------------------------------------------------------------------------

// Large enough to be overlaid, with a last word of bits that is not full.
constexpr int64_t kRows = 60'011, kDim = 19;

std::vector<uint16_t> RandomTable(std::mt19937& random) {
  std::vector<uint16_t> values(kRows * kDim);
  for (uint16_t& value : values) value = static_cast<uint16_t>(random() % 0x7C00);  // finite halves
  return values;
}

std::vector<float> GatherAll(const Tensor& tensor, InstructionSet isa) {
  const EmbeddingTable table{
      .data = tensor.data, .type = RowType::kF16, .rows = kRows, .dim = kDim, .overlay = tensor.overlay};
  std::vector<uint32_t> rows(kRows);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> out(kRows * kDim);
  Gather(table, rows, out.data(), kDim, isa);
  return out;
}

// A window that begins in the middle of the tensor sees the same rows.
std::vector<float> GatherWindow(const Tensor& tensor, size_t first, InstructionSet isa) {
  const EmbeddingTable table{.data = tensor.data + first * kDim * 2,
                             .type = RowType::kF16,
                             .rows = kRows - first,
                             .dim = kDim,
                             .overlay = tensor.overlay,
                             .overlay_offset = first};
  std::vector<uint32_t> rows(kRows - first);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> out(rows.size() * kDim);
  Gather(table, rows, out.data(), kDim, isa);
  return out;
}

// Rows of `table` that get new values; what a delta of them holds.
OwnedTensors Change(std::vector<uint16_t>& table, size_t count, std::mt19937& random) {
  std::map<int64_t, std::vector<uint16_t>> changed;
  while (changed.size() < count) {
    std::vector<uint16_t>& row = changed[static_cast<int64_t>(random() % kRows)];
    row.resize(kDim);
    for (uint16_t& value : row) value = static_cast<uint16_t>(random() % 0x7C00);
  }
  std::vector<int64_t> rows;
  std::vector<uint16_t> values;
  for (const auto& [number, row] : changed) {
    rows.push_back(number);
    values.insert(values.end(), row.begin(), row.end());
    std::copy(row.begin(), row.end(), table.begin() + number * kDim);
  }
  OwnedTensors delta;
  delta.Add("delta.rows.table.item", DataType::kI64, {static_cast<int64_t>(count)}, rows);
  delta.Add("delta.values.table.item", DataType::kF16, {static_cast<int64_t>(count), kDim}, values);
  return delta;
}

TEST(ApplyDeltaTest, AChainOfDeltasGivesTheRowsOfTheWholeTable) {
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  std::vector<uint16_t> truth = RandomTable(random);
  OwnedTensors full;
  full.Add("table.item", DataType::kF16, {kRows, kDim}, truth);
  full.Add<float>("head.b", DataType::kF32, {1}, {1});
  const DeltaOptions options{.tables = {"table.item"}, .most_overlaid = 0.125};
  TensorMap tensors = full.map();
  std::deque<TensorMemory> memory;
  bool overlaid = false, copied = false;
  // 1 % each: some twelve lie over the table, then it is copied, and the next ones begin anew.
  for (int step = 0; step < 20; ++step) {
    const OwnedTensors delta = Change(truth, kRows / 100, random);
    auto applied = ApplyDelta(tensors, delta.map(), options);
    ASSERT_TRUE(applied.ok()) << applied.status();
    memory.push_back(std::move(applied->memory));
    tensors = std::move(applied->tensors);
    const Tensor& table = tensors.at("table.item");
    (table.overlay != nullptr ? overlaid : copied) = true;
    OwnedTensors expected;
    expected.Add("table.item", DataType::kF16, {kRows, kDim}, truth);
    for (const InstructionSet isa : SupportedInstructionSets()) {
      ASSERT_EQ(GatherAll(table, isa), GatherAll(expected.map().at("table.item"), isa)) << step << " " << Name(isa);
      ASSERT_EQ(GatherWindow(table, 777, isa), GatherWindow(expected.map().at("table.item"), 777, isa)) << step;
    }
    EXPECT_EQ(tensors.at("head.b").data, full.map().at("head.b").data);
  }
  EXPECT_TRUE(overlaid);
  EXPECT_TRUE(copied);
}

TEST(ApplyDeltaTest, WithoutOverlaysEveryTensorIsPlain) {
  std::mt19937 random(kSeed);
  std::vector<uint16_t> truth = RandomTable(random);
  OwnedTensors full;
  full.Add("table.item", DataType::kF16, {kRows, kDim}, truth);
  const OwnedTensors first = Change(truth, 50, random), second = Change(truth, 50, random);
  // Over one with an overlay, too.
  const auto below = ApplyDelta(full.map(), first.map(), {.tables = {"table.item"}, .most_overlaid = 0.125});
  ASSERT_TRUE(below.ok() && below->tensors.at("table.item").overlay != nullptr);
  const auto applied = ApplyDelta(below->tensors, second.map(), {.tables = {"table.item"}, .most_overlaid = 0});
  ASSERT_TRUE(applied.ok()) << applied.status();
  const Tensor& table = applied->tensors.at("table.item");
  EXPECT_EQ(table.overlay, nullptr);
  EXPECT_EQ(std::memcmp(table.data, truth.data(), table.bytes), 0);
}

TEST(ApplyDeltaTest, OnlyEmbeddingTablesAreOverlaid) {
  std::mt19937 random(kSeed);
  std::vector<uint16_t> truth = RandomTable(random);
  OwnedTensors full;
  full.Add("table.item", DataType::kF16, {kRows, kDim}, truth);
  const OwnedTensors delta = Change(truth, 50, random);
  const auto applied = ApplyDelta(full.map(), delta.map(), {.tables = {}, .most_overlaid = 1});
  ASSERT_TRUE(applied.ok()) << applied.status();
  EXPECT_EQ(applied->tensors.at("table.item").overlay, nullptr);
}

TEST(ApplyDeltaTest, ADeltaThatSaysNonsenseIsRefused) {
  OwnedTensors base;
  base.Add<float>("t", DataType::kF32, {4, 2}, std::vector<float>(8, 1));
  base.Add<float>("scalar", DataType::kF32, {}, {1});
  const std::vector<float> values(4, 2);
  const auto refused = [&](const std::function<void(OwnedTensors&)>& fill, const std::string& why) {
    OwnedTensors delta;
    fill(delta);
    ExpectError(ApplyDelta(base.map(), delta.map(), {}).status(), StatusCode::kInvalidArgument, {why});
  };
  const auto rows = [](OwnedTensors& d, std::vector<int64_t> r, const std::string& of = "t") {
    d.Add("delta.rows." + of, DataType::kI64, {static_cast<int64_t>(r.size())}, r);
  };
  const auto two = [&](OwnedTensors& d) { d.Add("delta.values.t", DataType::kF32, {2, 2}, values); };
  refused([&](auto& d) { rows(d, {0, 1}); }, "without delta.values.t");
  refused([&](auto& d) { two(d); }, "without delta.rows.t");
  refused(
      [&](auto& d) {
        rows(d, {0, 4});
        two(d);
      },
      "row 4 at position 1 is not in [0, 4)");
  refused(
      [&](auto& d) {
        rows(d, {-1, 0});
        two(d);
      },
      "row -1 at position 0");
  refused(
      [&](auto& d) {
        rows(d, {1, 1});
        two(d);
      },
      "1 at position 1 is not above 1");
  refused(
      [&](auto& d) {
        rows(d, {2, 1});
        two(d);
      },
      "1 at position 1 is not above 2");
  refused(
      [&](auto& d) {
        rows(d, {0, 1, 2});
        two(d);
      },
      "F32 [2, 2], expected F32 [3, 2]");
  refused(
      [&](auto& d) {
        rows(d, {0, 1});
        d.Add("delta.values.t", DataType::kF32, {4}, values);
      },
      "expected F32 [2, 2]");
  refused(
      [&](auto& d) {
        rows(d, {0, 1});
        two(d);
        d.Add("t", DataType::kF32, {4}, values);
      },
      "the delta has the whole");
  refused(
      [&](auto& d) {
        rows(d, {0}, "u");
        d.Add("delta.values.u", DataType::kF32, {4}, values);
      },
      "the base has no tensor");
  refused(
      [&](auto& d) {
        rows(d, {0}, "scalar");
        d.Add("delta.values.scalar", DataType::kF32, {4}, values);
      },
      "has no rows");
  refused(
      [&](auto& d) {
        d.Add("delta.rows.t", DataType::kF32, {4}, values);
        two(d);
      },
      "expected I64/I32");
}

TEST(DiffTensorsTest, ADifferenceGivesBackTheNewTensors) {
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    OwnedTensors base, next;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, double change) {
      int64_t n = 1;
      for (const int64_t d : shape) n *= d;
      std::vector<int32_t> values(static_cast<size_t>(n));
      for (int32_t& v : values) v = static_cast<int32_t>(random() % 3);
      base.Add(name, DataType::kI32, shape, values);
      for (int32_t& v : values) v = random() % 1000 < change * 1000 ? 7 : v;
      next.Add(name, DataType::kI32, shape, values);
    };
    add("a", {static_cast<int64_t>(random() % 50), 8}, 0.01);
    add("b", {static_cast<int64_t>(1 + random() % 50)}, 0.9);
    add("c", {3, 2, 2}, 0);
    next.Add<float>("new", DataType::kF32, {1}, {1});
    const auto difference = DiffTensors(base.map(), next.map());
    ASSERT_TRUE(difference.ok()) << difference.status();
    const auto applied = ApplyDelta(base.map(), difference->tensors, {});
    ASSERT_TRUE(applied.ok()) << applied.status();
    ASSERT_EQ(applied->tensors.size(), next.map().size());
    for (const auto& [name, tensor] : next.map()) {
      const Tensor& got = applied->tensors.at(name);
      ASSERT_EQ(Describe(got), Describe(tensor));
      ASSERT_TRUE(std::equal(tensor.data, tensor.data + tensor.bytes, got.data)) << name << ", round " << round;
    }
  }
}

TEST(DiffTensorsTest, ATensorThatIsGoneCannotBeSaid) {
  OwnedTensors base, next;
  base.Add<float>("gone", DataType::kF32, {1}, {1});
  ExpectError(DiffTensors(base.map(), next.map()).status(), StatusCode::kInvalidArgument, {"gone", "in full"});
}

// --- Versions --------------------------------------------------------------------------------------------------------

// The paper's model with a table that is overlaid, in versions that differ in 1 % of the rows and one layer; each is
// published in full and as a delta on the one before.
class DeltaVersionTest : public ::testing::Test {
 protected:
  static constexpr int64_t kItems = 20'000;

  DeltaVersionTest() : model_(testing::PaperModel({.item_rows = kItems})), random_(kSeed) {
    for (size_t behaviours : {0, 7, 50}) {
      requests_.push_back(testing::RandomRequest(rng_, model_.spec, model_.tensors, {40, behaviours, 3}));
    }
  }

  // The golden cases of the model as it is now.
  std::vector<v1::GoldenCase> Golden() {
    const auto model =
        testing::OrDie(DinModel::Create(model_.spec, model_.tensors, BestInstructionSet(), Precision::kFp32Split));
    std::vector<v1::GoldenCase> cases;
    for (v1::GoldenCase one : requests_) {
      one.set_id("case");
      one.set_tolerance(1e-5);
      for (const float score : testing::ScoresOf(*model, one)) one.add_scores(score);
      cases.push_back(std::move(one));
    }
    return cases;
  }

  void ChangeModel() {
    const std::span<float> table = model_.Floats("table.item");
    for (int64_t n = 0; n < kItems / 100; ++n) table[random_() % table.size()] += 0.5f;
    model_.Floats("head.b")[0] += 0.25f;
  }

  void PublishFull(int64_t version) {
    const absl::Status status =
        WriteSnapshot(root_ / "full", version, {model_.spec, model_.tensors, Golden(), false, ""});
    ASSERT_TRUE(status.ok()) << status;
  }

  // What turns version - 1, as it is in `deltas`, into `version` of `full`.
  absl::Status PublishDelta(
      int64_t version, const std::function<void(SnapshotContents&)>& change = [](auto&) {}) {
    const auto base = OpenWithBases(DeltaDirectory(version - 1), {.most_overlaid = 0});
    if (!base.ok()) return base.status();
    const auto difference = DiffTensors((*base)->tensors(), model_.tensors);
    if (!difference.ok()) return difference.status();
    SnapshotContents contents{model_.spec, difference->tensors, Golden(), false, (*base)->digest()};
    change(contents);
    return WriteSnapshot(root_ / "deltas", version, contents);
  }

  std::string DeltaDirectory(int64_t version) const { return root_ / ("deltas/" + std::to_string(version)); }
  absl::StatusOr<ModelHandle> LoadFull(int64_t version) const { return LoadModel(root_.path(), "full", version, {}); }
  absl::StatusOr<ModelHandle> LoadDelta(int64_t version, const ModelHandle& base) const {
    LoadOptions options;
    options.read.base = base == nullptr ? nullptr : base->snapshot.get();
    return LoadModel(root_.path(), "deltas", version, options);
  }

  // Version 1 of both, and what is in `deltas` is a full one.
  void PublishFirst() {
    ASSERT_NO_FATAL_FAILURE(PublishFull(1));
    std::filesystem::create_directory(root_ / "deltas");
    std::filesystem::copy(root_ / "full/1", DeltaDirectory(1));
  }

  TempDirectory root_;
  testing::RawModel model_;
  testing::Rng rng_{kSeed};
  std::mt19937 random_;
  std::vector<v1::GoldenCase> requests_;
};

TEST_F(DeltaVersionTest, ADeltaScoresAsTheFullSnapshotThatItStandsForBitForBit) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  absl::StatusOr<ModelHandle> live = LoadDelta(1, nullptr);
  ASSERT_TRUE(live.ok()) << live.status();
  const uint64_t full_bytes = (*live)->snapshot->memory_bytes();
  for (int64_t version = 2; version <= 16; ++version) {
    ChangeModel();
    ASSERT_NO_FATAL_FAILURE(PublishFull(version));
    ASSERT_TRUE(PublishDelta(version).ok());
    auto next = LoadDelta(version, *live);
    ASSERT_TRUE(next.ok()) << next.status();
    live = std::move(next);  // the base goes; what they share stays
    const auto full = LoadFull(version);
    ASSERT_TRUE(full.ok()) << full.status();
    EXPECT_EQ((*live)->snapshot->deltas(), version - 1);
    for (int round = 0; round < 5; ++round) {
      const v1::GoldenCase request =
          testing::RandomRequest(rng_, model_.spec, model_.tensors, {.candidates = 100, .behaviours = 50});
      ASSERT_EQ(testing::ScoresOf(*(*live)->model, request), testing::ScoresOf(*(*full)->model, request)) << "version " << version;
    }
    EXPECT_LE((*live)->snapshot->memory_bytes(), full_bytes + full_bytes / 4);
  }
}

TEST_F(DeltaVersionTest, OnePercentOfTheRowsTakesFewMoreBytes) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  const auto base = LoadDelta(1, nullptr);
  ChangeModel();
  ASSERT_TRUE(PublishDelta(2).ok());
  const auto next = LoadDelta(2, *base);
  ASSERT_TRUE(next.ok()) << next.status();
  const uint64_t before = (*base)->snapshot->memory_bytes(), after = (*next)->snapshot->memory_bytes();
  EXPECT_LE(after - before, before / 10);
  EXPECT_GT(after, before);
}

// Only its tensors tell how much of a delta has to be copied.
TEST_F(DeltaVersionTest, WhatIsCopiedIsAskedForBefore) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  const auto base = LoadDelta(1, nullptr);
  ASSERT_TRUE(base.ok()) << base.status();
  ChangeModel();
  ASSERT_TRUE(PublishDelta(2).ok());
  LoadOptions options;
  options.read.base = (*base)->snapshot.get();
  uint64_t asked = 0;
  options.read.room_for = [&](uint64_t bytes) {
    asked = bytes;
    return absl::OkStatus();
  };
  const auto next = LoadModel(root_.path(), "deltas", 2, options);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_GT(asked, 0u);
  EXPECT_LE(asked, (*next)->snapshot->memory_bytes() - (*base)->snapshot->memory_bytes());
  options.read.room_for = [](uint64_t) { return absl::ResourceExhaustedError("no room"); };
  ExpectError(LoadModel(root_.path(), "deltas", 2, options).status(), StatusCode::kResourceExhausted,
              {"/deltas/2", "no room"});
}

// What is asked for before a load is enough for it, when rows have to be put in place as well as before.
TEST_F(DeltaVersionTest, TheMemoryThatIsForeseenIsEnoughAndNotMuchMore) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  absl::StatusOr<ModelHandle> live = LoadDelta(1, nullptr);
  ASSERT_TRUE(live.ok()) << live.status();
  const uint64_t full_bytes = (*live)->snapshot->memory_bytes();
  RootScanner scanner(root_.path());
  int copies = 0;
  for (int64_t version = 2; version <= 16; ++version) {
    ChangeModel();
    ASSERT_TRUE(PublishDelta(version).ok());
    auto next = LoadDelta(version, *live);
    ASSERT_TRUE(next.ok()) << next.status();
    const Snapshot &before = *(*live)->snapshot, &after = *(*next)->snapshot;
    const bool copied = before.tensors().at("table.item").data != after.tensors().at("table.item").data;
    const uint64_t taken = copied ? after.memory_bytes() : after.memory_bytes() - before.memory_bytes();
    copies += copied;
    const auto models = scanner.Scan();
    ASSERT_TRUE(models.ok()) << models.status();
    const FoundVersion found = models->front().versions->back();
    ASSERT_EQ(found.version, version);
    EXPECT_GE(found.bytes, taken) << "version " << version << (copied ? ", copied" : "");
    EXPECT_GE(found.chain_bytes, full_bytes);
    if (version == 2) {
      EXPECT_LT(found.bytes, full_bytes / 4);
    }
    live = std::move(next);
  }
  EXPECT_EQ(copies, 1);
}

TEST_F(DeltaVersionTest, ADeltaOnAnotherVersionIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  ChangeModel();
  ASSERT_TRUE(PublishDelta(2).ok());
  ChangeModel();
  ASSERT_TRUE(PublishDelta(3).ok());
  const auto base = LoadDelta(1, nullptr);
  ASSERT_TRUE(base.ok()) << base.status();
  ExpectError(LoadDelta(3, *base).status(), StatusCode::kFailedPrecondition,
              {"/deltas/3/manifest.json: a delta on ", "but the version underneath is " + (*base)->snapshot->digest()});
  ExpectError(Snapshot::Open(DeltaDirectory(3), {}).status(), StatusCode::kFailedPrecondition,
              {"there is no version underneath"});
}

TEST_F(DeltaVersionTest, WithNothingUnderneathTheChainIsReadFromBesideIt) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  for (int64_t version = 2; version <= 4; ++version) {
    ChangeModel();
    ASSERT_TRUE(PublishDelta(version).ok());
  }
  ASSERT_NO_FATAL_FAILURE(PublishFull(4));
  const auto chain = LoadDelta(4, nullptr), full = LoadFull(4);
  ASSERT_TRUE(chain.ok() && full.ok()) << chain.status() << full.status();
  EXPECT_EQ(testing::ScoresOf(*(*chain)->model, requests_[2]), testing::ScoresOf(*(*full)->model, requests_[2]));
  std::filesystem::remove_all(DeltaDirectory(2));
  ExpectError(LoadDelta(4, nullptr).status(), StatusCode::kFailedPrecondition,
              {"/3/manifest.json: a delta that needs ", "not beside it"});
}

TEST_F(DeltaVersionTest, AChainThatIsTooLongIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  auto live = LoadDelta(1, nullptr);
  ASSERT_TRUE(live.ok());
  LoadOptions options;
  options.read.limits.deltas = 2;
  for (int64_t version = 2; version <= 4; ++version) {
    ChangeModel();
    ASSERT_TRUE(PublishDelta(version).ok());
    options.read.base = (*live)->snapshot.get();
    auto next = LoadModel(root_.path(), "deltas", version, options);
    if (version == 4) {
      ExpectError(next.status(), StatusCode::kFailedPrecondition, {"3 deltas", "> limit 2", "publish a full snapshot"});
    } else {
      ASSERT_TRUE(next.ok()) << next.status();
      live = std::move(next);
    }
  }
  options.read.base = nullptr;
  ExpectError(LoadModel(root_.path(), "deltas", 4, options).status(), StatusCode::kFailedPrecondition, {"more than 2"});
}

TEST_F(DeltaVersionTest, ADeltaThatIsNotFiniteIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  ChangeModel();
  const std::vector<v1::GoldenCase> golden = Golden();
  model_.Floats("table.item")[5] = std::numeric_limits<float>::quiet_NaN();
  const auto base = LoadDelta(1, nullptr);
  const auto difference = DiffTensors((*base)->snapshot->tensors(), model_.tensors);
  ASSERT_TRUE(
      WriteSnapshot(root_ / "deltas", 2, {model_.spec, difference->tensors, golden, false, (*base)->snapshot->digest()})
          .ok());
  ExpectError(LoadDelta(2, *base).status(), StatusCode::kInvalidArgument, {"delta.values.table.item", "nan"});
}

TEST_F(DeltaVersionTest, ADeltaThatDoesNotGiveItsGoldenScoresIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  ChangeModel();
  // Stale: the layer was left out.
  ASSERT_TRUE(PublishDelta(2, [](SnapshotContents& c) {
                ASSERT_EQ(c.tensors.erase("head.b") + c.tensors.erase("delta.values.head.b"), 1u);
              }).ok());
  const auto base = LoadDelta(1, nullptr);
  ExpectError(LoadDelta(2, *base).status(), StatusCode::kFailedPrecondition, {"golden case"});
}

TEST_F(DeltaVersionTest, FlippedBitsOfADeltaAreRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  ChangeModel();
  ASSERT_TRUE(PublishDelta(2).ok());
  const auto base = LoadDelta(1, nullptr);
  SCOPED_TRACE(kSeed);
  for (const char* name : {"manifest.json", "model.json", "golden.jsonl", "weights.safetensors"}) {
    const std::string path = DeltaDirectory(2) + "/" + name, bytes = ReadFile(path);
    for (int round = 0; round < 40; ++round) {
      std::string flipped = bytes;
      flipped[random_() % flipped.size()] ^= static_cast<char>(1 << random_() % 8);
      WriteFile(path, flipped);
      ExpectError(LoadDelta(2, *base).status(), StatusCode::kDataLoss, {name});
    }
    WriteFile(path, bytes);
  }
  EXPECT_TRUE(LoadDelta(2, *base).ok());
}

// --- The manifest ----------------------------------------------------------------------------------------------------

TEST_F(DeltaVersionTest, ItsManifestNamesTheBaseInOneForm) {
  ASSERT_NO_FATAL_FAILURE(PublishFirst());
  ChangeModel();
  ASSERT_TRUE(PublishDelta(2).ok());
  const std::string bytes = ReadFile(DeltaDirectory(2) + "/manifest.json");
  const std::string base = ReadManifest(DeltaDirectory(1), {})->digest;
  EXPECT_THAT(bytes, ::testing::StartsWith(R"({"format":2,"base":")" + base + R"(","unverified":false,)"));
  EXPECT_EQ(ClaimedBase(bytes), base);
  EXPECT_EQ(ClaimedBase(bytes.substr(0, 60)), "");
  EXPECT_EQ(ClaimedBase(ReadFile(DeltaDirectory(1) + "/manifest.json")), "");
  const auto manifest = ParseManifest(bytes);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->base, base);
  EXPECT_EQ(FormatManifest(*manifest), bytes);
  Manifest other = *manifest;
  other.base = "0123";
  ExpectError(ParseManifest(FormatManifest(other)).status(), StatusCode::kInvalidArgument, {"base \"0123\""});
}

}  // namespace
}  // namespace din
