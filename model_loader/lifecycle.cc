#include "model_loader/lifecycle.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"

namespace din {
namespace {

// Each may hold a version in memory.
constexpr size_t kMostLabels = 8;
constexpr size_t kLongestLabel = 32;

bool IsLabel(std::string_view text) {
  return !text.empty() && text.size() <= kLongestLabel && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

// A version below the live one comes into question only after a rollback.
bool IsOrdered(const Lifecycle::Model& model, int64_t version) {
  return version == TargetOf(model.policy) || version < model.live;
}

std::string Listed(const std::vector<int64_t>& versions) {
  constexpr size_t kMost = 20;
  std::string text;
  for (size_t i = 0; i < std::min(versions.size(), kMost); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", versions[i]);
  return absl::StrCat(text.empty() ? "none" : text, versions.size() > kMost ? ", …" : "");
}

}  // namespace

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsAborted(status) ||
         absl::IsPermissionDenied(status);
}

absl::Status NoRoomFor(uint64_t bytes, const MemoryBudget& memory, const std::string& what_for) {
  return absl::ResourceExhaustedError(
      absl::StrCat("need ", bytes, " bytes of memory", what_for, ", have ", memory.left(), " (limit ", memory.limit,
                   memory.of.empty() ? "" : " of ", memory.of, ", used ", memory.used, ")"));
}

int64_t TargetOf(const ModelPolicy& policy) {
  if (policy.pinned != 0) return policy.pinned;
  const auto stable = policy.labels.find(std::string(kStableLabel));
  return stable == policy.labels.end() ? 0 : stable->second;
}

const char* Name(VersionState state) {
  switch (state) {
    case VersionState::kLoading:
      return "loading";
    case VersionState::kVerifying:
      return "verifying";
    case VersionState::kLive:
      return "live";
    case VersionState::kKept:
      return "kept";
    case VersionState::kRetiring:
      return "retiring";
  }
  return "?";
}

const char* Name(LifecycleEvent::Kind kind) {
  using Event = LifecycleEvent::Kind;
  switch (kind) {
    case Event::kFound:
      return "found";
    case Event::kLoading:
      return "loading";
    case Event::kVerifying:
      return "verifying";
    case Event::kStarved:
      return "starved";
    case Event::kLive:
      return "live";
    case Event::kKept:
      return "kept";
    case Event::kRetiring:
      return "retiring";
    case Event::kRetired:
      return "retired";
    case Event::kRefused:
      return "refused";
    case Event::kCancelled:
      return "cancelled";
    case Event::kPolicy:
      return "policy";
    case Event::kScanFailed:
      return "scan failed";
    case Event::kSaveFailed:
      return "save failed";
  }
  return "?";
}

std::vector<int64_t> Lifecycle::Model::In(VersionState state) const {
  std::vector<int64_t> versions;
  for (const auto& [number, version] : memory) {
    if (version.state == state) versions.push_back(number);
  }
  return versions;
}

void Lifecycle::Act(LifecycleAction::Kind kind, const std::string& model, int64_t version) {
  actions_.push_back({.kind = kind, .model = model, .version = version, .event = {}});
}

void Lifecycle::Report(LifecycleEvent::Kind kind, const std::string& model, int64_t version, absl::Status status,
                       std::string text) {
  actions_.push_back(
      {.kind = LifecycleAction::Kind::kReport,
       .model = model,
       .version = version,
       .event = {
           .kind = kind, .model = model, .version = version, .status = std::move(status), .text = std::move(text)}});
}

std::vector<LifecycleAction> Lifecycle::TakeActions() { return std::exchange(actions_, {}); }

bool Lifecycle::Quarantined(const Model& model, int64_t version, const std::string& digest) const {
  const auto entry = model.policy.quarantine.find(digest);
  if (entry == model.policy.quarantine.end()) return false;
  // The same bytes have nothing to do with it where they have served before, or lie below what it was rolled back to.
  const auto memory = model.memory.find(version);
  const bool served = memory != model.memory.end() && memory->second.was_live != 0;
  const int64_t back_to = model.live != 0 ? model.live : model.policy.last_good;
  return version >= entry->second || (version > back_to && !served);
}

bool Lifecycle::Labelled(const Model& model, int64_t version) const {
  const auto points_to_it = [&](const auto& label) { return label.second == version; };
  return std::ranges::any_of(model.policy.labels, points_to_it) || std::ranges::any_of(model.labels, points_to_it);
}

bool Lifecycle::LostItsBase(const Model& model, int64_t version, const std::string& base) const {
  return model.live != 0 && NeedsChain(model, base) && !IsOrdered(model, version);
}

bool Lifecycle::OnRolledBack(const Model& model, const std::vector<std::string>& bases) const {
  if (bases.empty()) return false;
  if (model.live != 0) {
    const std::string& live = model.memory.at(model.live).digest;
    if (bases.front() == live && !Quarantined(model, model.live, live)) return false;
  }
  return std::ranges::any_of(bases, [&](const std::string& base) { return model.policy.quarantine.contains(base); });
}

bool Lifecycle::MayGoLive(const Model& model, int64_t version, const std::string& digest,
                          const std::vector<std::string>& bases) const {
  if (model.policy.unloaded) return false;
  if (const int64_t target = TargetOf(model.policy)) return version == target;
  if (Quarantined(model, version, digest) || OnRolledBack(model, bases)) return false;
  // Back only from what was rolled back.
  return version > model.live || Quarantined(model, model.live, model.memory.at(model.live).digest);
}

bool Lifecycle::MayServeAgain(const Model& model, int64_t version, const std::string& digest) {
  return model.live == 0 && !model.policy.unloaded && version == model.policy.last_good &&
         digest == model.policy.last_good_digest;
}

bool Lifecycle::WhatLoadsMayGoLive(const Model& model, int64_t version) const {
  const Version& v = model.memory.at(version);
  if (MayGoLive(model, version, v.digest, v.bases)) return !LostItsBase(model, version, v.base);
  const int64_t target = TargetOf(model.policy);
  const bool ordered_since = model.found.contains(target) && !model.refusals.contains(target);
  return MayServeAgain(model, version, v.digest) && !ordered_since;
}

// What is not in memory and should be, the most important first.
std::vector<int64_t> Lifecycle::Wanted(const Model& model, Wish wish) const {
  std::vector<int64_t> wanted;
  if (model.policy.unloaded) return wanted;
  const auto add = [&](int64_t version) {
    const bool there = model.found.contains(version) && !model.memory.contains(version);
    if (there && std::find(wanted.begin(), wanted.end(), version) == wanted.end()) wanted.push_back(version);
  };
  const auto may_go_live = [&](int64_t version) {
    const auto found = model.found.find(version);
    return found != model.found.end() && MayGoLive(model, version, found->second.digest, found->second.bases);
  };
  // It has served on this machine, so it is the quickest way to serve again; anything newer comes after it.
  const auto last = model.found.find(model.policy.last_good);
  const bool again = last != model.found.end() && MayServeAgain(model, last->first, last->second.digest);
  if (again && may_go_live(last->first)) add(last->first);
  const bool serves = model.live != 0 && wish == Wish::kMissing;
  for (auto found = model.found.rbegin(); found != model.found.rend() && !serves; ++found) {
    if (may_go_live(found->first)) add(found->first);
  }
  // Where an order cannot be carried out, requests get what they got before the restart.
  if (again) add(last->first);
  for (const auto& [label, version] : model.policy.labels) add(version);
  return wanted;
}

// A label whose version is in memory points to it; one that was removed points to nothing.
void Lifecycle::MoveLabels(Model& model) {
  std::erase_if(model.labels, [&](const auto& label) { return !model.policy.labels.contains(label.first); });
  for (const auto& [label, version] : model.policy.labels) {
    const auto memory = model.memory.find(version);
    if (memory == model.memory.end()) continue;
    const VersionState state = memory->second.state;
    if (state == VersionState::kLive || state == VersionState::kKept) model.labels[label] = version;
  }
}

void Lifecycle::Restore(const std::string& model, ModelPolicy policy) { models_[model].policy = std::move(policy); }

void Lifecycle::Found(const std::string& model, std::vector<FoundVersion> versions) {
  Model& m = models_[model];
  if (!std::exchange(m.seen, true)) {
    Act(LifecycleAction::Kind::kServe, model);
    Report(LifecycleEvent::Kind::kFound, model);
  }
  m.found.clear();
  for (FoundVersion& version : versions) {
    const int64_t number = version.version;
    m.found[number] = std::move(version);
  }
  std::erase_if(m.refusals, [&](const auto& refusal) { return !m.found.contains(refusal.first); });
}

void Lifecycle::Verifying(const std::string& model, int64_t version) {
  models_.at(model).memory.at(version).state = VersionState::kVerifying;
  Report(LifecycleEvent::Kind::kVerifying, model, version);
}

void Lifecycle::Loaded(const std::string& model, int64_t version, const std::string& digest, uint64_t bytes) {
  Model& m = models_.at(model);
  loading_model_.clear();
  m.refusals.erase(version);
  if (m.last_refused == version) m.last_refused = 0, m.last_refusal = absl::OkStatus();
  Version& loaded = m.memory.at(version);
  loaded.digest = digest;
  loaded.bytes = std::max(bytes, loaded.own_bytes);
  if (loaded.base.empty()) loaded.own_bytes = loaded.bytes;
  if (WhatLoadsMayGoLive(m, version)) return GoLive(model, m, version);
  if (m.policy.unloaded || !Labelled(m, version)) return Retire(model, m, version);
  loaded.state = VersionState::kKept;
  MoveLabels(m);
  Act(LifecycleAction::Kind::kServe, model);
  Report(LifecycleEvent::Kind::kKept, model, version);
  TrimKept(model, m);  // where the label pointed until now
}

void Lifecycle::Failed(const std::string& model, int64_t version, const absl::Status& why, Time now) {
  Model& m = models_.at(model);
  loading_model_.clear();
  m.memory.erase(version);
  // One that was pinned meanwhile is to be held to other bounds: it is loaded again.
  const bool again = !loading_ordered_ && version == TargetOf(m.policy);
  if (absl::IsCancelled(why) || again) return Report(LifecycleEvent::Kind::kCancelled, model, version);
  // The files may have changed meanwhile; what was refused is what was there when the load began.
  Refuse(model, m, version, loading_stamp_, why, now);
}

void Lifecycle::Refuse(const std::string& name, Model& model, int64_t version, const std::string& stamp,
                       const absl::Status& why, Time now) {
  Refusal& refusal = model.refusals[version];
  refusal.attempts = refusal.stamp == stamp ? refusal.attempts + 1 : 1;
  refusal.stamp = stamp;
  refusal.retry_at = Time::max();
  if (IsTransient(why) && refusal.attempts < options_.most_attempts) {
    const int doublings = std::min(refusal.attempts - 1, 20);
    refusal.retry_at = now + std::min(options_.first_retry * (1 << doublings), options_.longest_retry);
  }
  model.last_refused = version;
  model.last_refusal = why;
  Report(LifecycleEvent::Kind::kRefused, name, version, why);
}

void Lifecycle::Freed(const std::string& model, int64_t version) {
  models_.at(model).memory.erase(version);
  Report(LifecycleEvent::Kind::kRetired, model, version);
}

void Lifecycle::GoLive(const std::string& name, Model& model, int64_t version) {
  Version& live = model.memory.at(version);
  const bool again = MayServeAgain(model, version, live.digest);
  const int64_t old = std::exchange(model.live, version);
  live.state = VersionState::kLive;
  live.was_live = ++lives_;
  if (old != 0 && !Quarantined(model, old, model.memory.at(old).digest)) {
    model.policy.previous_good = old;
    model.policy.previous_good_digest = model.memory.at(old).digest;
  }
  // What was rolled back is history once something newer serves.
  if (!again) std::erase_if(model.policy.quarantine, [&](const auto& entry) { return entry.second < version; });
  model.policy.last_good = version;
  model.policy.last_good_digest = live.digest;
  if (old != 0) model.memory.at(old).state = VersionState::kKept;
  MoveLabels(model);
  Act(LifecycleAction::Kind::kServe, name);
  Report(LifecycleEvent::Kind::kLive, name, version);
  Act(LifecycleAction::Kind::kSave, name);
  TrimKept(name, model);
  if (old != 0 && model.memory.at(old).state == VersionState::kKept) {
    Report(LifecycleEvent::Kind::kKept, name, old);
  }
}

// After an order: what is in memory takes effect at once.
void Lifecycle::GoLiveIfWanted(const std::string& name, Model& model) {
  const std::vector<int64_t> kept = model.In(VersionState::kKept);
  const auto best = std::find_if(kept.rbegin(), kept.rend(), [&](int64_t version) {
    const Version& v = model.memory.at(version);
    // What came for a label has never been in anybody's way.
    const bool strange = v.was_live == 0 && LostItsBase(model, version, v.base);
    return version != model.live && !strange && MayGoLive(model, version, v.digest, v.bases);
  });
  if (best != kept.rend()) GoLive(name, model, *best);
}

void Lifecycle::Retire(const std::string& name, Model& model, int64_t version) {
  model.memory.at(version).state = VersionState::kRetiring;
  Act(LifecycleAction::Kind::kServe, name);
  Report(LifecycleEvent::Kind::kRetiring, name, version);
  Act(LifecycleAction::Kind::kRelease, name, version);
}

void Lifecycle::TrimKept(const std::string& name, Model& model) {
  std::vector<int64_t> kept;
  for (const int64_t version : model.In(VersionState::kKept)) {
    if (!Labelled(model, version)) kept.push_back(version);
  }
  std::ranges::sort(kept, {}, [&](int64_t v) { return std::pair(UINT64_MAX - model.memory.at(v).was_live, v); });
  for (size_t i = 0, stay = 0; i < kept.size(); ++i) {
    if (stay < options_.keep && !Quarantined(model, kept[i], model.memory.at(kept[i]).digest)) {
      ++stay;
    } else {
      Retire(name, model, kept[i]);
    }
  }
}

void Lifecycle::CancelUnwanted() {
  if (!loading() || loading_cancelled_) return;
  const Model& m = models_.at(loading_model_);
  const bool labelled = !m.policy.unloaded && Labelled(m, loading_version_);
  if (labelled || WhatLoadsMayGoLive(m, loading_version_)) return;
  loading_cancelled_ = true;
  Act(LifecycleAction::Kind::kCancelLoad, loading_model_, loading_version_);
}

// --- Orders
// ------------------------------------------------------------------------------------------------------------

absl::Status Lifecycle::CheckKnown(const std::string& model, int64_t version) const {
  const auto at = models_.find(model);
  if (at == models_.end()) return absl::NotFoundError(absl::StrCat("model: ", Quote(model), " is not in the root"));
  const Model& m = at->second;
  if (version < 0) return absl::InvalidArgumentError(absl::StrCat("version: ", version, " < 0"));
  if (version == 0 || m.found.contains(version)) return absl::OkStatus();
  const auto memory = m.memory.find(version);
  if (memory != m.memory.end() && memory->second.state != VersionState::kRetiring) return absl::OkStatus();
  std::vector<int64_t> known;
  for (auto found = m.found.rbegin(); found != m.found.rend(); ++found) known.push_back(found->first);
  return absl::NotFoundError(absl::StrCat("version: ", version, " of model ", Quote(model),
                                          " is not complete in the root; there: ", Listed(known)));
}

absl::Status Lifecycle::Pin(const std::string& model, int64_t version) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, version));
  if (version == 0) return absl::InvalidArgumentError("version: 0, expected the one to pin");
  Model& m = models_.at(model);
  m.policy.pinned = version;
  std::erase_if(m.policy.quarantine, [&](const auto& entry) { return entry.second == version; });
  m.refusals.erase(version);
  Report(LifecycleEvent::Kind::kPolicy, model, version, absl::OkStatus(), absl::StrCat("pinned to ", version));
  Act(LifecycleAction::Kind::kSave, model);
  GoLiveIfWanted(model, m);
  CancelUnwanted();
  return absl::OkStatus();
}

