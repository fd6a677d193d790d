#include "bench/swap/version_stock.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/load/request_file.h"
#include "model/din_model.h"
#include "model/status_macros.h"
#include "model_loader/file.h"
#include "model_loader/json.h"
#include "model_loader/manifest.h"
#include "model_loader/memory.h"
#include "model_loader/safetensors.h"
#include "model_loader/sha256.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::swap {
namespace {

constexpr char kTable[] = "table.item";
constexpr char kHeadBias[] = "head.b";
constexpr char kTableFile[] = "table.safetensors";
constexpr char kPatchFile[] = "rows.safetensors";
constexpr char kLayersFile[] = "layers.safetensors";
constexpr char kHeadFile[] = "head.safetensors";
constexpr size_t kPieceBytes = size_t{4} << 20;

// Uniform with variance 1, as the calibrated layers expect, and fast enough for gigabytes.
void Fill(std::span<float> values, uint64_t seed) {
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (float& value : values) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    value = (static_cast<float>(state >> 40) * 0x1p-23f - 1.0f) * 1.7320508f;
  }
}

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// Writes one file in pieces and digests it on the way.
absl::StatusOr<ManifestFile> WriteDigested(const Directory& directory, const std::string& on_disk,
                                           const std::string& listed_as,
                                           std::span<const std::span<const std::byte>> parts) {
  DIN_ASSIGN_OR_RETURN(WritableFile file, directory.CreateFile(on_disk));
  FileDigester digester;
  for (std::span<const std::byte> part : parts) {
    while (!part.empty()) {
      const auto piece = part.first(std::min(part.size(), kPieceBytes));
      digester.Update(piece);
      DIN_RETURN_IF_ERROR(file.Append(piece));
      part = part.subspan(piece.size());
    }
  }
  DIN_RETURN_IF_ERROR(file.Sync());
  return digester.Finish(listed_as);
}

absl::StatusOr<ManifestFile> WriteText(const Directory& directory, const std::string& name, std::string_view text) {
  const std::span<const std::byte> parts[] = {Bytes(text)};
  return WriteDigested(directory, name, name, parts);
}

absl::StatusOr<ManifestFile> WriteTensors(const Directory& directory, const std::string& on_disk,
                                          const std::string& listed_as, const TensorMap& tensors) {
  std::vector<NamedTensor> sorted;
  for (const auto& [name, tensor] : tensors) sorted.push_back({name, &tensor});
  SortForWriting(sorted);
  const std::string header = FormatSafetensorsHeader(sorted);
  std::vector<std::span<const std::byte>> parts = {Bytes(header)};
  for (const NamedTensor& t : sorted) parts.emplace_back(t.tensor->data, t.tensor->bytes);
  return WriteDigested(directory, on_disk, listed_as, parts);
}

Tensor FloatTensor(std::span<const float> values, std::vector<int64_t> shape) {
  return {.type = DataType::kF32,
          .shape = std::move(shape),
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .bytes = values.size_bytes()};
}

void SpoilLastChunk(ManifestFile& file) {
  std::string& last = file.chunk_sha256.back();
  last.front() = last.front() == '0' ? '1' : '0';
  Sha256 root;
  for (const std::string& chunk : file.chunk_sha256) root.Update(*ParseHex(chunk));
  file.root_sha256 = Hex(root.Finish());
}

std::string TableOnDisk(const std::string& model, int64_t variant) { return absl::StrCat(model, "-table-", variant); }
std::string PatchOnDisk(const std::string& model, int patch) { return absl::StrCat(model, "-rows-", patch); }
std::string LayersOnDisk(const std::string& model) { return absl::StrCat(model, "-layers"); }

}  // namespace

const char* Name(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "good";
    case Fault::kNotFinite:
      return "a NaN";
    case Fault::kWrongGolden:
      return "a wrong golden score";
    case Fault::kOtherBytes:
      return "other bytes";
  }
  return "?";
}

absl::StatusOr<std::unique_ptr<VersionStock>> VersionStock::Create(const Options& options) {
  std::unique_ptr<VersionStock> stock(new VersionStock(options));
  DIN_RETURN_IF_ERROR(MakeDirectories(options.directory));
  DIN_RETURN_IF_ERROR(MakeDirectories(absl::StrCat(options.root, "/", options.model)));
  DIN_RETURN_IF_ERROR(stock->Build());
  return stock;
}

