// From float rows to int8 rows with a scale each (RowType::kI8), for those who write snapshots.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace din {

// Returns the scale, largest |row| / 127; `out` [row.size()] is row / scale rounded to nearest, so an element moves by
// at most half the scale. Finite rows only. All zeros give the scale 0.
inline float QuantizeRow(std::span<const float> row, int8_t* out) {
  float largest = 0;
  for (const float v : row) largest = std::max(largest, std::fabs(v));
  const float scale = largest / 127;
  for (size_t d = 0; d < row.size(); ++d) {
    // Below the smallest normal float the scale itself may be rounded so far that a quotient passes 127.
    const float steps = scale > 0 ? std::nearbyint(row[d] / scale) : 0.0f;
    out[d] = static_cast<int8_t>(std::clamp(steps, -127.0f, 127.0f));
  }
  return scale;
}

}  // namespace din