absl::Status Lifecycle::Unpin(const std::string& model) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, 0));
  Model& m = models_.at(model);
  m.policy.pinned = 0;
  m.policy.quarantine.clear();
  Report(LifecycleEvent::Kind::kPolicy, model, 0, absl::OkStatus(), "unpinned");
  Act(LifecycleAction::Kind::kSave, model);
  GoLiveIfWanted(model, m);
  CancelUnwanted();
  return absl::OkStatus();
}

absl::Status Lifecycle::Rollback(const std::string& model, int64_t version) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, version));
  Model& m = models_.at(model);
  const int64_t live = m.live;
  if (live == 0) return absl::FailedPreconditionError(absl::StrCat("model ", Quote(model), ": nothing is live"));
  if (version >= live) {
    return absl::InvalidArgumentError(
        absl::StrCat("version: ", version, " is not older than the live ", live, "; pin it instead"));
  }
  if (version == 0) {
    uint64_t latest = 0;
    for (const int64_t kept : m.In(VersionState::kKept)) {
      const Version& v = m.memory.at(kept);
      if (kept < live && v.was_live > latest && !Quarantined(m, kept, v.digest)) {
        version = kept;
        latest = v.was_live;
      }
    }
  }
  if (const auto before = m.found.find(m.policy.previous_good); version == 0 && before != m.found.end()) {
    const FoundVersion& found = before->second;
    const bool same = found.digest == m.policy.previous_good_digest;
    if (same && found.version < live && !Quarantined(m, found.version, found.digest)) version = found.version;
  }
  for (auto found = m.found.rbegin(); version == 0 && found != m.found.rend(); ++found) {
    const auto refusal = m.refusals.find(found->first);
    const bool refused = refusal != m.refusals.end() && refusal->second.stamp == StampOf(m, found->second);
    if (found->first < live && !refused && !Quarantined(m, found->first, found->second.digest)) version = found->first;
  }
  if (version == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("model ", Quote(model), ": no version older than the live ", live, " in memory or in the root"));
  }

  const auto quarantine = [&](int64_t number, const std::string& digest) {
    if (number <= version || number > live || digest.empty()) return;
    const auto [entry, added] = m.policy.quarantine.try_emplace(digest, number);
    if (!added) entry->second = std::min(entry->second, number);
  };
  for (const auto& [number, found] : m.found) quarantine(number, found.digest);
  for (const auto& [number, memory] : m.memory) quarantine(number, memory.digest);
  std::erase_if(m.policy.quarantine, [&](const auto& entry) { return entry.second == version; });
  if (m.policy.pinned != 0) m.policy.pinned = version;
  if (const auto stable = m.policy.labels.find(std::string(kStableLabel)); stable != m.policy.labels.end()) {
    stable->second = version;
  }
  Report(LifecycleEvent::Kind::kPolicy, model, version, absl::OkStatus(),
         absl::StrCat("rolled back from ", live, " to ", version));
  Act(LifecycleAction::Kind::kSave, model);
  const auto memory = m.memory.find(version);
  if (memory != m.memory.end() && memory->second.state == VersionState::kKept) GoLive(model, m, version);
  TrimKept(model, m);  // the label may have been what kept another one
  CancelUnwanted();
  return absl::OkStatus();
}

