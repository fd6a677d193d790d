// The reference workloads of DIN serving, with random weights. For tests and benches.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/model/raw_model.h"

namespace din::testing {

struct BenchModelOptions {
  uint64_t seed = 1;
  int64_t item_rows = 1000;
  int64_t category_rows = 100;  // also of the compact shape's other fields
  size_t behaviours = 50;       // for which the logits spread by about 1.5 (standard deviation)
};

// Item 64 + category 64, attention 512 -> 80 -> 40 -> 1 (sigmoid, no softmax), tower [interest, candidate,
// interest * candidate] 384 -> BatchNorm -> 80 -> 40 -> 1 (Dice).
RawModel PaperModel(const BenchModelOptions& options = {});

// 3 fields of 12, attention 144 -> 36 -> 1 (Dice), tower [interest, candidate, ten user fields] 192 -> 200 -> 80 -> 1
// (Dice).
RawModel CompactModel(const BenchModelOptions& options = {});

}  // namespace din::testing
