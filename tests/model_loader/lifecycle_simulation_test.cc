// Deterministic simulation of the snapshot lifecycle: publishers, the disk, the loader, requests, operators, memory and
// crashes are all drawn from one seed, and after every step the invariants are looked at.
//
//   DIN_SIMULATION_SEED=4711 lifecycle_simulation_test     replays one seed and prints what happened
//   DIN_SIMULATION_SEEDS=100000 lifecycle_simulation_test  runs more of them
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model_loader/lifecycle.h"

namespace din {
namespace {

using std::chrono::milliseconds;
using Action = LifecycleAction;

// What a version on the simulated disk will turn out to be.
enum class Quality { kGood, kBad, kFlaky, kLink };

struct DiskVersion {
  Quality quality = Quality::kGood;
  int edition = 0;  // of its files: stamp and digest follow from it
  uint64_t bytes = 0;
  bool same = false;  // bytes that other versions of the model have, too
  std::string base;   // of a delta
};

std::string DigestOf(const std::string& model, int64_t version, const DiskVersion& disk) {
  return disk.same ? model + "#same" : absl::StrCat(model, "/", version, "#", disk.edition);
}

// As the registry has it.
struct Served {
  int64_t live = 0;
  std::vector<int64_t> kept;
  std::map<std::string, int64_t> labels;
};

class World {
 public:
  explicit World(uint64_t seed, bool print) : random_(seed), print_(print) {
    options_.keep = Draw(3);
    lifecycle_.emplace(options_);
    for (size_t m = 0; m <= Draw(2); ++m) models_.push_back(std::string(1, static_cast<char>('a' + m)));
    limit_ = 100 + Draw(400);
  }

  // The first invariant that broke, or nothing.
  std::string Run() {
    for (int step = 0; step < 150; ++step) {
      Say(absl::StrCat("-- step ", step));
      Step();
      if (std::string broken = CheckAlways(); !broken.empty()) return broken;
    }
    Settle();
    std::string broken = CheckAlways();
    return broken.empty() ? CheckSettled() : broken;
  }

 private:
  size_t Draw(size_t n) { return random_() % n; }
  const std::string& AnyModel() { return models_[Draw(models_.size())]; }
  void Say(const std::string& what) {
    if (print_) std::cout << what << "\n";
  }

  // --- The world's moves ---

  void Step() {
    switch (Draw(14)) {
      case 0:
      case 1:
        return Publish();
      case 2:
        return SpoilDisk();
      case 3:
      case 4:
        return Scan();
      case 5:
        now_ += milliseconds(1 << Draw(20));
        return;
      case 6:
      case 7:
        return StartRequest();
      case 8:
        return EndRequest();
      case 9:
        return Order();
      case 10:
        if (Draw(8) == 0) return Crash();
        if (Draw(4) == 0) limit_ = 50 + Draw(500);
        return;
      default:
        return Turn();
    }
  }

  void Publish() {
    const std::string& model = AnyModel();
    const int64_t version = 1 + static_cast<int64_t>(Draw(12));
    DiskVersion& disk = disk_[model][version];
    disk.edition = ++editions_;
    disk.bytes = 20 + Draw(60);
    disk.same = Draw(8) == 0;
    disk.base = Draw(4) == 0 ? AnyDigest(model) : "";
    const size_t quality = Draw(10);
    disk.quality = quality < 6   ? Quality::kGood
                   : quality < 8 ? Quality::kBad
                   : quality < 9 ? Quality::kFlaky
                                 : Quality::kLink;
    Say(absl::StrCat("publish ", DigestOf(model, version, disk), " quality ", static_cast<int>(disk.quality)));
  }

  // Of a version that is there, or was.
  std::string AnyDigest(const std::string& model) {
    const auto& versions = disk_[model];
    const auto at = std::next(versions.begin(), static_cast<long>(Draw(versions.size())));
    return Draw(8) == 0 ? "gone" : DigestOf(model, at->first, at->second);
  }

  void SpoilDisk() {
    const std::string& model = AnyModel();
    auto& versions = disk_[model];
    if (versions.empty()) return;
    const auto at = std::next(versions.begin(), static_cast<long>(Draw(versions.size())));
    Say(absl::StrCat("remove ", model, "/", at->first));
    versions.erase(at);
  }

