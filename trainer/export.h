// From a trained DIN to a snapshot that din-server serves.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/model_spec.pb.h"
#include "trainer/dataset.h"
#include "trainer/din_shape.h"
#include "trainer/samples.h"
#include "trainer/train.h"

namespace din {

// Names in requests. A request carries items only: categories come from a side table of the snapshot.
inline constexpr char kHistory[] = "history";           // the sequence
inline constexpr char kHistoryItem[] = "history_item";  // its column of raw item ids
inline constexpr char kItem[] = "item";                 // the candidates' column of raw item ids

// The ModelSpec of a DIN of this shape over this data.
v1::ModelSpec MakeSpec(const Dataset& data, const DinShape& shape, const std::string& description);

// The request for a user at a position of the history, without scores.
v1::GoldenCase MakeCase(const Dataset& data, std::span<const Sample> candidates, int max_history);

struct ExportOptions {
  std::string model_directory;
  int64_t version = 1;
  std::string description;     // for people
  int golden_cases = 20;       // users of the test set
  int golden_candidates = 40;  // of each
  double tolerance = 1e-5;
  uint64_t seed = 1;
};

// Writes the snapshot: spec, weights, vocabularies, side tables, and golden requests drawn from the users of `test`
// with the scores that `score` (the framework's own forward pass) gives. Errors as WriteSnapshot.
absl::Status Export(const Dataset& data, const DinShape& shape, const std::map<std::string, Weight>& weights,
                    std::span<const Sample> test,
                    const std::function<std::vector<float>(std::span<const Sample>)>& score,
                    const ExportOptions& options);

}  // namespace din
