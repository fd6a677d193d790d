// What vectors say about each other, pair by pair: the inner products of PNN (arXiv 1611.00144) and the second-order
// term of factorisation machines (Rendle 2010), before its elements are added up.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/instruction_set.h"

namespace din {

// A vector for each row, `stride` floats apart; stride 0: one for all rows.
struct RowVectors {
  const float* data = nullptr;
  size_t stride = 0;
};

struct InteractionArgs {
  std::span<const RowVectors> vectors;  // at least one
  size_t width = 0;                     // of each
  size_t rows = 0;
  float* out = nullptr;                 // [rows, see below], `out_stride` floats apart; overlaps no vector
  size_t out_stride = 0;
};

// Both: a row's result depends on that row alone, bit for bit. What the vectors for all rows say about each other is
// calculated once. Any thread.

// Row: <v_i, v_j> for i < j in the order (0, 1), (0, 2), ..., (n - 2, n - 1).
void InnerProducts(const InteractionArgs& args, InstructionSet isa);

// Row [width]: the sum over i < j of v_i * v_j, element by element. As v_j * (v_0 + ... + v_{j-1}) and not as
// 0.5 ((sum v)^2 - sum v^2), which costs the same and loses what is left when one vector is far larger than the others.
void BiInteraction(const InteractionArgs& args, InstructionSet isa);

}  // namespace din
