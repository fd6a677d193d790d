// The sizes and choices that make one DIN out of the family; what the network and the exported ModelSpec both follow.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/batch.h"

namespace din {

// Added to the variance in Dice: DIN, section 5.3.
inline constexpr double kDiceEps = 1e-8;

enum class Activation { kDice, kPRelu };

struct DinShape {
  int64_t dim = 16;                       // of each field's embedding
  std::vector<int64_t> attention = {36};  // hidden units of the local activation unit; not empty
  std::vector<int64_t> tower = {80, 40};  // hidden units of the tower; not empty
  Activation activation = Activation::kDice;
  bool product = true;  // v_U * v_A into the tower, too
  int max_history = 50;

  int64_t width() const { return dim * kFields; }  // D, of a behaviour and of a candidate
};

}  // namespace din
