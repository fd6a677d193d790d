#include "model_loader/snapshot.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/resolved_spec.h"
#include "model/status_macros.h"
#include "model_loader/delta.h"
#include "model_loader/file.h"
#include "model_loader/golden.h"
#include "model_loader/json.h"
#include "model_loader/load_control.h"
#include "model_loader/manifest.h"
#include "model_loader/memory.h"
#include "model_loader/parallel.h"
#include "model_loader/quote.h"
#include "model_loader/safetensors.h"
#include "model_loader/sha256.h"

namespace din {
namespace {

// Where the data of a safetensors file begins in memory; enough for any vector load, and a cache line.
constexpr uint64_t kDataAlignment = 64;
// Read, then digested while it is still in the cache.
constexpr size_t kReadBytes = size_t{256} << 10;
// Elements that one task looks through.
constexpr size_t kFiniteBlock = size_t{1} << 20;
// Parsed golden cases may take this many times the bytes that their JSON may have; real ones take about once.
constexpr size_t kGoldenMemoryFactor = 4;

// Where one safetensors file goes in the region.
struct Placement {
  const ManifestFile* file = nullptr;
  uint64_t begin = 0;
};

absl::StatusOr<std::string> ReadManifestBytes(const Directory& directory, const SnapshotLimits& limits) {
  const absl::StatusOr<ReadableFile> file = directory.OpenFile(kManifestName);
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat(kManifestName, ": not there, so this is not a complete snapshot"));
  }
  DIN_RETURN_IF_ERROR(file.status());
  if (file->size() > limits.manifest_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kManifestName, ": ", file->size(), " bytes > limit ", limits.manifest_bytes));
  }
  std::string bytes(file->size(), '\0');
  DIN_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

absl::StatusOr<Manifest> ReadManifestIn(const Directory& directory, const SnapshotLimits& limits) {
  DIN_ASSIGN_OR_RETURN(const std::string bytes, ReadManifestBytes(directory, limits));
  return ParseManifest(bytes);
}

// Is `base` what this manifest's delta changes?
absl::Status CheckBase(const Manifest& manifest, const Snapshot* base, const SnapshotLimits& limits) {
  if (manifest.base.empty()) return absl::OkStatus();
  const std::string what = absl::StrCat(kManifestName, ": a delta on ", manifest.base);
  if (base == nullptr) return absl::FailedPreconditionError(absl::StrCat(what, ", and there is no version underneath"));
  if (base->digest() != manifest.base) {
    return absl::FailedPreconditionError(absl::StrCat(what, ", but the version underneath is ", base->digest()));
  }
  if (static_cast<size_t>(base->deltas()) < limits.deltas) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(kManifestName, ": ", base->deltas() + 1,
                                                    " deltas on top of each other > limit ", limits.deltas,
                                                    "; publish a full snapshot"));
}

absl::Status CheckSizes(const Manifest& manifest, const SnapshotLimits& limits) {
  uint64_t total = 0;  // cannot overflow: a manifest has a digest for each 8 MiB, and is limited itself
  for (const ManifestFile& file : manifest.files) {
    const size_t limit = file.name == kSpecName     ? limits.spec_bytes
                         : file.name == kGoldenName ? limits.golden_bytes
                                                    : file.size;
    if (file.size > limit) {
      return absl::InvalidArgumentError(absl::StrCat(file.name, ": ", file.size, " bytes > limit ", limit));
    }
    total += file.size;
  }
  if (limits.total_bytes != 0 && total > limits.total_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kManifestName, ": need ", total, " bytes for all files > limit ", limits.total_bytes));
  }
  return absl::OkStatus();
}

uint64_t TensorBytes(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const ManifestFile& file : manifest.files) bytes += IsTensorFile(file.name) ? file.size : 0;
  return bytes;
}

// The file, as long as the manifest says.
absl::StatusOr<ReadableFile> OpenListed(const Directory& directory, const ManifestFile& listed) {
  absl::StatusOr<ReadableFile> file = directory.OpenFile(listed.name);
  if (absl::IsNotFound(file.status())) {
    return absl::DataLossError(absl::StrCat(listed.name, ": the manifest lists it, but it is not there"));
  }
  DIN_RETURN_IF_ERROR(file.status());
  if (file->size() != listed.size) {
    return absl::DataLossError(
        absl::StrCat(listed.name, ": ", file->size(), " bytes, the manifest says ", listed.size));
  }
  return file;
}

