#include "model_loader/manifest.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/quote.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

constexpr size_t kMaxNameBytes = 200;
constexpr size_t kMaxFiles = 1024;
constexpr size_t kHexBytes = 64;

// Every format, later ones too, begins with its number and ends in `"digest":"<64 hex>"}` and a newline, so that a
// reader can tell what is damaged from what is new.
constexpr std::string_view kFormatKey = "{\"format\":";
constexpr std::string_view kDigestKey = "\"digest\":\"";
constexpr std::string_view kEnd = "\"}\n";
constexpr size_t kTailBytes = kDigestKey.size() + kHexBytes + kEnd.size();

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(kManifestName, ": ", parts...));
}

template <typename... Parts>
absl::Status Damaged(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat(kManifestName, ": ", parts...));
}

uint64_t ChunksOf(uint64_t size) { return size / kChunkBytes + (size % kChunkBytes != 0 ? 1 : 0); }

// Over the concatenated raw digests; nothing when one of them is not a digest.
std::optional<std::string> RootOf(const std::vector<std::string>& chunks) {
  Sha256 root;
  for (const std::string& hex : chunks) {
    const std::optional<Sha256Digest> digest = ParseHex(hex);
    if (!digest) return std::nullopt;
    root.Update(*digest);
  }
  return Hex(root.Finish());
}

std::string FormatBody(const Manifest& manifest) {
  std::string text = manifest.base.empty()
                         ? absl::StrCat("{\"format\":", kFullFormat)
                         : absl::StrCat("{\"format\":", kDeltaFormat, ",\"base\":\"", manifest.base, "\"");
  absl::StrAppend(&text, ",\"unverified\":", manifest.unverified ? "true" : "false", ",\"files\":[");
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const ManifestFile& file = manifest.files[i];
    absl::StrAppend(&text, i == 0 ? "" : ",", "{\"name\":\"", file.name, "\",\"size\":", file.size, ",\"chunks\":[");
    for (size_t c = 0; c < file.chunk_sha256.size(); ++c) {
      absl::StrAppend(&text, c == 0 ? "" : ",", "\"", file.chunk_sha256[c], "\"");
    }
    absl::StrAppend(&text, "],\"root\":\"", file.root_sha256, "\"}");
  }
  return text += "],";
}

absl::Status CheckDigest(std::string_view bytes) {
  const std::string_view tail = bytes.substr(bytes.size() < kTailBytes ? bytes.size() : bytes.size() - kTailBytes);
  if (!tail.starts_with(kDigestKey) || !tail.ends_with(kEnd)) {
    return Damaged("byte ", bytes.size() - tail.size(), ": the file does not end with its digest; cut or damaged");
  }
  const std::string said(tail.substr(kDigestKey.size(), kHexBytes));
  const std::string got = Hex(Sha256Of(bytes.substr(0, bytes.size() - kTailBytes)));
  if (said == got) return absl::OkStatus();
  return Damaged("bytes [0, ", bytes.size() - kTailBytes, ") have SHA-256 ", got, ", the digest says ", Quote(said));
}

absl::Status CheckFile(const ManifestFile& file) {
  if (!IsSnapshotFile(file.name)) {
    return Invalid("file ", Quote(file.name), ": not model.json, golden.jsonl or [A-Za-z0-9._-]+.safetensors");
  }
  if (file.chunk_sha256.size() != ChunksOf(file.size)) {
    return Invalid(file.name, ": ", file.chunk_sha256.size(), " chunks, but ", file.size, " bytes have ",
                   ChunksOf(file.size));
  }
  const std::optional<std::string> root = RootOf(file.chunk_sha256);
  if (!root) return Invalid(file.name, ": a chunk digest is not 64 lower-case hexadecimal characters");
  if (*root != file.root_sha256) {
    return Invalid(file.name, ": root ", Quote(file.root_sha256), ", but the chunks give ", *root);
  }
  return absl::OkStatus();
}

absl::Status CheckFiles(const Manifest& manifest) {
  if (manifest.format == kDeltaFormat && !ParseHex(manifest.base)) {
    return Invalid("base ", Quote(manifest.base), ": not 64 lower-case hexadecimal characters");
  }
  if (manifest.files.size() > kMaxFiles) return Invalid("files: ", manifest.files.size(), " > limit ", kMaxFiles);
  bool spec = false, golden = false, tensors = false;
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const ManifestFile& file = manifest.files[i];
    DIN_RETURN_IF_ERROR(CheckFile(file));
    if (i > 0 && file.name <= manifest.files[i - 1].name) {
      return Invalid("file ", file.name, ": not after ", manifest.files[i - 1].name, "; names must ascend");
    }
    spec |= file.name == kSpecName;
    golden |= file.name == kGoldenName;
    tensors |= IsTensorFile(file.name);
  }
  if (!spec) return Invalid("files: no ", kSpecName);
  if (!tensors) return Invalid("files: no *.safetensors");
  if (!golden && !manifest.unverified) return Invalid("files: no ", kGoldenName, ", but \"unverified\" is false");
  return absl::OkStatus();
}