absl::Status Lifecycle::SetLabel(const std::string& model, const std::string& label, int64_t version) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, version));
  if (!IsLabel(label)) {
    return absl::InvalidArgumentError(
        absl::StrCat("label: ", Quote(label), ", expected 1 to ", kLongestLabel, " of a-z, 0-9, _ and -"));
  }
  Model& m = models_.at(model);
  if (version == 0) {
    if (m.policy.labels.erase(label) == 0) {
      return absl::NotFoundError(absl::StrCat("label: model ", Quote(model), " has no ", Quote(label)));
    }
  } else if (!m.policy.labels.contains(label) && m.policy.labels.size() == kMostLabels) {
    return absl::ResourceExhaustedError(
        absl::StrCat("label: model ", Quote(model), " has ", kMostLabels, ", the limit; remove one first"));
  } else {
    m.policy.labels[label] = version;
    m.refusals.erase(version);
  }
  Report(LifecycleEvent::Kind::kPolicy, model, version, absl::OkStatus(),
         version == 0 ? absl::StrCat("label ", label, " removed") : absl::StrCat("label ", label, " set to ", version));
  MoveLabels(m);
  Act(LifecycleAction::Kind::kServe, model);
  Act(LifecycleAction::Kind::kSave, model);
  GoLiveIfWanted(model, m);
  TrimKept(model, m);
  CancelUnwanted();
  return absl::OkStatus();
}

