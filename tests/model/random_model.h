// Models that no framework made: drawn at random from the whole family that model_spec.proto describes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/model/raw_model.h"

namespace din::testing {

struct RandomModelOptions {
  // Upper bounds of what is drawn.
  size_t units = 20;      // of a layer
  size_t slot_width = 9;  // one to three slots make a key
  size_t positions = 12;  // max_length of a sequence
};

// A model that ResolveSpec and DinModel::Create accept; the same for the same seed. Well-conditioned: |logit| <= 15 for
// requests of RandomRequest, Dice scale <= 1e3, although some units live at a scale of 1/200, where epsilons count.
RawModel RandomModel(uint64_t seed, const RandomModelOptions& options = {});

}  // namespace din::testing
