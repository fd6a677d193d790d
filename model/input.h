// From a request's columns to rows and numbers: the only judge of untrusted input, for requests and golden cases alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "kernels/gather.h"
#include "model/resolved_spec.h"
#include "model/tensor_reader.h"

namespace din {

// What one request may carry. Checked before anything of that size is allocated.
struct InputLimits {
  size_t candidates = 4096;
  size_t behaviours = 16384;  // sent, per sequence, before truncation
  size_t list_ids = 65536;    // values in one ID_LIST column, sent or given by a side table
};

// Borrowed for a call.
struct RequestColumns {
  const google::protobuf::RepeatedPtrField<v1::Column>& features;
  const google::protobuf::RepeatedPtrField<v1::Sequence>& sequences;
  const google::protobuf::RepeatedPtrField<v1::Column>& candidates;
};

// A request in the model's own terms. Reused from request to request, so that it stops allocating.
struct ScoringInput {
  struct Column {
    std::vector<uint32_t> rows;     // ID: one per row; ID_LIST: all values, cut at offsets. kZeroRow allowed
    std::vector<uint32_t> offsets;  // ID_LIST: rows + 1 (in scope USER: {0, n})
    std::vector<float> values;      // DENSE: rows x width
    // ID_LIST: rows holds only what takes part (max_length applied; ids equal to the padding id are kept and marked).
    std::vector<uint8_t> is_padding;  // ID_LIST: parallel to rows
  };
  struct Sequence {
    size_t sent = 0;  // behaviours in the request
    // What is left after truncate, pad and mask: the position in the request of each, or kPaddingPosition.
    std::vector<uint32_t> positions;
    // Nothing takes part: DROP and no position was valid, or PARTICIPATE and there is none. `positions` are then all
    // positions after padding (at least one) where some attention on the sequence has EMPTY_POSITIONS_MEAN, otherwise
    // none. For everything but those attentions the sequence is empty.
    bool empty = false;
  };
  static constexpr uint32_t kPaddingPosition = 0xFFFFFFFFu;

  size_t candidates = 0;
  std::vector<Column> columns;             // one per feature of the spec; scope SEQUENCE: one row per position kept
  std::vector<Sequence> sequences;         // one per sequence of the spec
  std::vector<uint8_t> out_of_vocabulary;  // per candidate: some id of it is not known to the model

  // Memory of Decode, which leaves it empty: per feature the column that the request sent, if it did.
  std::vector<const v1::Column*> sent;
};

// Immutable after Create; any thread. Holds the id maps and the side tables.
//
// Every value sent is judged for its form: type, rows, offsets, finite numbers. Only what takes part is looked up: an
// id at a position that is cut or dropped, or beyond an ID_LIST's max_length, is neither out of vocabulary nor an
// error. Padding of a padded sequence: the feature's own `padding`; without one a side table's value for the padding id
// of its key; otherwise an empty list and zeros, and for an ID an error of Create.
class InputDecoder {
 public:
  // `resolved` must outlive the decoder; so must the tensors behind `tensors` (side tables are read in place).
  static absl::StatusOr<std::unique_ptr<const InputDecoder>> Create(const ResolvedSpec& resolved,
                                                                    TensorReader& tensors);
  ~InputDecoder();

  // INVALID_ARGUMENT names column, position, value and limit; `out` is then unspecified but reusable. Does not allocate
  // for a good request that is no larger than one which `out` has held.
  absl::Status Decode(const RequestColumns& request, const InputLimits& limits, ScoringInput& out) const;

  // Rows that the id map of the spec can give (its vocabulary's size included).
  int64_t IdMapRows(int id_map) const;

  // The label of the candidate or behaviour at `position` of the request; "" where there is none.
  std::string_view CandidateLabel(const RequestColumns& request, size_t position) const;
  std::string_view BehaviourLabel(const RequestColumns& request, int sequence, size_t position) const;

 private:
  struct Impl;
  explicit InputDecoder(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace din
