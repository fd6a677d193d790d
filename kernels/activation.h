// Activations after folding: what is left of ReLU, PReLU, Dice, BatchNorm at run time (docs: DESIGN.md, "Folding").
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/instruction_set.h"

namespace din {

enum class ActivationKind {
  kNone,
  kSigmoid,
  kTanh,
  kSlope,    // x > 0 ? x : alpha * x          ReLU (alpha 0), LeakyReLU, PReLU
  kDice,     // p = sigmoid(scale * x + shift), x * (alpha + (1 - alpha) * p)     DIN section 5.3, SiLU
  kDiceRow,  // the same with p = sigmoid((x - m) / sqrt(sum over units of ((x - m)^2 + eps))), m = mean over units
};

// Per unit; the vectors a kind does not use are empty.
struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  std::vector<float> scale;  // kDice
  std::vector<float> shift;  // kDice
  std::vector<float> alpha;  // kSlope, kDice, kDiceRow
  float eps = 0;             // kDiceRow
};

// What is subtracted from an output before it is rounded to bf16, and made up for in the bias of the next layer:
// numbers around 0 lose less, and not all to the same side.
inline float CentreOf(const Activation& activation) {
  return activation.kind == ActivationKind::kSigmoid ? 0.5f : 0.0f;
}

// In place on `rows` rows of `units` floats, `stride` floats apart. Each row's result depends on that row alone, bit
// for bit. Any thread.
void Activate(const Activation& activation, InstructionSet isa, float* x, size_t rows, size_t units, size_t stride);

// x = 1 / (1 + exp(-x)) on `n` floats, in place; absolute error <= 1e-6, always in [0, 1], NaN-free for finite x.
void Sigmoid(InstructionSet isa, float* x, size_t n);

}  // namespace din
