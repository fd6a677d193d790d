#include "model_loader/root_scanner.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/manifest.h"

namespace din {
namespace {

// "12"; not "012", "+12" or "0".
std::optional<int64_t> ParseVersion(std::string_view name) {
  int64_t version = 0;
  const char* const end = name.data() + name.size();
  if (name.empty() || name.front() < '1' || name.front() > '9') return std::nullopt;
  const auto [stop, error] = std::from_chars(name.data(), end, version);
  return error == std::errc() && stop == end ? std::optional(version) : std::nullopt;
}

// Changes when somebody republishes the version, or when a copy that came without a rename goes on.
struct Look {
  bool complete = false;  // there is a manifest
  std::string stamp;
};

absl::StatusOr<Look> LookAt(const Directory& model, int64_t version) {
  DIN_ASSIGN_OR_RETURN(const Directory directory, model.OpenDirectory(absl::StrCat(version)));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory.List());
  Look look;
  for (const std::string& name : names) {
    DIN_ASSIGN_OR_RETURN(const FileStamp file, directory.StampOf(name));
    absl::StrAppend(&look.stamp, name, " ", file.inode, " ", file.size, " ", file.modified_ns, "\n");
    look.complete |= name == kManifestName;
  }
  return look;
}

}  // namespace

absl::StatusOr<std::vector<RootScanner::Model>> RootScanner::Scan() {
  DIN_ASSIGN_OR_RETURN(const Directory root, Directory::Open(root_ + "/."));  // "/.": the root may be a link
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, root.List());
  std::vector<Model> models;
  for (const std::string& name : names) {
    if (name.front() == '.') continue;
    std::vector<int64_t> incomplete;
    absl::StatusOr<std::vector<FoundVersion>> versions = ScanModel(root, name, incomplete);
    std::ranges::sort(incomplete);
    models.push_back({name, std::move(versions), std::move(incomplete)});
  }
  return models;
}

absl::StatusOr<std::vector<FoundVersion>> RootScanner::ScanModel(const Directory& root, const std::string& name,
                                                                 std::vector<int64_t>& incomplete) {
  DIN_ASSIGN_OR_RETURN(const Directory directory, root.OpenDirectory(name));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> entries, directory.List());
  std::vector<FoundVersion> versions;
  Versions peeked;
  for (const std::string& entry : entries) {
    const std::optional<int64_t> version = ParseVersion(entry);
    if (!version) continue;
    const absl::StatusOr<Look> look = LookAt(directory, *version);
    if (absl::IsNotFound(look.status())) continue;  // it went away under our eyes
    if (!look.ok()) {
      versions.push_back({.version = *version, .stamp = look.status().ToString(), .status = look.status()});
    } else if (look->complete) {
      peeked[*version] = Peek(name, *version, look->stamp);
    } else {
      incomplete.push_back(*version);
    }
  }
  for (const auto& [version, seen] : peeked) versions.push_back(Describe(peeked, version));
  peeked_[name] = std::move(peeked);
  std::sort(versions.begin(), versions.end(),
            [](const FoundVersion& a, const FoundVersion& b) { return a.version < b.version; });
  return versions;
}

// A manifest is read again only when a file has changed, or when it could not be read at all.
RootScanner::Peeked RootScanner::Peek(const std::string& model, int64_t version, const std::string& stamp) const {
  if (const auto of_model = peeked_.find(model); of_model != peeked_.end()) {
    const auto before = of_model->second.find(version);
    if (before != of_model->second.end() && before->second.stamp == stamp && before->second.status.ok()) {
      return before->second;
    }
  }
  absl::StatusOr<Manifest> manifest = ReadManifest(absl::StrCat(root_, "/", model, "/", version), {});
  if (manifest.ok()) return {.stamp = stamp, .manifest = *std::move(manifest), .status = {}};
  // What is wrong with it, the load will say. But where it could only not be read, nothing is known of the memory that
  // a load would take, so there must be none.
  return {
      .stamp = stamp, .manifest = {}, .status = IsTransient(manifest.status()) ? manifest.status() : absl::OkStatus()};
}

// What a delta takes depends on the versions that it is built on, as far as they are there.
FoundVersion RootScanner::Describe(const Versions& versions, int64_t version) {
  const Peeked& seen = versions.at(version);
  FoundVersion found{.version = version, .stamp = seen.stamp, .status = seen.status};
  if (!seen.manifest) return found;
  found.digest = seen.manifest->digest;
  found.base = seen.manifest->base;
  found.bytes = ProjectedMemory(*seen.manifest);
  std::vector<const Manifest*> chain = {&*seen.manifest};  // the newest first, until it has been turned
  while (!chain.back()->base.empty() && chain.size() <= SnapshotLimits{}.deltas) {
    const auto base = std::ranges::find_if(versions, [&](const auto& other) {
      return other.second.manifest && other.second.manifest->digest == chain.back()->base;
    });
    found.bases.push_back(chain.back()->base);
    if (base == versions.end()) return found;
    chain.push_back(&*base->second.manifest);
  }
  if (chain.size() == 1) return found;
  std::ranges::reverse(chain);
  found.bytes = ProjectedDeltaMemory(chain, ReadOptions{}.most_overlaid);
  for (size_t i = 0; i + 1 < chain.size(); ++i) found.chain_bytes += ProjectedMemory(*chain[i]);
  return found;
}

}  // namespace din