// The members of the JSON value that have the right type; what is missing or wrong shows in the comparison of bytes.
Manifest FromJson(const nlohmann::json& json) {
  const auto string = [](const nlohmann::json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  const auto array = [](const nlohmann::json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_array() ? *at : nlohmann::json::array();
  };
  Manifest manifest;
  const auto unverified = json.find("unverified");
  manifest.unverified = unverified != json.end() && unverified->is_boolean() && unverified->get<bool>();
  manifest.base = string(json, "base");
  manifest.format = manifest.base.empty() ? kFullFormat : kDeltaFormat;
  manifest.digest = string(json, "digest");
  for (const nlohmann::json& entry : array(json, "files")) {
    ManifestFile& file = manifest.files.emplace_back();
    if (!entry.is_object()) continue;
    file.name = string(entry, "name");
    file.root_sha256 = string(entry, "root");
    if (const auto size = entry.find("size"); size != entry.end() && size->is_number_unsigned()) {
      file.size = size->get<uint64_t>();
    }
    for (const nlohmann::json& chunk : array(entry, "chunks")) {
      file.chunk_sha256.push_back(chunk.is_string() ? chunk.get<std::string>() : std::string());
    }
  }
  return manifest;
}

absl::Status CheckFormat(std::string_view bytes) {
  uint32_t format = 0;
  const char* const number = bytes.data() + kFormatKey.size();
  if (!bytes.starts_with(kFormatKey) ||
      std::from_chars(number, bytes.data() + bytes.size(), format).ec != std::errc() || format == 0) {
    return Invalid("does not begin with ", std::string(kFormatKey), " and a positive number");
  }
  if (format <= kDeltaFormat) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(kManifestName, ": format ", format, " > ", kDeltaFormat, ", the newest that this program reads"));
}

}  // namespace

bool IsTensorFile(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return name.size() > kSuffix.size() && name.size() <= kMaxNameBytes && name.front() != '.' &&
         name.ends_with(kSuffix) && std::all_of(name.begin(), name.end(), allowed);
}

bool IsSnapshotFile(std::string_view name) { return name == kSpecName || name == kGoldenName || IsTensorFile(name); }

absl::StatusOr<Manifest> ParseManifest(std::string_view bytes) {
  // First whether these are the bytes that somebody digested: what is wrong after that was written so.
  DIN_RETURN_IF_ERROR(CheckDigest(bytes));
  DIN_RETURN_IF_ERROR(CheckFormat(bytes));
  constexpr int kDepth = 4;  // object, files, file, chunks
  if (const absl::Status status = CheckJson(bytes, kDepth); !status.ok()) {
    return Invalid(std::string(status.message().data(), status.message().size()));
  }
  const nlohmann::json json = nlohmann::json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Invalid("not an object");
  Manifest manifest = FromJson(json);
  const std::string canonical = FormatManifest(manifest);
  if (canonical != bytes) {
    const size_t at =
        std::mismatch(bytes.begin(), bytes.end(), canonical.begin(), canonical.end()).first - bytes.begin();
    return Invalid("byte ", at, ": not in canonical form (members, their order, no white space; see FORMAT.md)");
  }
  DIN_RETURN_IF_ERROR(CheckFiles(manifest));
  return manifest;
}

std::string ClaimedBase(std::string_view first_bytes) {
  const std::string begin = absl::StrCat(std::string(kFormatKey), kDeltaFormat, ",\"base\":\"");
  const std::string_view base = first_bytes.starts_with(begin) ? first_bytes.substr(begin.size(), kHexBytes) : "";
  return ParseHex(base) ? std::string(base) : std::string();
}

std::string FormatManifest(const Manifest& manifest) {
  std::string text = FormatBody(manifest);
  const std::string digest = Hex(Sha256Of(text));
  absl::StrAppend(&text, std::string(kDigestKey), digest, std::string(kEnd));
  return text;
}

void FileDigester::Update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<uint64_t>(bytes.size(), kChunkBytes - chunk_bytes_));
    chunk_.Update(part);
    chunk_bytes_ += part.size();
    file_.size += part.size();
    bytes = bytes.subspan(part.size());
    if (chunk_bytes_ == kChunkBytes) CloseChunk();
  }
}

void FileDigester::CloseChunk() {
  file_.chunk_sha256.push_back(Hex(chunk_.Finish()));
  chunk_bytes_ = 0;
}

ManifestFile FileDigester::Finish(std::string name) {
  if (chunk_bytes_ > 0) CloseChunk();
  file_.name = std::move(name);
  file_.root_sha256 = *RootOf(file_.chunk_sha256);
  return std::move(file_);
}

}  // namespace din
