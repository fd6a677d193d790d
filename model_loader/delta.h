// A delta made into tensors: what changed, laid over what the base holds in memory. FORMAT.md, "Deltas".
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/gather.h"
#include "model/tensor.h"
#include "model_loader/memory.h"

namespace din {

// In the files of a delta, changed rows of a tensor are two tensors of these names, the tensor's own behind them.
inline constexpr std::string_view kDeltaRows = "delta.rows.";
inline constexpr std::string_view kDeltaValues = "delta.values.";

// Memory that tensors point into, shared by the versions that do: an embedding table that a delta does not touch, or
// touches in some rows, is held by the base and the delta together, and freed with the last of them. Immutable once
// tensors have been handed out.
struct TensorMemory {
  MemoryRegion region;
  std::deque<RowOverlay> overlays;  // a deque: tensors point at them

  bool Holds(const Tensor& tensor) const;
};

struct DeltaOptions {
  // Tensors that are read through Gather alone, so that some of their rows may lie elsewhere.
  std::set<std::string, std::less<>> tables;
  // Rows of a table that may lie elsewhere, as a share of all; beyond it the table is copied and the rows put in place,
  // which costs the memory of a table but keeps gathering fast, and the next deltas begin anew. 0: always copied.
  double most_overlaid = 0;
  // A table up to this size is copied, too: looking for its rows elsewhere would cost more.
  size_t small_bytes = size_t{1} << 20;
  // Whether so many bytes may be taken; asked once, before they are. Null: they may.
  std::function<absl::Status(uint64_t bytes)> room_for;
};

struct AppliedDelta {
  TensorMap
      tensors;  // of the result; what did not change points into the base's memory, whole tensors into the delta's
  TensorMemory memory;  // of what was merged
};

// `base`: the tensors of the version underneath, `delta`: those in the files of the delta. The result is bit for bit
// what a full snapshot would hold. INVALID_ARGUMENT names the tensor: rows of one that the base does not have, or that
// is also there in full; rows that do not ascend or lie beyond the tensor; values of another type or shape.
// RESOURCE_EXHAUSTED when there is no memory for what has to be copied; the error of `room_for`.
absl::StatusOr<AppliedDelta> ApplyDelta(const TensorMap& base, const TensorMap& delta, const DeltaOptions& options);

// Drops memory that no tensor is in, such as rows that have been merged, and takes the last few tensors out of memory
// that they would keep from being freed, such as a table that has been copied.
absl::Status TidyMemory(TensorMap& tensors, std::vector<std::shared_ptr<const TensorMemory>>& memory);

// The other direction, for whoever writes deltas: what turns `base` into `next`. Memory of what was picked out is in
// `memory`; tensors that changed as a whole point to where `next` has them. INVALID_ARGUMENT when the base has a tensor
// that `next` has not: a delta cannot take one away. Both hold plain tensors, without overlays.
struct TensorDifference {
  TensorMap tensors;
  std::deque<std::vector<std::byte>> memory;
  size_t unchanged = 0;                                      // tensors
  std::vector<std::pair<std::string, size_t>> changed_rows;  // by tensor
};
absl::StatusOr<TensorDifference> DiffTensors(const TensorMap& base, const TensorMap& next);

}  // namespace din