absl::Status Lifecycle::Unload(const std::string& model, int64_t version) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, 0));
  Model& m = models_.at(model);
  if (version == 0) {
    m.policy.unloaded = true;
    m.live = 0;
    m.labels.clear();
    for (auto& [number, v] : m.memory) {
      if (v.state == VersionState::kLive || v.state == VersionState::kKept) Retire(model, m, number);
    }
    Report(LifecycleEvent::Kind::kPolicy, model, 0, absl::OkStatus(), "unloaded");
    Act(LifecycleAction::Kind::kSave, model);
    CancelUnwanted();
    return absl::OkStatus();
  }
  const auto memory = m.memory.find(version);
  if (memory == m.memory.end() || memory->second.state != VersionState::kKept) {
    return absl::FailedPreconditionError(
        absl::StrCat("version: ", version, " of model ", Quote(model), " is ",
                     memory == m.memory.end() ? "not in memory" : Name(memory->second.state), ", not kept"));
  }
  for (const auto& labels : {m.policy.labels, m.labels}) {
    for (const auto& [label, labelled] : labels) {
      if (labelled == version) {
        return absl::FailedPreconditionError(absl::StrCat("version: label ", Quote(label), " points to ", version));
      }
    }
  }
  Retire(model, m, version);
  return absl::OkStatus();
}

