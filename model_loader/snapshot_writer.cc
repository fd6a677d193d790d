#include "model_loader/snapshot_writer.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/file.h"
#include "model_loader/json.h"
#include "model_loader/manifest.h"
#include "model_loader/quote.h"
#include "model_loader/safetensors.h"
#include "model_loader/snapshot.h"

namespace din {
namespace {

constexpr char kWeightsName[] = "weights.safetensors";
constexpr char kTemporaryManifest[] = ".manifest.json.tmp";
// Written and digested while it is in the cache.
constexpr size_t kPieceBytes = size_t{256} << 10;

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// A file on its way to disk that is digested as it is written.
class DigestedFile {
 public:
  static absl::StatusOr<DigestedFile> Create(const Directory& directory, const std::string& name) {
    DIN_ASSIGN_OR_RETURN(WritableFile file, directory.CreateFile(name));
    return DigestedFile(name, std::move(file));
  }

  absl::Status Append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
      digester_.Update(piece);
      DIN_RETURN_IF_ERROR(file_.Append(piece));
      bytes = bytes.subspan(piece.size());
    }
    return absl::OkStatus();
  }

  // Waits for the disk.
  absl::StatusOr<ManifestFile> Finish() {
    DIN_RETURN_IF_ERROR(file_.Sync());
    return digester_.Finish(name_);
  }

 private:
  DigestedFile(std::string name, WritableFile file) : name_(std::move(name)), file_(std::move(file)) {}

  std::string name_;
  WritableFile file_;
  FileDigester digester_;
};

absl::StatusOr<ManifestFile> WriteSpec(const Directory& directory, const v1::ModelSpec& spec) {
  DIN_ASSIGN_OR_RETURN(DigestedFile file, DigestedFile::Create(directory, kSpecName));
  DIN_RETURN_IF_ERROR(file.Append(Bytes(FormatJsonPretty(spec))));
  return file.Finish();
}

absl::StatusOr<ManifestFile> WriteGolden(const Directory& directory, const std::vector<v1::GoldenCase>& golden) {
  DIN_ASSIGN_OR_RETURN(DigestedFile file, DigestedFile::Create(directory, kGoldenName));
  for (const v1::GoldenCase& one : golden) DIN_RETURN_IF_ERROR(file.Append(Bytes(FormatJson(one) + "\n")));
  return file.Finish();
}

// The header for these tensors, held to what a reader will ask of it.
absl::StatusOr<std::string> FormatHeader(const std::vector<NamedTensor>& tensors) {
  std::string header = FormatSafetensorsHeader(tensors);
  uint64_t file_size = header.size();
  for (const NamedTensor& t : tensors) file_size += t.tensor->bytes;
  const SnapshotLimits limits;
  const auto parsed =
      ParseSafetensorsHeader(header, file_size, {.header_bytes = limits.header_bytes, .tensors = limits.tensors});
  DIN_RETURN_IF_ERROR(parsed.status());
  for (const SafetensorsEntry& entry : parsed->entries) {
    const bool same = std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == entry.name; });
    if (!same) return absl::InvalidArgumentError(absl::StrCat("tensor name ", Quote(entry.name), ": not UTF-8"));
  }
  return header;
}

absl::StatusOr<ManifestFile> WriteTensors(const Directory& directory, const TensorMap& tensors) {
  std::vector<NamedTensor> sorted;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.overlay != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(name), ": some of its rows lie elsewhere"));
    }
    sorted.push_back({name, &tensor});
  }
  SortForWriting(sorted);
  const absl::StatusOr<std::string> header = FormatHeader(sorted);
  if (!header.ok()) return Prefixed(absl::StrCat(kWeightsName, ": "), header.status());

  DIN_ASSIGN_OR_RETURN(DigestedFile file, DigestedFile::Create(directory, kWeightsName));
  DIN_RETURN_IF_ERROR(file.Append(Bytes(*header)));
  for (const NamedTensor& t : sorted) {
    DIN_RETURN_IF_ERROR(file.Append(std::span(t.tensor->data, t.tensor->bytes)));
  }
  return file.Finish();
}

// Everything else is on disk: now say so.
absl::Status WriteManifest(const Directory& directory, Manifest manifest) {
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
  const std::string bytes = FormatManifest(manifest);
  DIN_RETURN_IF_ERROR(ParseManifest(bytes).status());
  DIN_ASSIGN_OR_RETURN(const bool left_over, directory.Has(kTemporaryManifest));
  if (left_over) DIN_RETURN_IF_ERROR(directory.RemoveFile(kTemporaryManifest));
  DIN_ASSIGN_OR_RETURN(WritableFile file, directory.CreateFile(kTemporaryManifest));
  DIN_RETURN_IF_ERROR(file.Append(Bytes(bytes)));
  DIN_RETURN_IF_ERROR(file.Sync());
  DIN_RETURN_IF_ERROR(directory.RenameReplace(kTemporaryManifest, kManifestName));
  return directory.Sync();
}

