// A mini-batch as flat arrays: no padding, every behaviour of every sample once, and the distinct embedding rows that
// the batch touches, so that the cost of a step depends on the batch and never on the vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/dataset.h"
#include "trainer/samples.h"

namespace din {

// The fields that a behaviour and a candidate carry alike, each with one table for both (section 4.1).
enum Field { kItemField, kCategoryField, kFields };

struct Batch {
  struct Rows {
    std::vector<int64_t> distinct;   // table rows, in order of first use
    std::vector<int64_t> candidate;  // [samples] indices into `distinct`
    std::vector<int64_t> behaviour;  // [behaviours] indices into `distinct`
  };
  Rows fields[kFields];
  std::vector<int64_t> begin;  // [samples + 1] offsets into the behaviours
  std::vector<int64_t> owner;  // [behaviours] the sample that each belongs to
  std::vector<float> labels;   // [samples]

  size_t samples() const { return labels.size(); }
  size_t behaviours() const { return owner.size(); }
};

// One thread. Keeps a word per table row, so building a batch costs what the batch holds.
class BatchBuilder {
 public:
  // `data` must outlive the builder.
  BatchBuilder(const Dataset& data, int max_history);

  // Reuses the memory of `batch`.
  void Build(std::span<const Sample> samples, Batch& batch);

 private:
  struct Place {
    uint32_t batch = 0;  // the last batch that used this row
    uint32_t index = 0;  // and where in its `distinct`
  };
  int64_t Use(Field field, int32_t row, Batch& batch);

  const Dataset& data_;
  const int max_history_;
  uint32_t batch_number_ = 0;
  std::vector<Place> places_[kFields];
};

}  // namespace din