absl::Status Lifecycle::Load(const std::string& model) {
  DIN_RETURN_IF_ERROR(CheckKnown(model, 0));
  Model& m = models_.at(model);
  m.refusals.clear();
  Report(LifecycleEvent::Kind::kPolicy, model, 0, absl::OkStatus(), "load what is there");
  if (std::exchange(m.policy.unloaded, false)) Act(LifecycleAction::Kind::kSave, model);
  return absl::OkStatus();
}

// --- Loads
// -------------------------------------------------------------------------------------------------------------

std::string Lifecycle::StampOf(const Model& model, const FoundVersion& found) const {
  std::string stamp = found.stamp;
  if (!found.base.empty() && model.live != 0) absl::StrAppend(&stamp, "over ", model.memory.at(model.live).digest);
  if (!WasRolledBack(model, found).empty()) absl::StrAppend(&stamp, "rolled back");
  return stamp;
}

std::string Lifecycle::WasRolledBack(const Model& model, const FoundVersion& found) const {
  if (Quarantined(model, found.version, found.digest)) {
    return absl::StrCat("has the bytes of version ", model.policy.quarantine.at(found.digest),
                        ", which was rolled back");
  }
  return OnRolledBack(model, found.bases) ? "a delta on what was rolled back" : "";
}

// What comes by itself and may not go live would else be passed over in silence.
void Lifecycle::RefuseRolledBack(const std::string& name, Model& model, Time now) {
  if (model.live == 0 || model.policy.unloaded || TargetOf(model.policy) != 0) return;
  for (auto found = model.found.upper_bound(model.live); found != model.found.end(); ++found) {
    const auto& [number, version] = *found;
    const auto entry = model.policy.quarantine.find(version.digest);
    const bool itself = entry != model.policy.quarantine.end() && entry->second == number;
    if (itself || Labelled(model, number) || model.memory.contains(number) || !MayTry(model, version, now)) continue;
    const std::string why = WasRolledBack(model, version);
    if (!why.empty()) Refuse(name, model, number, StampOf(model, version), absl::FailedPreconditionError(why), now);
  }
}

