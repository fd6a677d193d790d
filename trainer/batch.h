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

// Which values of a field have a row in its table. The others share the row one past the last, which stands for no
// row: zeros, never trained.
struct KeptValues {
  size_t rows = 0;
  std::vector<int32_t> row_of;  // [values], `rows` for those without; empty: row i is value i

  size_t Row(int32_t value) const { return row_of.empty() ? value : row_of[value]; }
};

// All values; or, as the paper filters rare ids (section 6.5), of each field the `most_frequent` that occur most often.
std::vector<KeptValues> KeepValues(const Dataset& data, const Occurrences& occurrences, size_t most_frequent);

struct Batch {
  struct Rows {
    std::vector<int64_t> distinct;  // table rows, in order of first use
    std::vector<int64_t> sample;    // [samples] indices into `distinct`: of the candidate, or the side field
    std::vector<std::vector<int64_t>> behaviours;  // [sequences][behaviours] indices into `distinct`; item fields only
  };
  struct Owners {
    std::vector<int64_t> begin;  // [samples + 1] offsets into the behaviours
    std::vector<int64_t> owner;  // [behaviours] the sample that each belongs to
  };
  std::vector<Rows> fields;
  std::vector<Owners> sequences;
  std::vector<float> labels;  // [samples]

  size_t samples() const { return labels.size(); }
};

// One thread. Keeps two words per table row, so building a batch costs what the batch holds.
class BatchBuilder {
 public:
  // `data` and `kept` must outlive the builder.
  BatchBuilder(const Dataset& data, std::span<const KeptValues> kept, int max_history);

  // Reuses the memory of `batch`.
  void Build(std::span<const Sample> samples, Batch& batch);

 private:
  struct Place {
    uint32_t batch = 0;  // the last batch that used this row
    uint32_t index = 0;  // and where in its `distinct`
  };
  int64_t Use(size_t field, int32_t value, Batch& batch);

  const Dataset& data_;
  const std::span<const KeptValues> kept_;
  const int max_history_;
  uint32_t batch_number_ = 0;
  std::vector<std::vector<Place>> places_;
};

}  // namespace din