// Gives fresh memory its pages before the kernel writes there. A page fault inside pread() holds the lock of the
// address space, whose holder may lose its core in this thread at idle priority: the next mprotect() of anybody's
// malloc waited for that, and all requests behind it, for up to 0.4 s on a busy machine. Since Linux 6.4 a fault
// of our own holds the lock of this region alone.
void TouchPages(std::span<std::byte> fresh) {
  constexpr size_t kPage = 4096;  // the smallest
  volatile std::byte* const bytes = fresh.data();
  for (size_t at = 0; at < fresh.size(); at += kPage - reinterpret_cast<uintptr_t>(fresh.data() + at) % kPage) {
    bytes[at] = std::byte{0};
  }
}

// Reads one chunk to where it belongs in `out` (the whole file) and digests it on the way.
absl::Status ReadChunk(const ReadableFile& file, const ManifestFile& listed, size_t chunk, LoadControl* control,
                       std::span<std::byte> out) {
  const uint64_t begin = chunk * kChunkBytes;
  const uint64_t end = std::min<uint64_t>(begin + kChunkBytes, out.size());
  Sha256 sha;
  for (uint64_t at = begin; at < end; at += kReadBytes) {
    const std::span<std::byte> part = out.subspan(at, std::min<uint64_t>(kReadBytes, end - at));
    TouchPages(part);
    DIN_RETURN_IF_ERROR(file.ReadAt(at, part));
    sha.Update(part);
    if (control != nullptr) DIN_RETURN_IF_ERROR(control->Advance(part.size()));
  }
  const std::string got = Hex(sha.Finish());
  if (got == listed.chunk_sha256[chunk]) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(listed.name, ": bytes [", begin, ", ", end, ") have SHA-256 ", got,
                                          ", the manifest says ", listed.chunk_sha256[chunk]));
}

// The whole file, as digested, into `out`.
absl::Status ReadListed(const Directory& directory, const ManifestFile& listed, int threads, LoadControl* control,
                        std::span<std::byte> out) {
  DIN_ASSIGN_OR_RETURN(const ReadableFile file, OpenListed(directory, listed));
  return ParallelFor(listed.chunk_sha256.size(), threads,
                     [&](size_t chunk) { return ReadChunk(file, listed, chunk, control, out); });
}

// A small file as text; empty when the manifest does not list it.
absl::StatusOr<std::string> ReadText(const Directory& directory, const Manifest& manifest, const std::string& name,
                                     LoadControl* control) {
  const auto listed = std::find_if(manifest.files.begin(), manifest.files.end(),
                                   [&](const ManifestFile& file) { return file.name == name; });
  std::string text;
  if (listed == manifest.files.end()) return text;
  text.resize(listed->size);
  DIN_RETURN_IF_ERROR(ReadListed(directory, *listed, /*threads=*/1, control, std::as_writable_bytes(std::span(text))));
  return text;
}

struct Layout {
  std::vector<Placement> placements;
  uint64_t bytes = 0;
};

// Gives each safetensors file a place such that its data, behind a header of any length, begins aligned. The header's
// length is only peeked at here: a lie costs the alignment, which is looked at again when the file is in memory.
absl::StatusOr<Layout> PlaceFiles(const Directory& directory, const Manifest& manifest) {
  Layout layout;
  for (const ManifestFile& listed : manifest.files) {
    if (!IsTensorFile(listed.name)) continue;
    DIN_ASSIGN_OR_RETURN(const ReadableFile file, OpenListed(directory, listed));
    std::string first(std::min<uint64_t>(8, listed.size), '\0');
    DIN_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(first))));
    const uint64_t aligned = (layout.bytes + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
    const uint64_t pad = (kDataAlignment - ClaimedDataBegin(first) % kDataAlignment) % kDataAlignment;
    layout.placements.push_back({&listed, aligned + pad});
    layout.bytes = aligned + pad + listed.size;
  }
  return layout;
}