bool Lifecycle::MayTry(const Model& model, const FoundVersion& found, Time now) const {
  const auto refusal = model.refusals.find(found.version);
  return refusal == model.refusals.end() || refusal->second.stamp != StampOf(model, found) ||
         now >= refusal->second.retry_at;
}

bool Lifecycle::Retiring() const {
  return std::any_of(models_.begin(), models_.end(),
                     [](const auto& model) { return !model.second.In(VersionState::kRetiring).empty(); });
}

bool Lifecycle::NeedsChain(const Model& model, const std::string& base) {
  return !base.empty() && (model.live == 0 || base != model.memory.at(model.live).digest);
}

uint64_t Lifecycle::Need(const Model& model, const FoundVersion& found) {
  return found.bytes + (NeedsChain(model, found.base) ? found.chain_bytes : 0);
}

// A delta shares the rest with its base, and with others that lie over the same one.
bool Lifecycle::SharesMemory(const Version& version) { return version.own_bytes < version.bytes; }

uint64_t Lifecycle::GivesBack(const Model& model, const Version& version) {
  if (!SharesMemory(version)) return version.bytes;
  const bool shares = std::ranges::any_of(model.memory, [&](const auto& m) {
    if (&m.second == &version) return false;
    return m.second.digest == version.base || (m.second.base == version.base && SharesMemory(m.second));
  });
  return shares ? version.own_bytes : version.bytes;
}