absl::Status WriteFiles(const Directory& directory, const SnapshotContents& contents) {
  Manifest manifest{.base = contents.base, .unverified = contents.unverified};
  DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), WriteSpec(directory, contents.spec));
  if (!contents.golden.empty()) {
    DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), WriteGolden(directory, contents.golden));
  }
  DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), WriteTensors(directory, contents.tensors));
  return WriteManifest(directory, std::move(manifest));
}

std::string TemporaryPrefix(int64_t version) { return absl::StrCat(".tmp-", version, "-"); }

// What writers of this version left behind when they died. One that is alive holds its directory's lock.
absl::Status RemoveStale(const Directory& model_directory, int64_t version) {
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, model_directory.List());
  for (const std::string& name : names) {
    if (!name.starts_with(TemporaryPrefix(version))) continue;
    const absl::StatusOr<Directory> stale = model_directory.OpenDirectory(name);
    if (!stale.ok() || !stale->TryLock()) continue;
    DIN_RETURN_IF_ERROR(model_directory.RemoveDirectoryOfFiles(name));
  }
  return absl::OkStatus();
}

absl::Status Publish(const Directory& model_directory, int64_t version, const SnapshotContents& contents) {
  const std::string name = absl::StrCat(version);
  DIN_ASSIGN_OR_RETURN(const bool there, model_directory.Has(name));
  if (there) return absl::AlreadyExistsError(absl::StrCat(name, ": this version is there already"));
  DIN_RETURN_IF_ERROR(RemoveStale(model_directory, version));

  const std::string temporary =
      absl::StrCat(TemporaryPrefix(version), getpid(), "-", absl::Hex(std::random_device()(), absl::kZeroPad8));
  DIN_RETURN_IF_ERROR(model_directory.MakeDirectory(temporary));
  DIN_ASSIGN_OR_RETURN(const Directory directory, model_directory.OpenDirectory(temporary));
  if (!directory.TryLock()) {
    return absl::AbortedError(absl::StrCat(temporary, ": taken by another writer of this version"));
  }
  absl::Status status = WriteFiles(directory, contents);
  if (status.ok()) status = model_directory.RenameKeep(temporary, name);
  if (!status.ok()) {
    // The reason is what matters; a directory that cannot be removed is the next writer's to remove.
    (void)model_directory.RemoveDirectoryOfFiles(temporary);
    return status;
  }
  return model_directory.Sync();
}

// The entry of a file that somebody else wrote, which is on disk afterwards.
absl::StatusOr<ManifestFile> DigestFile(const Directory& directory, const std::string& name) {
  DIN_ASSIGN_OR_RETURN(const ReadableFile file, directory.OpenFile(name));
  DIN_RETURN_IF_ERROR(file.Sync());
  FileDigester digester;
  std::vector<std::byte> buffer(kPieceBytes);
  for (uint64_t at = 0; at < file.size(); at += kPieceBytes) {
    const std::span<std::byte> piece(buffer.data(), std::min<uint64_t>(kPieceBytes, file.size() - at));
    DIN_RETURN_IF_ERROR(file.ReadAt(at, piece));
    digester.Update(piece);
  }
  return digester.Finish(name);
}

absl::Status Seal(const Directory& directory, bool unverified) {
  Manifest manifest{.unverified = unverified};
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory.List());
  for (const std::string& name : names) {
    const bool hidden = name.front() == '.';
    if (!hidden && name.ends_with(".safetensors") && !IsTensorFile(name)) {
      return absl::InvalidArgumentError(absl::StrCat("file ", Quote(name), ": name has more than [A-Za-z0-9._-]"));
    }
    if (!IsSnapshotFile(name)) continue;
    DIN_ASSIGN_OR_RETURN(manifest.files.emplace_back(), DigestFile(directory, name));
  }
  return WriteManifest(directory, std::move(manifest));
}

}  // namespace

absl::Status WriteSnapshot(const std::string& model_directory, int64_t version, const SnapshotContents& contents) {
  if (version < 1) return absl::InvalidArgumentError(absl::StrCat("version: ", version, " < 1"));
  if (contents.golden.empty() && !contents.unverified) {
    return absl::InvalidArgumentError("golden: no cases, and not marked unverified");
  }
  DIN_RETURN_IF_ERROR(MakeDirectories(model_directory));
  // "/.": the model directory itself may be a link.
  DIN_ASSIGN_OR_RETURN(const Directory directory, Directory::Open(model_directory + "/."));
  return Prefixed(model_directory + "/", Publish(directory, version, contents));
}

absl::Status SealSnapshot(const std::string& directory, bool unverified) {
  DIN_ASSIGN_OR_RETURN(const Directory opened, Directory::Open(directory));
  return Prefixed(directory + "/", Seal(opened, unverified));
}

}  // namespace din