  void Scan() {
    for (const std::string& model : models_) {
      std::vector<FoundVersion> found;
      for (const auto& [version, disk] : disk_[model]) {
        found.push_back(
            {.version = version,
             .stamp = absl::StrCat(disk.edition),
             .digest = disk.quality == Quality::kLink ? "" : DigestOf(model, version, disk),
             .base = disk.base,
             .bytes = disk.bytes,
             .chain_bytes = disk.base.empty() ? 0 : 2 * disk.bytes,
             .bases = disk.base.empty() ? std::vector<std::string>() : std::vector{disk.base},
             .status = disk.quality == Quality::kLink ? absl::InvalidArgumentError("a link") : absl::OkStatus()});
      }
      if (!found.empty() || lifecycle_->models().contains(model)) lifecycle_->Found(model, std::move(found));
    }
    Say("scan");
    Apply();
  }

  // The loader's thread gets a while.
  void Turn() {
    Free();
    if (lifecycle_->loading()) {
      Advance();
    } else if (const auto order = lifecycle_->NextLoad(now_, {.limit = limit_, .used = Used()})) {
      if (Used() + order->bytes > limit_) broken_ = "a load was ordered without room for it";
      const auto disk = disk_[order->model].find(order->version);
      load_ = {.model = order->model, .version = order->version, .bytes = order->bytes, .disk = {}};
      // What is on disk when the load begins is what is loaded, even when the scan saw another edition.
      if (disk != disk_[order->model].end()) load_.disk = disk->second;
      load_.there = disk != disk_[order->model].end();
      const Lifecycle::Model& model = lifecycle_->models().at(order->model);
      size_t labelled = 0;
      for (const int64_t kept : model.In(VersionState::kKept)) {
        const auto points_to_it = [&](const auto& label) { return label.second == kept; };
        labelled +=
            std::ranges::any_of(model.policy.labels, points_to_it) || std::ranges::any_of(model.labels, points_to_it);
      }
      const FoundVersion& found = model.found.at(order->version);
      const std::string live = model.live == 0 ? "" : model.memory.at(model.live).digest;
      if (order->chain != (!found.base.empty() && found.base != live)) broken_ = "a delta is loaded over another base";
      const bool asked =
          IsAskedFor(model, order->version) || ServedBefore(model, order->version, found.digest) ||
          std::ranges::any_of(model.policy.labels, [&](const auto& label) { return label.second == order->version; });
      if (order->chain && model.live != 0 && !asked) broken_ = "a delta on what is not live is loaded";
      if (!asked && IsRolledBack(model, found.base)) broken_ = "a delta on what was rolled back is loaded";
      if (model.memory.size() > 2 + options_.keep + labelled) broken_ = "too many copies in memory";
      if (!model.In(VersionState::kRetiring).empty()) broken_ = "a load beside a retiring version";
    }
    Apply();
  }

  void Advance() {
    if (load_.cancelled && Draw(2) == 0) return Fail(absl::CancelledError("not wanted"));
    if (!load_.verifying && Draw(2) == 0) {
      if (!load_.there) return Fail(absl::NotFoundError("gone"));
      if (load_.disk.bytes > load_.bytes) return Fail(absl::ResourceExhaustedError("more than was ordered"));
      if (load_.disk.quality == Quality::kFlaky && Draw(2) == 0) return Fail(absl::UnavailableError("EIO"));
      load_.verifying = true;
      lifecycle_->Verifying(load_.model, load_.version);
    } else if (load_.verifying) {
      if (load_.disk.quality == Quality::kBad) return Fail(absl::FailedPreconditionError("golden case"));
      handles_[load_.model][load_.version] = {.bytes = load_.bytes};
      Say(absl::StrCat("loaded ", load_.model, "/", load_.version));
      const Lifecycle::Model& model = lifecycle_->models().at(load_.model);
      const std::string live = model.live == 0 ? "" : model.memory.at(model.live).digest;
      const std::string base = model.memory.at(load_.version).base;
      const bool asked = IsAskedFor(model, load_.version);
      const std::string digest = DigestOf(load_.model, load_.version, load_.disk);
      const bool on_bad =
          TargetOf(model.policy) == 0 && IsRolledBack(model, base) && !ServedBefore(model, load_.version, digest);
      lifecycle_->Loaded(load_.model, load_.version, digest, load_.bytes);
      if (model.live == load_.version && on_bad) broken_ = "a delta on what was rolled back goes live";
      if (model.live == load_.version && !base.empty() && !live.empty() && base != live && !asked) {
        broken_ = absl::StrCat(load_.model, "/", load_.version, ": a delta goes live over what it is not made from");
      }
      load_ = {};
    }
  }

