// What is to become of which version of which model: the policy, without clock, files, threads or memory of its own.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace din {

// Of a version that has memory. "loading", "verifying", …
enum class VersionState {
  kLoading,    // its bytes are being read and digested
  kVerifying,  // built, and held to its golden cases
  kLive,       // what requests get that ask for nothing else
  kKept,       // for a rollback, or because a label points to it; requests may ask for it
  kRetiring,   // nobody gets it any more; freed when the last request that holds it is done
};
const char* Name(VersionState);

// A complete version in the model root.
struct FoundVersion {
  int64_t version = 0;
  std::string stamp;   // changes whenever its files do
  std::string digest;  // of the manifest; "" where that cannot be read, and loading will say why
  std::string base;    // of a delta: the digest of the version that it changes; else ""
  uint64_t bytes = 0;  // of memory that it will take; of a delta, beside its base
  // Of a delta: that what it is built on takes, which is loaded with it where it is not laid over the live version.
  uint64_t chain_bytes = 0;
  std::vector<std::string> bases;  // of a delta: the digests of all that it is built on, as far as they are there
  absl::Status status;             // why it cannot even be looked at; such a version is refused without a load
};

// What an operator decided about a model, and what a restart must know. Versions are 0 where there is none.
struct ModelPolicy {
  int64_t pinned = 0;
  std::map<std::string, int64_t> labels;  // kStableLabel is what goes live, where there is no pin
  // Digest -> version: rolled back, so neither that version nor another one with the same bytes goes live by itself,
  // nor a delta on it, but for what is not newer than the live version: that may be what was gone back to.
  std::map<std::string, int64_t> quarantine;
  int64_t last_good = 0;  // went live last
  std::string last_good_digest;
  int64_t previous_good = 0;  // was live before that, and not rolled back from
  std::string previous_good_digest;
  bool unloaded = false;

  bool operator==(const ModelPolicy&) const = default;
};
inline constexpr std::string_view kStableLabel = "stable";
// The version that goes live by an operator's word; 0: the newest that may.
int64_t TargetOf(const ModelPolicy& policy);

// Of a refusal: not the snapshot's fault, so that it may go better later with the same bytes.
bool IsTransient(const absl::Status& status);

struct MemoryBudget {
  uint64_t limit = UINT64_MAX;
  uint64_t used = 0;  // now, by everything that counts towards the limit
  std::string of{};   // whose limit it is

  uint64_t left() const { return limit - std::min(used, limit); }
};
// RESOURCE_EXHAUSTED with need and have; `what_for` comes behind the need.
absl::Status NoRoomFor(uint64_t bytes, const MemoryBudget& memory, const std::string& what_for = "");

// What happened, for logs, health and whoever watches. Reported after the fact, except kLoading.
struct LifecycleEvent {
  enum class Kind {
    kFound,      // a model that is new
    kLoading,    // `version` is about to be loaded
    kVerifying,  // it is built, and being held to its golden cases
    kStarved,    // its load has waited for a core for too long, and goes on at a higher priority: `text`
    kLive,
    kKept,  // `version` stays in memory beside the live one
    kRetiring,
    kRetired,     // `version` has no memory any more
    kRefused,     // `status` says why
    kCancelled,   // the load of `version` was given up, because nobody wants it any more
    kPolicy,      // an operator's order was carried out: `text`
    kScanFailed,  // the root, or a model's directory, cannot be listed; once for each new reason
    kSaveFailed,  // the model's policy cannot be written down, and a restart will not know it
  };
  Kind kind = Kind::kFound;
  std::string model;
  int64_t version = 0;
  absl::Status status;
  std::string text;
};
// "found", "loading", …
const char* Name(LifecycleEvent::Kind);

struct LifecycleAction {
  enum class Kind {
    kServe,       // what is served of `model` has changed: the live version, the kept ones, or the labels
    kCancelLoad,  // the load of `version` is not wanted any more; Failed or Loaded is still expected
    kRelease,     // `version` is retiring: free it when the last user is gone, then call Freed
    kSave,        // the model's policy has changed and must be written down
    kReport,      // tell people: `event`
  };
  Kind kind = Kind::kReport;
  std::string model;
  int64_t version = 0;
  LifecycleEvent event;
};

