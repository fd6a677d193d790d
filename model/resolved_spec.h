// A ModelSpec that has been checked, with every name turned into an index and every width known.
//
// Everything downstream (decoding, folding, the forward pass, the reference) reads this and trusts it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/model_spec.pb.h"

namespace din {

inline constexpr int kNone = -1;

struct ResolvedSpec {
  struct Feature {
    int sequence = kNone;    // scope SEQUENCE
    int id_map = kNone;      // kinds ID and ID_LIST
    v1::IdType id_type = v1::ID_TYPE_UNSPECIFIED;
    size_t width = 0;        // DENSE
    int side_table = kNone;
    int side_key = kNone;    // feature
    int label = kNone;       // side table of strings
    // DENSE features and ID_LISTs without a slot that reads them are allowed; so are unused ID features.
  };
  struct Sequence {
    int length_of = kNone;   // ID_LIST feature of scope USER
  };
  struct Slot {
    v1::Scope scope = v1::SCOPE_UNSPECIFIED;
    int sequence = kNone;    // scope SEQUENCE
    size_t width = 0;
    int feature = kNone;     // of the ids; kNone for Dense, and for Scaled without a feature
    int value = kNone;       // DENSE feature, of Dense and Scaled
    int table = kNone;
  };
  // Slots side by side in one vector.
  struct Concat {
    std::vector<int> slots;
    std::vector<size_t> offsets;  // of each slot
    size_t width = 0;
  };
  struct Attention {
    int sequence = kNone;
    Concat query;
    Concat key;              // key.width is D; query.width <= D
    size_t value_width = 0;  // D, or post.units
  };
  struct SequencePool {
    int sequence = kNone;
    Concat key;
  };
  enum class VectorKind { kSlot, kAttention, kSequencePool, kInteraction, kPreTower };
  struct Vector {
    VectorKind kind = VectorKind::kSlot;
    int index = kNone;
    bool per_candidate = false;  // scope CANDIDATE; otherwise one per request
    size_t width = 0;            // of the whole vector
    size_t begin = 0;            // the part that is used
    size_t end = 0;
    size_t used() const { return end - begin; }
  };
  struct Interaction {
    std::vector<Vector> vectors;
    bool per_candidate = false;
    size_t width = 0;  // of each vector
    size_t out_width = 0;
  };
  struct Term {
    Vector a;
    bool is_product = false;
    Vector b;
    size_t width() const { return a.used(); }
    bool per_candidate() const { return a.per_candidate || (is_product && b.per_candidate); }
  };
  struct Network {               // a pre-tower or the tower
    std::vector<Term> input;
    size_t in_width = 0;
    size_t out_width = 0;        // of the last layer; in_width when there are none
  };
  struct IdBias {
    int feature = kNone;
    int table = kNone;
  };

  v1::ModelSpec spec;
  // Parallel to the repeated fields of `spec`.
  std::vector<Feature> features;
  std::vector<Sequence> sequences;
  std::vector<Slot> slots;
  std::vector<Attention> attentions;
  std::vector<SequencePool> sequence_pools;
  std::vector<Interaction> interactions;
  std::vector<Network> pre_towers;
  Network tower;  // in_width 0: no tower, the logit is the sum of what is added to it
  std::vector<IdBias> id_biases;
  std::vector<Vector> wide;
};

// Rows that the map can give (out_of_vocabulary_row apart); for a vocabulary -1, since its tensor knows.
int64_t RowsOf(const v1::IdMap& map);

// INVALID_ARGUMENT names the field as a path ("attentions[0].layers[1].activation.dice.statistics"), the value and what
// is accepted.
absl::StatusOr<ResolvedSpec> ResolveSpec(v1::ModelSpec spec);

// The tensor that holds this table.
std::string TensorName(const v1::Table& table);

}  // namespace din