// The tensors of one file that is in memory at `bytes`.
absl::StatusOr<TensorMap> FindTensors(std::span<const std::byte> bytes, const SnapshotLimits& limits) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  DIN_ASSIGN_OR_RETURN(
      const SafetensorsHeader header,
      ParseSafetensorsHeader(text, bytes.size(), {.header_bytes = limits.header_bytes, .tensors = limits.tensors}));
  const std::byte* const data = bytes.data() + header.data_begin;
  if (reinterpret_cast<uintptr_t>(data) % kDataAlignment != 0) {
    return absl::DataLossError("byte 0: changed while it was read");
  }
  TensorMap tensors;
  for (const SafetensorsEntry& entry : header.entries) {
    tensors[entry.name] = {
        .type = entry.type, .shape = entry.shape, .data = data + entry.begin, .bytes = entry.end - entry.begin};
  }
  return tensors;
}

// In blocks, so that one large table keeps all threads busy.
absl::Status CheckAllFinite(const TensorMap& tensors, const ReadOptions& options) {
  struct Block {
    const std::string* name;
    const Tensor* tensor;
    size_t begin;
    size_t end;
  };
  std::vector<Block> blocks;
  for (const auto& [tensor_name, tensor] : tensors) {
    const size_t elements = tensor.bytes / SizeOf(tensor.type);
    for (size_t begin = 0; begin < elements; begin += kFiniteBlock) {
      blocks.push_back({&tensor_name, &tensor, begin, std::min(begin + kFiniteBlock, elements)});
    }
  }
  return ParallelFor(blocks.size(), options.threads, [&](size_t i) {
    if (options.control != nullptr) DIN_RETURN_IF_ERROR(options.control->Check());
    const Block& block = blocks[i];
    const absl::Status status = CheckFinite(*block.tensor, block.begin, block.end);
    return Prefixed(absl::StrCat("tensor ", Quote(*block.name), ": "), status);
  });
}

}  // namespace

struct Snapshot::Impl {
  Manifest manifest;
  v1::ModelSpec spec;
  std::vector<v1::GoldenCase> golden;
  TensorMap tensors;
  std::vector<std::shared_ptr<const TensorMemory>> memory;  // in which they are
  int deltas = 0;

  absl::Status Read(const Directory& directory, const ReadOptions& options);
  absl::Status ParseTexts(const std::string& spec_text, const std::string& golden_text, const SnapshotLimits& limits);
  absl::Status AddTensors(std::span<const std::byte> bytes, const ReadOptions& options);
  absl::Status LayOver(const Impl& base, const ReadOptions& options);
};

// All bytes first, and whether they are those of the manifest; only then what they say.
absl::Status Snapshot::Impl::Read(const Directory& directory, const ReadOptions& options) {
  DIN_ASSIGN_OR_RETURN(manifest, ReadManifestIn(directory, options.limits));
  DIN_RETURN_IF_ERROR(CheckSizes(manifest, options.limits));
  DIN_RETURN_IF_ERROR(CheckBase(manifest, options.base, options.limits));
  if (options.spare != nullptr && options.memory_is_scarce) options.spare->KeepOnlyFor(TensorBytes(manifest));
  if (options.control != nullptr) {
    uint64_t total = 0;
    for (const ManifestFile& file : manifest.files) total += file.size;
    options.control->AddTotal(total);
  }
  DIN_ASSIGN_OR_RETURN(const std::string golden_text, ReadText(directory, manifest, kGoldenName, options.control));
  DIN_ASSIGN_OR_RETURN(const std::string spec_text, ReadText(directory, manifest, kSpecName, options.control));
  DIN_ASSIGN_OR_RETURN(const Layout layout, PlaceFiles(directory, manifest));
  absl::StatusOr<MemoryRegion> region =
      options.spare != nullptr ? options.spare->Take(layout.bytes) : MemoryRegion::Create(layout.bytes);
  if (!region.ok()) return Prefixed(absl::StrCat(kManifestName, ": "), region.status());
  const auto own = std::make_shared<TensorMemory>();
  own->region = *std::move(region);
  memory = {own};
  const auto bytes_of = [&](const Placement& place) {
    return std::span(own->region.data() + place.begin, place.file->size);
  };
  for (const Placement& place : layout.placements) {
    DIN_RETURN_IF_ERROR(ReadListed(directory, *place.file, options.threads, options.control, bytes_of(place)));
  }

  DIN_RETURN_IF_ERROR(ParseTexts(spec_text, golden_text, options.limits));
  for (const Placement& place : layout.placements) {
    DIN_RETURN_IF_ERROR(Prefixed(place.file->name + ": ", AddTensors(bytes_of(place), options)));
  }
  return manifest.base.empty() ? absl::OkStatus() : LayOver(*options.base->impl_, options);
}

