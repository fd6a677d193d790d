// What one request may ask for.
#pragma once

#include <cstddef>

#include "model/input.h"

namespace din {

struct RequestLimits {
  InputLimits input;
  size_t explained = 64;  // candidates of one ExplainRequest, each of which costs a pass over the behaviours
};

}  // namespace din
