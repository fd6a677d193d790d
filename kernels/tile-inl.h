// The one loop in which nearly all the time goes. Compiled for every target of Highway, hence this guard.
#if defined(DIN_KERNELS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIN_KERNELS_TILE_INL_H_
#undef DIN_KERNELS_TILE_INL_H_
#else
#define DIN_KERNELS_TILE_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"
#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t kLanes = hn::MaxLanes(hn::ScalableTag<float>());  // no target of ours has a size known late

// A tile is kTileRows x kTileVectors accumulators, beside them kTileVectors operands and one broadcast: as much as the
// registers hold, 32 of them (AVX-512, NEON) or 16.
inline constexpr size_t kTileVectors = 3;
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr size_t kTileRows = 8;
#else
inline constexpr size_t kTileRows = 4;
#endif

// Weights lie in panels, [units / kPanel][depth][kPanel], so that a tile can take them either way: as rows, one
// broadcast at a time, or as lanes, one vector at a time.
inline constexpr size_t kPanel = kTileRows > kLanes ? kTileRows : kLanes;
static_assert(kPanel % kTileRows == 0 && kPanel % kLanes == 0);

constexpr size_t RoundUpTo(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
// Where in its panels unit n begins, for n a multiple of kTileRows or of kLanes.
constexpr size_t PanelOffset(size_t n, size_t depth) { return n / kPanel * kPanel * depth + n % kPanel; }

// One step of a sum: a number, or whatever a Step of another precision keeps in the bits of a float.
struct FloatStep {
  static constexpr size_t kNumbers = 1;   // in the bits of one float
  static constexpr bool kMatrix = false;  // a matrix unit does the sums
  static constexpr bool kSplit = false;   // what rounding left goes along
  using HiddenSigmoid = ExactSigmoid;     // for what goes into another step
  using HiddenOutput = HiddenSigmoid;     // where that is a sigmoid itself
  template <class V>
  static HWY_INLINE V MulAdd(V left, V right, V sum) {
    return hn::MulAdd(left, right, sum);
  }
};

#if HWY_TARGET <= HWY_AVX3
// Two bf16 a float: sum + left.low * right.low + left.high * right.high, in one instruction of AVX512_BF16, which the
// target does not include: hence the assembler, and whoever runs this has asked the CPU (precision.h).
struct Bf16PairStep {
  static constexpr size_t kNumbers = 2;
  static constexpr bool kMatrix = false;
  static constexpr bool kSplit = false;
  using HiddenSigmoid = CoarseSigmoid;
  using HiddenOutput = CentredSigmoid<HiddenSigmoid>;
  static HWY_INLINE hn::Vec512<float> MulAdd(hn::Vec512<float> left, hn::Vec512<float> right, hn::Vec512<float> sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(left.raw), "v"(right.raw));
    return sum;
  }
};

// Tiles of bf16 on a matrix unit (kernels/matrix_unit.h).
struct Bf16MatrixStep {
  static constexpr size_t kNumbers = 2;
  static constexpr bool kMatrix = true;
  static constexpr bool kSplit = false;
  using HiddenSigmoid = CoarseSigmoid;
  using HiddenOutput = CentredSigmoid<HiddenSigmoid>;
};
struct SplitMatrixStep {
  static constexpr size_t kNumbers = 2;
  static constexpr bool kMatrix = true;
  static constexpr bool kSplit = true;
  using HiddenSigmoid = ExactSigmoid;
  using HiddenOutput = CentredSigmoid<HiddenSigmoid>;
};

// To the nearest bf16, as floats; see bf16.h.
HWY_INLINE hn::Vec512<float> RoundToBf16(hn::Vec512<float> x) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<uint32_t> du;
  return hn::BitCast(d, hn::AndNot(hn::Set(du, 0xFFFFu), hn::Add(hn::BitCast(du, x), hn::Set(du, 0x8000u))));
}