absl::Status VersionStock::Build() {
  constexpr uint64_t kRowBytes = 64 * sizeof(float);
  const auto rows = static_cast<int64_t>(std::max<uint64_t>(options_.table_bytes / kRowBytes, 1000));
  testing::RawModel raw = testing::PaperModel({.seed = options_.seed, .behaviours = options_.behaviours});
  spec_ = raw.spec;
  for (v1::Table& table : *spec_.mutable_tables()) {
    if (table.name() == "item") table.set_rows(rows);
  }
  for (v1::IdMap& map : *spec_.mutable_id_maps()) {
    if (map.name() == "item") map.mutable_identity()->set_size(rows);
  }

  DIN_ASSIGN_OR_RETURN(const Directory directory, Directory::Open(options_.directory));
  DIN_ASSIGN_OR_RETURN(const MemoryRegion memory, MemoryRegion::Create(static_cast<uint64_t>(rows) * kRowBytes));
  const std::span<float> values(reinterpret_cast<float*>(memory.data()), static_cast<size_t>(rows) * 64);
  TensorMap layers = raw.tensors;
  layers.erase(kTable);
  layers.erase(kHeadBias);
  DIN_ASSIGN_OR_RETURN(layers_, WriteTensors(directory, LayersOnDisk(options_.model), kLayersFile, layers));

  testing::Rng rng(options_.seed);
  TensorMap tensors = raw.tensors;
  tensors[kTable] = FloatTensor(values, {rows, 64});
  std::vector<v1::GoldenCase> cases;
  for (size_t r = 0; r < options_.requests; ++r) {
    cases.push_back(testing::RandomRequest(rng, spec_, tensors,
                                           {.candidates = options_.candidates, .behaviours = options_.behaviours}));
    requests_.push_back(load::RequestOf(cases.back(), options_.model));
  }
  const std::vector<v1::GoldenCase> golden = {
      testing::RandomRequest(rng, spec_, tensors, {.candidates = 5, .behaviours = 0}),
      testing::RandomRequest(rng, spec_, tensors, {.candidates = 5, .behaviours = options_.behaviours})};

  std::vector<int64_t> changed(static_cast<size_t>(options_.delta_share * static_cast<double>(rows)));
  for (int64_t& row : changed) row = static_cast<int64_t>(rng() % static_cast<uint64_t>(rows));
  std::ranges::sort(changed);
  changed.erase(std::ranges::unique(changed).begin(), changed.end());
  const auto count = static_cast<int64_t>(changed.size());
  std::vector<float> changes(changed.size() * 64);
  const auto patch_table = [&](int patch) {
    Fill(changes, 100 * options_.seed + static_cast<uint64_t>(patch));
    for (size_t i = 0; i < changed.size(); ++i) {
      std::copy_n(changes.begin() + 64 * i, 64, values.begin() + 64 * changed[i]);
    }
  };

  for (int b = 0; b < kBiases; ++b) head_bias_[b] = raw.Floats(kHeadBias)[0] + 0.01f * static_cast<float>(b);
  contents_.resize(kTables * kPatches * kBiases);
  for (int table = 0; table < kTables; ++table) {
    Fill(values, 2 * options_.seed + static_cast<uint64_t>(table));
    DIN_ASSIGN_OR_RETURN(tables_[table], WriteTensors(directory, TableOnDisk(options_.model, table), kTableFile,
                                                      {{kTable, tensors[kTable]}}));
    for (int patch = 0; patch < kPatches; ++patch) {
      if (patch > 0) patch_table(patch);
      if (patch > 0 && table == 0) {
        const Tensor numbers{.type = DataType::kI64,
                             .shape = {count},
                             .data = reinterpret_cast<const std::byte*>(changed.data()),
                             .bytes = changed.size() * sizeof(int64_t)};
        DIN_ASSIGN_OR_RETURN(
            patches_[patch],
            WriteTensors(directory, PatchOnDisk(options_.model, patch), kPatchFile,
                         {{absl::StrCat("delta.rows.", kTable), numbers},
                          {absl::StrCat("delta.values.", kTable), FloatTensor(changes, {count, 64})}}));
      }
      for (int b = 0; b < kBiases; ++b) {
        Content& content = contents_[static_cast<size_t>((table * kPatches + patch) * kBiases + b)];
        tensors[kHeadBias] = FloatTensor({&head_bias_[b], 1}, {1});
        DIN_ASSIGN_OR_RETURN(const auto model,
                             DinModel::Create(spec_, tensors, BestInstructionSet(), Precision::kFp32Split));
        ScoringInput input;
        Workspace workspace;
        const auto score = [&](const v1::GoldenCase& request) {
          input = testing::DecodeOrDie(model->decoder(), request);
          std::vector<float> scores(input.candidates);
          model->Score(input, workspace, scores);
          return scores;
        };
        for (const v1::GoldenCase& request : cases) content.scores.push_back(score(request));
        for (v1::GoldenCase one : golden) {
          one.set_id(absl::StrCat("case-", content.golden.size()));
          one.set_tolerance(1e-5);
          for (const float s : score(one)) one.add_scores(s);
          content.golden.push_back(std::move(one));
        }
      }
    }
  }
  return absl::OkStatus();
}

