// What decoding needs to know about each feature and sequence, worked out once from the spec and the side tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/id_map.h"
#include "model/resolved_spec.h"
#include "model/side_table.h"
#include "model/tensor_reader.h"

namespace din {

struct FeaturePlan {
  std::string path;  // "candidates.item_id": how errors name it
  std::string name;
  v1::Scope scope = v1::SCOPE_UNSPECIFIED;
  int sequence = kNone;
  v1::FeatureKind kind = v1::FEATURE_KIND_UNSPECIFIED;
  v1::IdType id_type = v1::ID_TYPE_UNSPECIFIED;  // ID and ID_LIST
  size_t width = 0;                              // DENSE
  const IdMap* id_map = nullptr;                 // ID and ID_LIST
  PaddingId padding;
  size_t max_length = 0;  // ID_LIST; 0: no limit of its own
  bool keep_last = false;

  // Where values come from that the request does not send.
  const SideTable* side = nullptr;
  const SideRows* side_rows = nullptr;  // ID and ID_LIST
  int side_key = kNone;
  bool missing_key_is_error = false;

  // What stands at a padding position of a padded sequence: a row (ID), else the values of an entry of the side table
  // (ID_LIST, DENSE), or SideTable::kMissing for an empty list and zeros.
  uint32_t padding_row = kZeroRow;
  uint32_t padding_entry = SideTable::kMissing;
};

struct SequencePlan {
  std::string path;  // "sequences.hist"
  std::string name;
  size_t max_length = 0;
  bool keep_last = false;
  bool drop_invalid = false;
  size_t padded_length = 0;
  int length_of = kNone;            // feature whose list says how many positions are valid
  bool has_positions_mean = false;  // some attention on it has EMPTY_POSITIONS_MEAN
  std::vector<int> validity;        // features that hold their padding id where a position is invalid
  std::vector<int> features;
};

// Immutable after Create; any thread.
struct InputPlan {
  // INVALID_ARGUMENT names the id map, the side table or the feature at fault. `resolved` and the tensors must outlive
  // the plan.
  static absl::StatusOr<InputPlan> Create(const ResolvedSpec& resolved, TensorReader& tensors);

  std::vector<FeaturePlan> features;    // parallel to the spec's
  std::vector<SequencePlan> sequences;  // parallel to the spec's
  absl::flat_hash_map<std::string, int> feature_by_name;
  absl::flat_hash_map<std::string, int> sequence_by_name;

  std::vector<IdMap> id_maps;                              // parallel to the spec's
  std::vector<SideTable> side_tables;                      // parallel to the spec's
  std::vector<std::unique_ptr<const SideRows>> side_rows;  // one per table, map and padding id in use
};

}  // namespace din
