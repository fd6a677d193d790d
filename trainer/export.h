// From a trained model to a snapshot that din-server serves.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"
#include "trainer/batch.h"
#include "trainer/checkpoint.h"
#include "trainer/dataset.h"
#include "trainer/model_shape.h"
#include "trainer/samples.h"

namespace din {

// Names in requests. A request carries item ids only: categories come from side tables of the snapshot. A behaviour
// list is called `history` (or `history_<action>`), its column `history_item`; the candidates' column is `item`; user
// and context features have their own names.
inline constexpr char kItem[] = "item";
std::string SequenceName(const Dataset& data, size_t sequence);

// Names of the tables: a field's embeddings; its weights in the wide part, as the candidate or side value (role 0) or
// in a behaviour list (role 1 + list).
std::string TableName(const Dataset& data, size_t field);
std::string WideTableName(const Dataset& data, size_t field, size_t role);

// The ModelSpec of a model of this shape over this data.
v1::ModelSpec MakeSpec(const Dataset& data, std::span<const KeptValues> kept, const ModelShape& shape,
                       const std::string& description);

// Whether the two are candidates of one request: the same user at the same moment.
bool SameRequest(const Dataset& data, const Sample& a, const Sample& b);

// The request for candidates of one request, without scores.
v1::GoldenCase MakeCase(const Dataset& data, std::span<const Sample> candidates, int max_history);

struct ExportOptions {
  std::string model_directory;
  int64_t version = 1;
  std::string description;     // for people
  int golden_cases = 20;       // users of the test set; 0: every request of the test set, with its own candidates only
  int golden_candidates = 40;  // of each
  double tolerance = 1e-5;
  DataType embeddings = DataType::kF32;  // or kF16, kBF16: of tables of width > 1; the rest is F32
  uint64_t seed = 1;
};

// What is exported: a model over its data.
struct TrainedModel {
  const Dataset& data;
  const ModelShape& shape;
  std::span<const KeptValues> kept;
  std::map<std::string, Weight> weights;
  std::function<std::vector<float>(std::span<const Sample>)> score;  // the framework's own forward pass
};

// The number of this type that is nearest to `value`, ties to even.
float Rounded(DataType type, float value);

// Writes the snapshot: spec, weights, vocabularies, side tables, and golden requests drawn from the users of `test`
// with the framework's scores. With embeddings of 16 bits, `score` is of a model whose embeddings are
// rounded (Trainer::RoundEmbeddings). Errors as WriteSnapshot.
absl::Status Export(const TrainedModel& model, std::span<const Sample> test, const ExportOptions& options);

}  // namespace din
