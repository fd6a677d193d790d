// From embedding rows in a table to float vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/instruction_set.h"

namespace din {

// kI8: an element is float(int8) * the row's scale, rounded to float.
enum class RowType { kF32, kF16, kBF16, kI8 };

// Borrowed; the caller keeps the memory alive and unchanged. Row r starts at data + r * dim * (size of an element).
struct EmbeddingTable {
  const void* data = nullptr;
  RowType type = RowType::kF32;
  size_t rows = 0;
  size_t dim = 0;
  const float* scales = nullptr;  // [rows], of kI8
};

// Stands for a vector of zeros wherever a row is expected.
inline constexpr uint32_t kZeroRow = 0xFFFFFFFFu;

// out[i * out_stride ...] = table[rows[i]] widened to float; all rows < table.rows or kZeroRow. Prefetches ahead.
void Gather(const EmbeddingTable& table, std::span<const uint32_t> rows, float* out, size_t out_stride,
            InstructionSet isa);

enum class PoolKind { kMean, kSum, kMax };

// out[0 .. dim) = the rows pooled. An empty kMean or kMax gives empty_value, an empty kSum gives 0.
// kMean divides by (count + divisor_epsilon). kZeroRow counts as a row of zeros.
void GatherPool(const EmbeddingTable& table, std::span<const uint32_t> rows, PoolKind kind, float divisor_epsilon,
                float empty_value, float* out, InstructionSet isa);

}  // namespace din