// True when there is room. Else kept versions are on their way out, or the version has been refused.
bool Lifecycle::FindRoom(const std::string& name, Model& model, const FoundVersion& found, const MemoryBudget& memory,
                         Time now) {
  const uint64_t need = Need(model, found);
  const uint64_t have = memory.left();
  if (need <= have) return true;
  const uint64_t shortage = need - have + (memory.used - std::min(memory.used, memory.limit));
  struct Kept {
    bool other_model;
    uint64_t was_live;
    const std::string* name;
    Model* model;
    int64_t version;
    uint64_t bytes;
  };
  std::vector<Kept> kept;
  uint64_t droppable = 0;
  if (Retiring()) return false;  // what it holds comes back soon
  for (auto& [other_name, other] : models_) {
    for (const int64_t version : other.In(VersionState::kKept)) {
      const Version& v = other.memory.at(version);
      // What a delta was laid over holds the same memory as that delta: dropping it would give nothing back.
      const bool shared = std::ranges::any_of(
          other.memory, [&](const auto& m) { return m.second.base == v.digest && SharesMemory(m.second); });
      if (Labelled(other, version) || shared) continue;
      kept.push_back({other_name != name, v.was_live, &other_name, &other, version, GivesBack(other, v)});
      droppable += kept.back().bytes;
    }
  }
  if (droppable < shortage) {
    Refuse(name, model, found.version, StampOf(model, found), NoRoomFor(need, memory), now);
    return false;
  }
  // This model's before those of others, and those first that were live longest ago.
  std::sort(kept.begin(), kept.end(), [](const Kept& a, const Kept& b) {
    return std::pair(a.other_model, a.was_live) < std::pair(b.other_model, b.was_live);
  });
  uint64_t freed = 0;
  for (size_t i = 0; freed < shortage; ++i) {
    freed += kept[i].bytes;
    Retire(*kept[i].name, *kept[i].model, kept[i].version);
  }
  return false;
}

std::optional<Lifecycle::LoadOrder> Lifecycle::NextLoad(Time now, const MemoryBudget& memory, Wish wish) {
  if (loading()) return std::nullopt;
  // Models that serve nothing yet come first, then in turn.
  std::vector<std::tuple<bool, uint64_t, std::string>> order;
  for (const auto& [name, model] : models_) order.emplace_back(model.live != 0, model.turn, name);
  std::ranges::sort(order);
  for (const auto& [serves, turn, name] : order) {
    Model& model = models_.at(name);
    RefuseRolledBack(name, model, now);
    const std::vector<int64_t> wanted = Wanted(model, wish);
    for (const int64_t version : wanted) {
      if (!model.In(VersionState::kRetiring).empty()) break;
      const FoundVersion& found = model.found.at(version);
      if (!MayTry(model, found, now)) continue;
      if (!found.status.ok()) {
        Refuse(name, model, version, StampOf(model, found), found.status, now);
        continue;
      }
      if (LostItsBase(model, version, found.base) && !Labelled(model, version)) {
        // Its base may come before it.
        const bool waits = std::ranges::any_of(wanted, [&](int64_t other) {
          const FoundVersion& base = model.found.at(other);
          return base.digest == found.base && MayTry(model, base, now);
        });
        if (waits) continue;
        const std::string& live = model.memory.at(model.live).digest;
        Refuse(name, model, version, StampOf(model, found),
               absl::FailedPreconditionError(absl::StrCat("a delta on ", found.base, ", but ", live, " is live")), now);
        continue;
      }
      if (!FindRoom(name, model, found, memory, now)) {
        if (Retiring()) break;
        continue;
      }
      Begin(name, model, found);
      return LoadOrder{.model = name,
                       .version = version,
                       .bytes = Need(model, found),
                       .ordered = loading_ordered_,
                       .chain = NeedsChain(model, found.base)};
    }
  }
  return std::nullopt;
}

void Lifecycle::Begin(const std::string& name, Model& model, const FoundVersion& found) {
  loading_model_ = name;
  loading_version_ = found.version;
  loading_stamp_ = StampOf(model, found);
  loading_cancelled_ = false;
  loading_ordered_ = IsOrdered(model, found.version);
  model.turn = ++turns_;
  model.memory[found.version] = {.state = VersionState::kLoading,
                                 .digest = found.digest,
                                 .base = found.base,
                                 .bases = found.bases,
                                 .bytes = Need(model, found),
                                 .own_bytes = Need(model, found)};
  Report(LifecycleEvent::Kind::kLoading, name, found.version);
}

}  // namespace din