// What was read is a delta: from here on the tensors are those of the result.
absl::Status Snapshot::Impl::LayOver(const Impl& base, const ReadOptions& options) {
  DeltaOptions delta{.most_overlaid = options.most_overlaid, .room_for = options.room_for};
  for (const v1::Table& table : spec.tables()) delta.tables.insert(TensorName(table));
  DIN_ASSIGN_OR_RETURN(AppliedDelta applied, ApplyDelta(base.tensors, tensors, delta));
  tensors = std::move(applied.tensors);
  deltas = base.deltas + 1;
  memory.push_back(std::make_shared<TensorMemory>(std::move(applied.memory)));
  memory.insert(memory.end(), base.memory.begin(), base.memory.end());
  return TidyMemory(tensors, memory);
}

absl::Status Snapshot::Impl::ParseTexts(const std::string& spec_text, const std::string& golden_text,
                                        const SnapshotLimits& limits) {
  DIN_RETURN_IF_ERROR(ParseJson(spec_text, kSpecName, spec));
  DIN_ASSIGN_OR_RETURN(golden, ParseGolden(golden_text, {.line_bytes = limits.golden_line_bytes,
                                                         .memory_bytes = kGoldenMemoryFactor * limits.golden_bytes}));
  if (golden.empty() && !manifest.unverified) {
    return absl::InvalidArgumentError(
        absl::StrCat(kGoldenName, ": no cases, but the manifest says \"unverified\":false"));
  }
  return absl::OkStatus();
}

absl::Status Snapshot::Impl::AddTensors(std::span<const std::byte> bytes, const ReadOptions& options) {
  DIN_ASSIGN_OR_RETURN(TensorMap added, FindTensors(bytes, options.limits));
  DIN_RETURN_IF_ERROR(CheckAllFinite(added, options));
  tensors.merge(added);  // which leaves in `added` what is there already
  if (!added.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quote(added.begin()->first), ": another file has a tensor of this name"));
  }
  if (tensors.size() > options.limits.tensors) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensors: ", tensors.size(), " up to this file > limit ", options.limits.tensors));
  }
  return absl::OkStatus();
}

