// bf16: the upper half of a float.
#pragma once

#include <bit>
#include <cstdint>

namespace din {

// The bits, rounded to nearest and away from zero between two; for finite numbers.
constexpr uint16_t ToBf16(float x) { return static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + 0x8000u) >> 16); }
constexpr float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Two of them in the bits of one float, the way that AVX512_BF16 and AMX take them.
constexpr float Bf16Pair(float low, float high) {
  return std::bit_cast<float>(uint32_t{ToBf16(low)} | uint32_t{ToBf16(high)} << 16);
}

}  // namespace din