std::span<const float> VersionStock::Expected(int64_t version, size_t request) const {
  const std::lock_guard lock(mutex_);
  const auto found = published_.find(version);
  if (found == published_.end()) return {};
  return ContentOf(found->second).scores[request];
}

absl::Status VersionStock::Publish(int64_t version, Fault fault) {
  return Write(version, {.table = static_cast<int>(version % kTables), .bias = static_cast<int>(version % kBiases)},
               fault);
}

absl::Status VersionStock::PublishDelta(int64_t version, int64_t base) {
  const Published under = published_.at(base);
  return Write(
      version,
      {.table = under.table, .patch = 1 + under.patch % 2, .bias = static_cast<int>(version % kBiases), .base = base},
      Fault::kNone);
}

absl::Status VersionStock::Write(int64_t version, Published what, Fault fault) {
  const bool delta = what.base != 0;
  const std::string parent = absl::StrCat(options_.root, "/", options_.model);
  const std::string temporary = absl::StrCat(".tmp-", version, "-", getpid());
  DIN_ASSIGN_OR_RETURN(const Directory model_directory, Directory::Open(parent));
  DIN_RETURN_IF_ERROR(model_directory.MakeDirectory(temporary));
  DIN_ASSIGN_OR_RETURN(const Directory directory, model_directory.OpenDirectory(temporary));
  Manifest manifest{.base = delta ? published_.at(what.base).digest : ""};
  const auto link = [&](const std::string& from, const ManifestFile& file) {
    std::error_code error;
    std::filesystem::create_hard_link(options_.directory + "/" + from, parent + "/" + temporary + "/" + file.name,
                                      error);
    manifest.files.push_back(file);
    return error ? absl::UnavailableError(absl::StrCat(from, ": hard link: ", error.message())) : absl::OkStatus();
  };
  if (delta) {
    DIN_RETURN_IF_ERROR(link(PatchOnDisk(options_.model, what.patch), patches_[what.patch]));
  } else {
    DIN_RETURN_IF_ERROR(link(LayersOnDisk(options_.model), layers_));
    DIN_RETURN_IF_ERROR(link(TableOnDisk(options_.model, what.table), tables_[what.table]));
    if (fault == Fault::kOtherBytes) SpoilLastChunk(manifest.files.back());
  }
  v1::ModelSpec spec = spec_;
  spec.set_description(absl::StrCat("swap_bench, version ", version));
  std::string golden;
  for (v1::GoldenCase one : ContentOf(what).golden) {
    if (fault == Fault::kWrongGolden) {
      one.set_scores(0, one.scores(0) < 0.5f ? one.scores(0) + 0.1f : one.scores(0) - 0.1f);
    }
    absl::StrAppend(&golden, FormatJson(one), "\n");
  }
  const float bias = fault == Fault::kNotFinite ? std::numeric_limits<float>::quiet_NaN() : head_bias_[what.bias];
  DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), WriteText(directory, kSpecName, FormatJsonPretty(spec)));
  DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), WriteText(directory, kGoldenName, golden));
  DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(),
                       WriteTensors(directory, kHeadFile, kHeadFile, {{kHeadBias, FloatTensor({&bias, 1}, {1})}}));
  std::ranges::sort(manifest.files, {}, &ManifestFile::name);
  const std::string text = FormatManifest(manifest);
  DIN_ASSIGN_OR_RETURN(const Manifest parsed, ParseManifest(text));
  what.digest = parsed.digest;
  DIN_RETURN_IF_ERROR(WriteText(directory, kManifestName, text).status());
  {
    const std::lock_guard lock(mutex_);
    published_[version] = what;
  }
  on_disk_.insert(version);
  return model_directory.RenameKeep(temporary, absl::StrCat(version));
}

std::string VersionStock::DirectoryOf(int64_t version) const {
  return absl::StrCat(options_.root, "/", options_.model, "/", version);
}

std::vector<std::string> VersionStock::Chain(int64_t version) const {
  std::vector<std::string> directories;
  for (; version != 0; version = published_.at(version).base) directories.push_back(DirectoryOf(version));
  return directories;
}

void VersionStock::RemoveBefore(int64_t version, int64_t live) {
  const std::vector<std::string> needed = Chain(live);
  std::erase_if(on_disk_, [&](int64_t one) {
    const std::string directory = DirectoryOf(one);
    if (one >= version || std::ranges::find(needed, directory) != needed.end()) return false;
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
    return true;
  });
}

}  // namespace din::swap
