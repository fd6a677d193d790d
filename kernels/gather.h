// From embedding rows in a table to float vectors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/instruction_set.h"

namespace din {

// kI8: an element is float(int8) * the row's scale, rounded to float.
enum class RowType { kF32, kF16, kBF16, kI8 };

// Rows that stand in for some of a table, so that two versions of a table share the rows in which they agree. A bit for
// each row says whether it is here; among 2^22 rows that is half a megabyte, which stays in the second-level cache while
// the rows themselves come from memory, so the question costs next to nothing. Borrowed.
struct RowOverlay {
  const uint64_t* replaced = nullptr;  // bit r % 64 of word r / 64: row r is here
  const uint32_t* ranks = nullptr;     // rows that are here before row 64 * word
  const void* rows = nullptr;          // those rows, ascending, one behind the other

  bool Has(size_t row) const { return (replaced[row / 64] >> row % 64 & 1) != 0; }
  // Among `rows`, of a row that is here.
  size_t PlaceOf(size_t row) const {
    const uint64_t below = (uint64_t{1} << row % 64) - 1;
    return ranks[row / 64] + static_cast<size_t>(std::popcount(replaced[row / 64] & below));
  }
};

// Borrowed; the caller keeps the memory alive and unchanged. Row r starts at data + r * dim * (size of an element),
// unless the overlay has it.
struct EmbeddingTable {
  const void* data = nullptr;
  RowType type = RowType::kF32;
  size_t rows = 0;
  size_t dim = 0;
  const float* scales = nullptr;  // [rows], of kI8
  const RowOverlay* overlay = nullptr;  // null: none
  size_t overlay_offset = 0;            // row r of this table is row r + overlay_offset of the overlay
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
