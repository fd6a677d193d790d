#include "model_loader/policy_store.h"

#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/quote.h"

namespace din {
namespace {

constexpr int kFormat = 1;
constexpr std::string_view kSuffix = ".json";
// Where the next one is written; a model's name never begins with a dot.
constexpr char kTemporary[] = ".next";
constexpr uint64_t kLargestFile = 1u << 20;

absl::StatusOr<ModelPolicy> ReadPolicy(const Directory& directory, const std::string& name) {
  DIN_ASSIGN_OR_RETURN(const ReadableFile file, directory.OpenFile(name));
  if (file.size() > kLargestFile) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", file.size(), " bytes > limit ", kLargestFile));
  }
  std::string text(file.size(), '\0');
  DIN_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(text))));
  absl::StatusOr<ModelPolicy> policy = ParsePolicy(text);
  if (!policy.ok()) return Prefixed(name + ": ", policy.status());
  return policy;
}

}  // namespace

std::string FormatPolicy(const ModelPolicy& policy) {
  nlohmann::ordered_json json = {{"format", kFormat},
                                 {"pinned", policy.pinned},
                                 {"labels", policy.labels},
                                 {"quarantine", policy.quarantine},
                                 {"last_good", policy.last_good},
                                 {"last_good_digest", policy.last_good_digest},
                                 {"previous_good", policy.previous_good},
                                 {"previous_good_digest", policy.previous_good_digest},
                                 {"unloaded", policy.unloaded}};
  return json.dump(2) + "\n";
}

absl::StatusOr<ModelPolicy> ParsePolicy(std::string_view text) {
  constexpr int kDepth = 2;
  DIN_RETURN_IF_ERROR(CheckJson(text, kDepth));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    const int format = json.at("format").get<int>();
    if (format != kFormat) {
      return absl::UnimplementedError(absl::StrCat("format ", format, ", this program knows ", kFormat));
    }
    ModelPolicy policy;
    json.at("pinned").get_to(policy.pinned);
    json.at("labels").get_to(policy.labels);
    json.at("quarantine").get_to(policy.quarantine);
    json.at("last_good").get_to(policy.last_good);
    json.at("last_good_digest").get_to(policy.last_good_digest);
    policy.previous_good = json.value("previous_good", policy.previous_good);  // not in what older programs wrote
    policy.previous_good_digest = json.value("previous_good_digest", policy.previous_good_digest);
    json.at("unloaded").get_to(policy.unloaded);
    return policy;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

absl::StatusOr<std::unique_ptr<PolicyStore>> PolicyStore::Open(const std::string& directory) {
  DIN_RETURN_IF_ERROR(MakeDirectories(directory));
  DIN_ASSIGN_OR_RETURN(Directory opened, Directory::Open(directory + "/."));
  if (!opened.TryLock()) return absl::FailedPreconditionError("in use by another process");
  return std::unique_ptr<PolicyStore>(new PolicyStore(std::move(opened)));
}

absl::StatusOr<std::map<std::string, ModelPolicy>> PolicyStore::Load(std::vector<absl::Status>& problems) const {
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory_.List());
  std::map<std::string, ModelPolicy> policies;
  for (const std::string& name : names) {
    if (name.front() == '.' || !name.ends_with(kSuffix)) continue;
    absl::StatusOr<ModelPolicy> policy = ReadPolicy(directory_, name);
    if (policy.ok()) {
      policies[name.substr(0, name.size() - kSuffix.size())] = *std::move(policy);
    } else {
      problems.push_back(policy.status());
    }
  }
  return policies;
}

absl::Status PolicyStore::Save(const std::string& model, const ModelPolicy& policy) const {
  const std::string text = FormatPolicy(policy);
  const absl::Status removed = directory_.RemoveFile(kTemporary);  // of one who died while writing
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  DIN_ASSIGN_OR_RETURN(WritableFile file, directory_.CreateFile(kTemporary));
  DIN_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(text))));
  DIN_RETURN_IF_ERROR(file.Sync());
  DIN_RETURN_IF_ERROR(directory_.RenameReplace(kTemporary, model + std::string(kSuffix)));
  return directory_.Sync();
}

}  // namespace din