// The two numbers, rounded to nearest, in the halves of one float each.
HWY_INLINE hn::Vec512<float> Bf16Pairs(hn::Vec512<float> low, hn::Vec512<float> high) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<uint32_t> du;
  const auto l = hn::ShiftRight<16>(hn::BitCast(du, RoundToBf16(low)));
  return hn::BitCast(d, hn::Or(l, hn::BitCast(du, RoundToBf16(high))));
}

// Floats that are bf16, to 16 bf16.
HWY_INLINE void StoreUpperHalves(hn::Vec512<float> x, uint16_t* out) {
  const hn::ScalableTag<uint32_t> du;
  const hn::Rebind<uint16_t, decltype(du)> d16;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::BitCast(du, x))), d16, out);
}
#endif

//   c[m][n] = bias[m or n] + sum over k of a[k][m] * b[k][n]
//
// for kRows rows m and kVectors vectors n. Every element of c is one chain of multiply-adds in the order of k: its bits
// depend neither on kRows nor on kVectors nor on its place in the tile, nor on which operand is in the lanes.
enum class BiasOf { kRows, kLanes };
struct TileArgs {
  const float* a;  // panels
  const float* b;
  size_t b_step;    // floats from one k to the next
  size_t b_vector;  // floats from one vector to the next
  size_t depth;     // values of k
  const float* bias;
  BiasOf bias_of;
  float* c;
  size_t c_step;  // floats from one row to the next
};

template <class Step, size_t kRows, size_t kVectors>
HWY_NOINLINE void Tile(const TileArgs& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  V sum[kRows][kVectors];
  if (t.bias_of == BiasOf::kRows) {
#pragma GCC unroll 8
    for (size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
      for (size_t n = 0; n < kVectors; ++n) sum[m][n] = hn::Set(d, t.bias[m]);
    }
  } else {
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) {
      const V bias = hn::LoadU(d, t.bias + n * kLanes);
#pragma GCC unroll 8
      for (size_t m = 0; m < kRows; ++m) sum[m][n] = bias;
    }
  }
  const float* HWY_RESTRICT a = t.a;
  const float* HWY_RESTRICT b = t.b;
  const size_t b_step = t.b_step;
  const size_t b_vector = t.b_vector;
  for (size_t k = t.depth; k > 0; --k, a += kPanel, b += b_step) {
    V right[kVectors];
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) right[n] = hn::LoadU(d, b + n * b_vector);
#pragma GCC unroll 8
    for (size_t m = 0; m < kRows; ++m) {
      const V left = hn::Set(d, a[m]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kVectors; ++n) sum[m][n] = Step::MulAdd(left, right[n], sum[m][n]);
    }
  }
  float* HWY_RESTRICT c = t.c;
  const size_t c_step = t.c_step;
#pragma GCC unroll 8
  for (size_t m = 0; m < kRows; ++m, c += c_step) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) hn::StoreU(sum[m][n], d, c + n * kLanes);
  }
}

template <class Step, size_t kRows, size_t kVectors>
void RemainingRows(const TileArgs& t, size_t rows) {
  if (rows == kRows) return Tile<Step, kRows, kVectors>(t);
  if constexpr (kRows > 1) RemainingRows<Step, kRows - 1, kVectors>(t, rows);
}

template <class Step, size_t kVectors>
void Tiles(TileArgs t, size_t rows) {
  const float* panels = t.a;
  for (size_t row = 0; row < rows; row += kTileRows) {
    t.a = panels + PanelOffset(row, t.depth);
    if (rows - row >= kTileRows) {
      Tile<Step, kTileRows, kVectors>(t);
    } else {
      RemainingRows<Step, kTileRows - 1, kVectors>(t, rows - row);
    }
    if (t.bias_of == BiasOf::kRows) t.bias += kTileRows;
    t.c += kTileRows * t.c_step;
  }
}

// The same for any number of rows and 1 to kTileVectors vectors.
template <class Step>
void RunTiles(const TileArgs& t, size_t rows, size_t vectors) {
  static_assert(kTileVectors == 3);
  if (vectors == 3) return Tiles<Step, 3>(t, rows);
  if (vectors == 2) return Tiles<Step, 2>(t, rows);
  Tiles<Step, 1>(t, rows);
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#endif
