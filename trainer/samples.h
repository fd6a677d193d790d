// From events to labelled samples: (user, history, candidate) -> clicked or not.
//
// A sample's history is what the user did strictly before the candidate's event, so no target is ever in its own
// history, and a target that repeats an earlier event of the user (retail) is left out: "already there" would give the
// label away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/dataset.h"

namespace din {

// The history is the last events of the user before `position`.
struct Sample {
  int32_t user = 0;
  int32_t position = 0;
  int32_t item = 0;  // the candidate
  float label = 0;   // 0 or 1
  uint32_t row = 0;  // of Dataset::context
};

enum class Protocol {
  // The authors' for Amazon: for k = 1 … n-1 the first k events predict event k+1; beside each such positive, items
  // that the user never touched. k = n-1 is the test. Users with fewer than 3 events are left out.
  kNextItem,
  // The paper's for MovieLens (section 6.1): every event is a candidate, rating >= 4 is the label. One user in five is
  // a test user.
  kRatings,
  // Impression logs: what was shown is the candidate, the click the label, the history what the user had clicked at
  // earlier times (not at the same one: the other items of a page would give each other away). The latest fifth of the
  // impressions is the test. A candidate may have been clicked before: the log is taken as it is.
  kImpressions,
};

struct SampleOptions {
  Protocol protocol = Protocol::kNextItem;
  int max_history = 50;
  int negatives = 1;            // kNextItem: per positive, in training
  int test_negatives = 5;       // kNextItem: per positive, in the test
  double held_out_users = 0.1;  // part of the users whose training samples choose the epoch instead
  int64_t most_training = 0;    // a random part of the training samples of this size; 0: all
  uint64_t seed = 1;
};

struct Split {
  std::vector<Sample> train;
  std::vector<Sample> held_out;  // of users none of whose samples are in `train`
  std::vector<Sample> test;
};

// The same seed gives the same samples. INVALID_ARGUMENT when the data cannot give samples of this protocol, or the
// training or the test part is empty.
absl::StatusOr<Split> MakeSamples(const Dataset& data, const SampleOptions& options);

// Of one behaviour list, oldest first: at most the last `max_history` events.
std::span<const Event> HistoryOf(const Dataset& data, const Sample& sample, int max_history, size_t sequence = 0);

// In how many of the samples each value of each field occurs: of the candidate, anywhere in the histories, or of the
// user and the moment; once a sample. [field][value]; the n_j of mini-batch aware regularisation (section 5.1).
using Occurrences = std::vector<std::vector<uint32_t>>;
Occurrences CountOccurrences(const Dataset& data, std::span<const Sample> samples, int max_history);

}  // namespace din