Snapshot::Snapshot(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Snapshot::~Snapshot() = default;

absl::StatusOr<std::unique_ptr<const Snapshot>> Snapshot::Open(const std::string& directory,
                                                               const ReadOptions& options) {
  DIN_ASSIGN_OR_RETURN(const Directory opened, Directory::Open(directory));
  auto impl = std::make_unique<Impl>();
  DIN_RETURN_IF_ERROR(Prefixed(directory + "/", impl->Read(opened, options)));
  return std::unique_ptr<const Snapshot>(new Snapshot(std::move(impl)));
}

const v1::ModelSpec& Snapshot::spec() const { return impl_->spec; }
const TensorMap& Snapshot::tensors() const { return impl_->tensors; }
const std::vector<v1::GoldenCase>& Snapshot::golden() const { return impl_->golden; }
const std::string& Snapshot::digest() const { return impl_->manifest.digest; }
bool Snapshot::unverified() const { return impl_->manifest.unverified; }
const std::string& Snapshot::base_digest() const { return impl_->manifest.base; }
int Snapshot::deltas() const { return impl_->deltas; }
uint64_t Snapshot::memory_bytes() const {
  uint64_t bytes = 0;
  for (const auto& one : impl_->memory) bytes += one->region.size();
  return bytes;
}

uint64_t ProjectedMemory(const Manifest& manifest) {
  uint64_t texts = 0;
  for (const ManifestFile& file : manifest.files) texts += IsTensorFile(file.name) ? 0 : file.size;
  const uint64_t tensors = TensorBytes(manifest);
  // Indexes over keys take up to 6 bytes a key of 8 or more, folded layers a copy or two of what is small beside the
  // tables; parsed texts about twice their size.
  constexpr uint64_t kTextFactor = 3;
  constexpr uint64_t kShare = 20;  // one part in so many more than the tensors themselves
  return tensors + tensors / kShare + kTextFactor * texts;
}

uint64_t ProjectedDeltaMemory(const std::vector<const Manifest*>& chain, double most_overlaid) {
  const uint64_t full = TensorBytes(*chain.front());
  uint64_t changed = 0;
  for (size_t i = 1; i < chain.size(); ++i) changed += TensorBytes(*chain[i]);
  // Bits and ranks are 12 bytes for 64 rows, and a row has at least 4. A table is copied when a share of it has
  // changed, so what is copied of tables is at most the changes over that share; for the rest, see
  // ReadOptions::room_for.
  constexpr uint64_t kIndexShare = 21;
  const double copied = std::min(static_cast<double>(full), static_cast<double>(changed) / most_overlaid);
  return ProjectedMemory(*chain.back()) + changed + full / kIndexShare + static_cast<uint64_t>(copied);
}

absl::StatusOr<Manifest> ReadManifest(const std::string& directory, const SnapshotLimits& limits) {
  DIN_ASSIGN_OR_RETURN(const Directory opened, Directory::Open(directory));
  absl::StatusOr<Manifest> manifest = ReadManifestIn(opened, limits);
  if (!manifest.ok()) return Prefixed(directory + "/", manifest.status());
  return manifest;
}

namespace {

struct Sibling {
  std::string directory;
  Manifest manifest;
};

// The versions beside `directory` that have a manifest that can be read.
absl::StatusOr<std::vector<Sibling>> SiblingsOf(const std::string& directory, const SnapshotLimits& limits) {
  const std::string parent = directory + "/..";
  DIN_ASSIGN_OR_RETURN(const Directory opened, Directory::Open(parent));
  absl::StatusOr<std::vector<std::string>> names = opened.List();
  if (!names.ok()) return Prefixed(parent + "/", names.status());
  std::vector<Sibling> siblings;
  for (const std::string& name : *names) {
    if (name.front() == '.') continue;
    absl::StatusOr<Manifest> manifest = ReadManifest(parent + "/" + name, limits);
    if (manifest.ok()) siblings.push_back({parent + "/" + name, *std::move(manifest)});
  }
  return siblings;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Snapshot>> OpenWithBases(const std::string& directory,
                                                              const ReadOptions& options) {
  DIN_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(directory, options.limits));
  if (manifest.base.empty()) return Snapshot::Open(directory, options);
  DIN_ASSIGN_OR_RETURN(const std::vector<Sibling> siblings, SiblingsOf(directory, options.limits));
  std::vector<std::string> chain = {directory};  // the newest first
  for (std::string base = manifest.base; !base.empty();) {
    const auto found =
        std::ranges::find_if(siblings, [&](const Sibling& sibling) { return sibling.manifest.digest == base; });
    if (found == siblings.end() || chain.size() > options.limits.deltas) {
      const std::string why = found == siblings.end()
                                  ? absl::StrCat("needs ", base, ", which is not beside it")
                                  : absl::StrCat("more than ", options.limits.deltas, " deltas on top of each other");
      return absl::FailedPreconditionError(absl::StrCat(chain.back(), "/", kManifestName, ": a delta that ", why));
    }
    chain.push_back(found->directory);
    base = found->manifest.base;
  }
  std::unique_ptr<const Snapshot> snapshot;
  for (; !chain.empty(); chain.pop_back()) {
    ReadOptions one = options;
    one.base = snapshot.get();
    if (chain.size() > 1) one.limits.total_bytes = 0;  // it is about the delta; its bases were taken before
    DIN_ASSIGN_OR_RETURN(std::unique_ptr<const Snapshot> next, Snapshot::Open(chain.back(), one));
    snapshot = std::move(next);
  }
  return snapshot;
}

}  // namespace din