// The life of every version of every model: events go in, actions come out (TakeActions), and NextLoad says what to
// load. The same calls give the same actions, so that everything it may ever do can be tested without a disk, and
// the simulation in the tests runs ten thousand different lives in seconds. One thread at a time.
//
// What goes live: the pinned version; else the one labelled "stable"; else the newest one that is not quarantined and
// newer than the live one. It never goes back by itself. When a version is refused the live one stays, and the next
// lower one above it is tried. After a restart the version that was live last is loaded first; where an order wants
// another, only if that one cannot be had. A delta goes live only over the version that it was made from; one that an
// operator asked for is loaded with all that it is built on.
//
// At most `keep` versions besides the live one, and those that labels point to, stay in memory; a model of which
// versions are still retiring loads nothing. One version is loaded at a time. A label that was moved leaves requests
// where they were until the version it points to is in memory.
class Lifecycle {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Options {
    size_t keep = 1;  // previous versions, for a rollback that needs no load
    // A version that was refused for want of memory, or because of the disk, is tried again, each time twice as long
    // afterwards, until it has been tried so often. One that was refused for what is in it, only when its files change.
    std::chrono::milliseconds first_retry{5'000};
    std::chrono::milliseconds longest_retry{300'000};
    int most_attempts = 100;
  };

  explicit Lifecycle(const Options& options) : options_(options) {}

  // --- What happens ---

  // Before the first Found of this model: what was saved before the restart.
  void Restore(const std::string& model, ModelPolicy policy);
  // All complete versions in the root, in any order; none when its directory is gone.
  void Found(const std::string& model, std::vector<FoundVersion> versions);
  // Of the load that NextLoad ordered last: it goes on to the golden cases; it is in memory; it was refused or
  // cancelled.
  void Verifying(const std::string& model, int64_t version);
  void Loaded(const std::string& model, int64_t version, const std::string& digest, uint64_t bytes);
  void Failed(const std::string& model, int64_t version, const absl::Status& why, Time now);
  void Freed(const std::string& model, int64_t version);

  // --- What an operator orders ---
  // NOT_FOUND: no such model or version; FAILED_PRECONDITION: not in this state; INVALID_ARGUMENT. What is in memory
  // takes effect at once, anything else when it has been loaded.

  absl::Status Pin(const std::string& model, int64_t version);
  // Back to the newest version; lifts the quarantine.
  absl::Status Unpin(const std::string& model);
  // To `version`, or, with 0, to the one that was live before: in memory, else as saved, else the next lower one. The
  // live version, and any between the two, is quarantined. A pin or the label "stable" moves along.
  absl::Status Rollback(const std::string& model, int64_t version);
  // Version 0 removes the label.
  absl::Status SetLabel(const std::string& model, const std::string& label, int64_t version);
  // Version 0: the whole model, until Load. Else a kept version without a label.
  absl::Status Unload(const std::string& model, int64_t version);
  // Takes back Unload, and tries at once what was refused.
  absl::Status Load(const std::string& model);

  // --- What is to be done ---

  struct LoadOrder {
    std::string model;
    int64_t version = 0;
    uint64_t bytes = 0;    // expected
    bool ordered = false;  // goes live by an operator's word: a pin, the label stable, a rollback
    bool chain = false;    // with all that it is built on: not over the live version
  };
  enum class Wish {
    kAll,
    kMissing,  // only what requests would not find: of models that serve nothing, and for labels without a version
  };
  // The next load, if one is wanted and possible now; it counts as begun. Makes room for it first where it must
  // (kRelease), or refuses it with need and have.
  std::optional<LoadOrder> NextLoad(Time now, const MemoryBudget& memory, Wish wish = Wish::kAll);

  // In the order in which they are to be carried out. Frees the list.
  std::vector<LifecycleAction> TakeActions();

  // --- What is ---

  struct Version {
    VersionState state = VersionState::kLoading;
    std::string digest;
    std::string base;  // of a delta
    std::vector<std::string> bases;
    uint64_t bytes = 0;
    uint64_t own_bytes = 0;  // of a delta: beside its base; else all
    uint64_t was_live = 0;   // later ones are larger; 0: never
  };
  struct Refusal {
    std::string stamp;
    int attempts = 0;
    Time retry_at{};
  };
  struct Model {
    ModelPolicy policy;
    int64_t live = 0;
    std::map<int64_t, Version> memory;
    std::map<int64_t, FoundVersion> found;
    std::map<int64_t, Refusal> refusals;
    // Label -> what requests with it get, which is in memory: what the policy says, or until then what it said before.
    std::map<std::string, int64_t> labels;
    int64_t last_refused = 0;  // the last one, unless it was loaded later; a newer live one does not erase it
    absl::Status last_refusal;
    bool seen = false;  // in the root, ever
    uint64_t turn = 0;  // when its last load began; later ones are larger

    // Of this state, ascending.
    std::vector<int64_t> In(VersionState state) const;
  };
  const std::map<std::string, Model>& models() const { return models_; }
  // True while a load is under way.
  bool loading() const { return !loading_model_.empty(); }

 private:
  absl::Status CheckKnown(const std::string& model, int64_t version) const;
  std::vector<int64_t> Wanted(const Model& model, Wish wish) const;
  bool MayGoLive(const Model& model, int64_t version, const std::string& digest,
                 const std::vector<std::string>& bases) const;
  // The last good version after a restart, whatever was ordered and not yet carried out.
  static bool MayServeAgain(const Model& model, int64_t version, const std::string& digest);
  bool WhatLoadsMayGoLive(const Model& model, int64_t version) const;
  bool OnRolledBack(const Model& model, const std::vector<std::string>& bases) const;
  bool Quarantined(const Model& model, int64_t version, const std::string& digest) const;
  bool Labelled(const Model& model, int64_t version) const;
  // A delta on what is not live, which no operator wants live.
  bool LostItsBase(const Model& model, int64_t version, const std::string& base) const;
  // A delta that must be loaded with its chain now.
  static bool NeedsChain(const Model& model, const std::string& base);
  // Bytes of memory that a load of it takes now.
  static uint64_t Need(const Model& model, const FoundVersion& found);
  static bool SharesMemory(const Version& version);
  static uint64_t GivesBack(const Model& model, const Version& version);
  bool FindRoom(const std::string& name, Model& model, const FoundVersion& found, const MemoryBudget& memory, Time now);
  bool Retiring() const;
  bool MayTry(const Model& model, const FoundVersion& found, Time now) const;
  // What a refusal of `found` holds for: its files, if it is a delta the version that is live, and the quarantine.
  std::string StampOf(const Model& model, const FoundVersion& found) const;
  // Why it must not go live by itself; empty: it may.
  std::string WasRolledBack(const Model& model, const FoundVersion& found) const;
  void RefuseRolledBack(const std::string& name, Model& model, Time now);

  void Begin(const std::string& name, Model& model, const FoundVersion& found);
  void Refuse(const std::string& name, Model& model, int64_t version, const std::string& stamp, const absl::Status& why,
              Time now);
  void GoLive(const std::string& name, Model& model, int64_t version);
  void GoLiveIfWanted(const std::string& name, Model& model);
  void Retire(const std::string& name, Model& model, int64_t version);
  void TrimKept(const std::string& name, Model& model);
  static void MoveLabels(Model& model);
  // After an order: a load that nobody wants any more is given up.
  void CancelUnwanted();
  void Act(LifecycleAction::Kind kind, const std::string& model, int64_t version = 0);
  void Report(LifecycleEvent::Kind kind, const std::string& model, int64_t version = 0, absl::Status status = {},
              std::string text = "");

  const Options options_;
  std::map<std::string, Model> models_;
  uint64_t turns_ = 0;
  uint64_t lives_ = 0;
  std::string loading_model_;  // "": none
  int64_t loading_version_ = 0;
  std::string loading_stamp_;
  bool loading_cancelled_ = false;
  bool loading_ordered_ = false;
  std::vector<LifecycleAction> actions_;
};

}  // namespace din
