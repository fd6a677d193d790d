#include "model_loader/model_holder.h"

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
  }
  return "?";
}

ModelState ModelStatus::state() const {
  if (live_version != 0) return ModelState::kLive;
  if (loading_version != 0) return ModelState::kLoading;
  return refused_version != 0 ? ModelState::kRefused : ModelState::kEmpty;
}

ModelHolder::ModelHolder(const std::string& name) {
  status_.Write([&](ModelStatus& status) { status.name = name; });
}

ModelHandle ModelHolder::Current() const {
  return live_.Read([](const ModelHandle& live) { return live; });
}

ModelHandle ModelHolder::Swap(ModelHandle next) {
  ModelHandle old;
  live_.Write([&](ModelHandle& live) {
    old = std::move(live);
    live = next;
  });
  const auto now = std::chrono::system_clock::now();
  status_.Write([&](ModelStatus& status) {
    status.live_version = next == nullptr ? 0 : next->version;
    status.live_digest = next == nullptr || next->snapshot == nullptr ? "" : next->snapshot->digest();
    status.live_since = now;
  });
  return old;
}

ModelStatus ModelHolder::Status() const {
  return status_.Read([](const ModelStatus& status) { return status; });
}

void ModelHolder::SetLoading(int64_t version) {
  status_.Write([&](ModelStatus& status) { status.loading_version = version; });
}

void ModelHolder::SetRefused(int64_t version, const absl::Status& why) {
  status_.Write([&](ModelStatus& status) {
    status.refused_version = version;
    status.refused = why;
  });
}

void ModelHolder::SetRetired(int64_t version) {
  status_.Write([&](ModelStatus& status) { status.retired_version = version; });
}

const ModelHolder* ModelRegistry::HolderOf(const std::string& name) const {
  return index_.Read([&](const Index& index) -> const ModelHolder* {
    const auto at = index.find(name);
    return at == index.end() ? nullptr : at->second;
  });
}

ModelHandle ModelRegistry::Find(const std::string& name, int64_t version) const {
  const ModelHolder* const holder = HolderOf(name);
  if (holder == nullptr) return nullptr;
  ModelHandle live = holder->Current();
  return live != nullptr && (version == 0 || version == live->version) ? live : nullptr;
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