  // Older versions with the same bytes may be live, and then are none.
  static bool IsRolledBack(const Lifecycle::Model& model, const std::string& digest) {
    const auto entry = model.policy.quarantine.find(digest);
    if (entry == model.policy.quarantine.end()) return false;
    return model.live == 0 || model.memory.at(model.live).digest != digest || model.live >= entry->second;
  }
  static bool IsAskedFor(const Lifecycle::Model& model, int64_t version) {
    return version == TargetOf(model.policy) || version < model.live;
  }

  // Until the last restart, and nothing does yet.
  static bool ServedBefore(const Lifecycle::Model& model, int64_t version, const std::string& digest) {
    return model.live == 0 && version == model.policy.last_good && digest == model.policy.last_good_digest;
  }

  void Fail(const absl::Status& why) {
    Say(absl::StrCat("load of ", load_.model, "/", load_.version, " fails: ", std::string(why.message())));
    lifecycle_->Failed(load_.model, load_.version, why, now_);
    load_ = {};
  }

  // As the watcher does: what retires and is used by nobody goes.
  void Free() {
    for (auto& [name, handles] : handles_) {
      std::vector<int64_t> gone;
      for (const int64_t version : lifecycle_->models().at(name).In(VersionState::kRetiring)) {
        if (handles.at(version).users == 0) gone.push_back(version);
      }
      for (const int64_t version : gone) {
        Say(absl::StrCat("free ", name, "/", version));
        if (!released_.erase({name, version})) broken_ = "a version retires without having been released";
        handles.erase(version);
        lifecycle_->Freed(name, version);
      }
    }
    Apply();
  }

  void StartRequest() {
    const std::string& model = AnyModel();
    const Served& served = served_[model];
    int64_t version = served.live;
    const size_t kind = Draw(4);
    if (kind == 0 && !served.kept.empty()) version = served.kept[Draw(served.kept.size())];
    if (kind == 1 && !served.labels.empty()) {
      version = std::next(served.labels.begin(), static_cast<long>(Draw(served.labels.size())))->second;
      if (version != served.live && std::ranges::find(served.kept, version) == served.kept.end()) {
        broken_ = absl::StrCat(model, "/", version, " has a label that requests may ask for, and is not served");
        return;
      }
    }
    if (version == 0) {
      if (once_live_.contains(model)) broken_ = absl::StrCat("a request finds no model ", model, ", which was live");
      return;
    }
    auto handle = handles_[model].find(version);
    if (handle == handles_[model].end()) {
      broken_ = absl::StrCat(model, "/", version, " is served and has been freed");
      return;
    }
    ++handle->second.users;
    requests_.push_back({model, version});
  }

  void EndRequest() {
    if (requests_.empty()) return;
    const size_t at = Draw(requests_.size());
    const auto [model, version] = requests_[at];
    const auto handle = handles_[model].find(version);
    if (handle == handles_[model].end()) {
      broken_ = absl::StrCat(model, "/", version, " was freed under a request");
      return;
    }
    --handle->second.users;
    requests_.erase(requests_.begin() + static_cast<long>(at));
  }

  void Order() {
    const std::string& model = AnyModel();
    const auto version = static_cast<int64_t>(Draw(13));
    static constexpr const char* kLabels[] = {"stable", "canary", "x"};
    const std::string label = kLabels[Draw(3)];
    const Served before = served_[model];
    const size_t order = Draw(12);
    absl::Status status;
    if (order < 2) status = lifecycle_->Pin(model, version);
    if (order == 2 || order == 3) status = lifecycle_->Unpin(model);
    if (order == 4 || order == 5) status = lifecycle_->Rollback(model, Draw(3) == 0 ? version : 0);
    if (order == 6 || order == 7) status = lifecycle_->SetLabel(model, label, Draw(2) == 0 ? version : 0);
    if (order == 8) status = lifecycle_->Unload(model, Draw(4) == 0 ? 0 : version);
    if (order >= 9) status = lifecycle_->Load(model);
    Say(absl::StrCat("order ", order, " on ", model, "/", version, " ", label, ": ", status.ToString()));
    const auto at = lifecycle_->models().find(model);
    if (at != lifecycle_->models().end() && at->second.policy.unloaded) once_live_.erase(model);
    Apply();
    if (!status.ok() && (served_[model].live != before.live)) broken_ = "an order failed and had an effect";
    if (status.ok() && order == 1 && before.live != 0 && served_[model].live != version &&
        std::find(before.kept.begin(), before.kept.end(), version) != before.kept.end()) {
      broken_ = "a pin to a kept version did not take effect at once";
    }
  }

