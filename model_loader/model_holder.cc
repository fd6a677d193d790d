#include "model_loader/model_holder.h"

#include <algorithm>
#include <utility>

namespace din {

const char* Name(ModelState state) {
  switch (state) {
    case ModelState::kEmpty:
      return "empty";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kLive:
      return "live";
    case ModelState::kRefused:
      return "refused";
    case ModelState::kUnloaded:
      return "unloaded";
  }
  return "?";
}

ModelState ModelStatus::state() const {
  if (live_version != 0) return ModelState::kLive;
  if (policy.unloaded) return ModelState::kUnloaded;
  if (loading_version != 0) return ModelState::kLoading;
  return refused_version != 0 ? ModelState::kRefused : ModelState::kEmpty;
}

ModelHandle ServedVersions::Find(const VersionChoice& choice) const {
  int64_t version = choice.version;
  if (!choice.label.empty()) {
    const auto label = labels.find(choice.label);
    if (label == labels.end()) return nullptr;
    version = label->second;
  }
  if (live != nullptr && (version == 0 || version == live->version)) return live;
  const auto at = std::find_if(kept.begin(), kept.end(), [&](const ModelHandle& m) { return m->version == version; });
  return at == kept.end() ? nullptr : *at;
}

ModelHolder::ModelHolder(const std::string& name) {
  status_.Write([&](ModelStatus& status) { status.name = name; });
}

ModelHandle ModelHolder::Find(const VersionChoice& choice) const {
  return served_.Read([&](const ServedVersions& served) { return served.Find(choice); });
}

void ModelHolder::Publish(const ServedVersions& next) {
  served_.Write([&](ServedVersions& served) { served = next; });
}

void ModelHolder::Swap(ModelHandle next) {
  ModelStatus status = Status();
  status.live_version = next == nullptr ? 0 : next->version;
  status.live_digest = next == nullptr || next->snapshot == nullptr ? "" : next->snapshot->digest();
  status.live_since = std::chrono::system_clock::now();
  Publish({.live = std::move(next), .kept = {}, .labels = {}});
  SetStatus(status);
}

ModelStatus ModelHolder::Status() const {
  return status_.Read([](const ModelStatus& status) { return status; });
}

void ModelHolder::SetStatus(const ModelStatus& next) {
  status_.Write([&](ModelStatus& status) { status = next; });
}

const ModelHolder* ModelRegistry::HolderOf(const std::string& name) const {
  return index_.Read([&](const Index& index) -> const ModelHolder* {
    const auto at = index.find(name);
    return at == index.end() ? nullptr : at->second;
  });
}

ModelHandle ModelRegistry::Find(const std::string& name, const VersionChoice& choice) const {
  const ModelHolder* const holder = HolderOf(name);
  return holder == nullptr ? nullptr : holder->Find(choice);
}

std::vector<ModelStatus> ModelRegistry::Statuses() const {
  const Index index = index_.Read([](const Index& index) { return index; });
  std::vector<ModelStatus> statuses;
  for (const auto& [name, holder] : index) statuses.push_back(holder->Status());
  return statuses;
}

std::optional<ModelStatus> ModelRegistry::StatusOf(const std::string& name) const {
  const ModelHolder* const holder = HolderOf(name);
  return holder == nullptr ? std::nullopt : std::optional(holder->Status());
}

std::vector<std::string> ModelRegistry::Names() const {
  std::vector<std::string> names;
  for (ModelStatus& status : Statuses()) {
    if (status.state() == ModelState::kLive) names.push_back(std::move(status.name));
  }
  return names;
}

ModelHolder& ModelRegistry::GetOrAdd(const std::string& name) {
  const std::lock_guard lock(adding_);
  if (const ModelHolder* const holder = HolderOf(name)) return const_cast<ModelHolder&>(*holder);
  ModelHolder& holder = holders_.emplace_back(name);
  index_.Write([&](Index& index) { index[name] = &holder; });
  return holder;
}

}  // namespace din