  // Power off, perhaps before the last policy was saved; the disk stays.
  void Crash() {
    Say("crash");
    lifecycle_.emplace(options_);
    handles_.clear();
    requests_.clear();
    released_.clear();
    served_.clear();
    once_live_.clear();
    load_ = {};
    for (const auto& [model, policy] : saved_) lifecycle_->Restore(model, policy);
  }

  void Apply() {
    for (const Action& action : lifecycle_->TakeActions()) {
      const Lifecycle::Model& model = lifecycle_->models().at(action.model);
      switch (action.kind) {
        case Action::Kind::kServe:
          for (const auto& [label, version] : served_[action.model].labels) {
            const bool stays = model.policy.labels.contains(label) && !model.policy.unloaded;
            if (stays && !model.labels.contains(label)) broken_ = label + ": requests with this label find nothing";
          }
          served_[action.model] = {model.live, model.In(VersionState::kKept), model.labels};
          if (model.live != 0) once_live_.insert(action.model);
          break;
        case Action::Kind::kCancelLoad:
          if (load_.model != action.model || load_.version != action.version) broken_ = "the wrong load is cancelled";
          load_.cancelled = true;
          break;
        case Action::Kind::kRelease:
          released_.insert({action.model, action.version});
          break;
        case Action::Kind::kSave:
          if (Draw(20) != 0) saved_[action.model] = model.policy;
          break;
        case Action::Kind::kReport:
          Say(absl::StrCat("  ", Name(action.event.kind), " ", action.model, "/", action.version, " ",
                           action.event.text, action.event.status.ok() ? "" : action.event.status.ToString()));
          break;
      }
    }
  }

  uint64_t Used() const {
    uint64_t used = load_.version != 0 ? load_.bytes : 0;
    for (const auto& [name, handles] : handles_) {
      for (const auto& [version, handle] : handles) used += handle.bytes;
    }
    return used;
  }

  // --- Invariants ---

  std::string CheckAlways() {
    if (!broken_.empty()) return broken_;
    for (const auto& [name, model] : lifecycle_->models()) {
      const Served& served = served_[name];
      if (once_live_.contains(name) && served.live == 0) return name + ": was live, and nothing is";
      if (served.live != model.live) return name + ": what is served is not what the lifecycle says";
      const std::vector<int64_t> live = model.In(VersionState::kLive);
      if (live.size() != (model.live == 0 ? 0u : 1u)) return name + ": not exactly one version is live";
      if (model.live != 0 && live.front() != model.live) return name + ": another version is live";
      if (served.kept != model.In(VersionState::kKept)) return name + ": another set is kept than served";
      for (const auto& [version, v] : model.memory) {
        const bool loading = v.state == VersionState::kLoading || v.state == VersionState::kVerifying;
        if (loading == handles_[name].contains(version)) return absl::StrCat(name, "/", version, ": memory is lost");
        if (loading && !(load_.model == name && load_.version == version)) return name + ": loads for ever";
        if ((v.state == VersionState::kRetiring) != released_.contains({name, version})) {
          return absl::StrCat(name, "/", version, ": released and not retiring, or the other way round");
        }
      }
      for (const auto& [version, handle] : handles_[name]) {
        if (!model.memory.contains(version)) return absl::StrCat(name, "/", version, ": in memory, and nobody knows");
      }
      const size_t kept = served.kept.size();
      if (kept > options_.keep + model.policy.labels.size() + model.labels.size())
        return name + ": more versions are kept than may be";
    }
    return "";
  }

  // No more trouble: requests end, the disk works, memory is plenty, and time passes.
  void Settle() {
    Say("-- settle");
    limit_ = UINT64_MAX;
    while (!requests_.empty()) EndRequest();
    for (auto& [name, versions] : disk_) {
      for (auto& [version, disk] : versions) {
        if (disk.quality == Quality::kFlaky) disk.quality = Quality::kGood;
      }
    }
    for (int i = 0; i < 400; ++i) {
      if (i % 10 == 0) Scan();
      now_ += std::chrono::seconds(60);
      Turn();
    }
  }

  std::string CheckSettled() {
    if (lifecycle_->loading()) return "still loading";
    for (const auto& [name, model] : lifecycle_->models()) {
      if (!model.In(VersionState::kRetiring).empty()) return name + ": a version retires for ever";
      if (model.policy.unloaded) {
        if (!model.memory.empty()) return name + ": unloaded, and still in memory";
        continue;
      }
      const auto good = [&](int64_t version) {
        const auto disk = disk_[name].find(version);
        return disk != disk_[name].end() && disk->second.quality == Quality::kGood;
      };
      const auto quarantined = [&](int64_t version) {
        const auto entry = model.policy.quarantine.find(DigestOf(name, version, disk_[name][version]));
        return entry != model.policy.quarantine.end() && (version >= entry->second || version > model.live);
      };
      const int64_t before = model.policy.last_good;
      const bool serves_again = before != 0 && good(before) && !model.memory.contains(before) &&
                                DigestOf(name, before, disk_[name][before]) == model.policy.last_good_digest;
      if (serves_again && model.live == 0) return absl::StrCat(name, ": ", before, " served before, and nothing does");
      const auto stable = model.policy.labels.find("stable");
      const int64_t target = model.policy.pinned != 0              ? model.policy.pinned
                             : stable != model.policy.labels.end() ? stable->second
                                                                   : 0;
      if (target != 0) {
        if (good(target) && model.live != target) return absl::StrCat(name, ": ", target, " should be live");
      } else {
        for (const auto& [version, disk] : disk_[name]) {
          const auto entry = model.live == 0 ? model.policy.quarantine.end()
                                             : model.policy.quarantine.find(model.memory.at(model.live).digest);
          const bool back = entry != model.policy.quarantine.end() && model.live >= entry->second;
          if (model.memory.contains(version)) continue;  // perhaps an older edition: a number is loaded once
          // A delta comes only over what it was made from.
          const std::string live = model.live == 0 ? disk.base : model.memory.at(model.live).digest;
          if (!disk.base.empty() && (disk.base != live || model.policy.quarantine.contains(disk.base))) continue;
          if ((version > model.live || back) && good(version) && !quarantined(version)) {
            return absl::StrCat(name, ": ", version, " should be live, not ", model.live);
          }
        }
      }
      for (const auto& [label, version] : model.policy.labels) {
        if (!good(version)) continue;
        if (!model.memory.contains(version)) return absl::StrCat(name, ": ", label, " is not served");
        const auto served = model.labels.find(label);
        if (served == model.labels.end() || served->second != version) return name + ": " + label + " points elsewhere";
      }
    }
    return "";
  }

  struct Handle {
    uint64_t bytes = 0;
    int users = 0;
  };
  struct Load {
    std::string model;
    int64_t version = 0;
    uint64_t bytes = 0;
    DiskVersion disk;
    bool there = false;
    bool verifying = false;
    bool cancelled = false;
  };

  std::mt19937_64 random_;
  const bool print_;
  Lifecycle::Options options_;
  std::vector<std::string> models_;
  uint64_t limit_ = 0;
  Lifecycle::Time now_{};
  int editions_ = 0;
  std::map<std::string, std::map<int64_t, DiskVersion>> disk_;
  std::map<std::string, ModelPolicy> saved_;
  // What dies with the process.
  std::optional<Lifecycle> lifecycle_;
  std::map<std::string, Served> served_;
  std::map<std::string, std::map<int64_t, Handle>> handles_;
  std::set<std::pair<std::string, int64_t>> released_;
  std::vector<std::pair<std::string, int64_t>> requests_;
  std::set<std::string> once_live_;
  Load load_;
  std::string broken_;
};

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(LifecycleSimulationTest, InvariantsHoldInTenThousandLives) {
  if (std::getenv("DIN_SIMULATION_SEED") != nullptr) {
    EXPECT_EQ(World(FromEnvironment("DIN_SIMULATION_SEED", 0), /*print=*/true).Run(), "");
    return;
  }
  const uint64_t seeds = FromEnvironment("DIN_SIMULATION_SEEDS", 10'000);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    ASSERT_EQ(World(seed, /*print=*/false).Run(), "")
        << "replay it: DIN_SIMULATION_SEED=" << seed << " lifecycle_simulation_test";
  }
}

}  // namespace
}  // namespace din
