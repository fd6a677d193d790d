// The one loop in which nearly all the time goes. Compiled for every target of Highway, hence this guard.
#if defined(DIN_KERNELS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIN_KERNELS_TILE_INL_H_
#undef DIN_KERNELS_TILE_INL_H_
#else
#define DIN_KERNELS_TILE_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A tile is kTileRows x kTileVectors accumulators, beside them kTileVectors operands and one broadcast: as much as the
// registers hold, 32 of them (AVX-512, NEON) or 16.
inline constexpr size_t kTileVectors = 3;
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr size_t kTileRows = 8;
#else
inline constexpr size_t kTileRows = 4;
#endif

// Rows beyond a multiple of kTileRows get smaller tiles; operands are padded to whole ones.
constexpr size_t RoundUpToTileRows(size_t rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }

//   c[m][n] = bias[m] + sum over k of a[k][m] * b[k][n]
//
// for kRows rows m and kVectors vectors n. a has kTileRows floats a row; rows of b and c are b_step and c_step floats
// apart. Every element of c is one chain of multiply-adds in the order of k: its bits depend neither on kRows nor on
// kVectors nor on its place in the tile.
struct TileArgs {
  const float* a;
  const float* b;
  size_t b_step;
  size_t depth;  // values of k
  const float* bias;
  float* c;
  size_t c_step;
};

template <size_t kRows, size_t kVectors>
HWY_NOINLINE void Tile(const TileArgs& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  V sum[kRows][kVectors];
#pragma GCC unroll 8
  for (size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) sum[m][n] = hn::Set(d, t.bias[m]);
  }
  const float* HWY_RESTRICT a = t.a;
  const float* HWY_RESTRICT b = t.b;
  const size_t b_step = t.b_step;
  for (size_t k = t.depth; k > 0; --k, a += kTileRows, b += b_step) {
    V right[kVectors];
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) right[n] = hn::LoadU(d, b + n * lanes);
#pragma GCC unroll 8
    for (size_t m = 0; m < kRows; ++m) {
      const V left = hn::Set(d, a[m]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kVectors; ++n) sum[m][n] = hn::MulAdd(left, right[n], sum[m][n]);
    }
  }
  float* HWY_RESTRICT c = t.c;
  const size_t c_step = t.c_step;
#pragma GCC unroll 8
  for (size_t m = 0; m < kRows; ++m, c += c_step) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) hn::StoreU(sum[m][n], d, c + n * lanes);
  }
}

template <size_t kRows, size_t kVectors>
void RemainingRows(const TileArgs& t, size_t rows) {
  if (rows == kRows) return Tile<kRows, kVectors>(t);
  if constexpr (kRows > 1) RemainingRows<kRows - 1, kVectors>(t, rows);
}

// The same for any number of rows: a has one panel [depth][kTileRows] after the other, bias and c go on.
template <size_t kVectors>
void Tiles(TileArgs t, size_t rows) {
  for (; rows >= kTileRows; rows -= kTileRows) {
    Tile<kTileRows, kVectors>(t);
    t.a += t.depth * kTileRows;
    t.bias += kTileRows;
    t.c += kTileRows * t.c_step;
  }
  RemainingRows<kTileRows - 1, kVectors>(t, rows);
}

// The same for 1 to kTileVectors vectors.
inline void RunTiles(const TileArgs& t, size_t rows, size_t vectors) {
  static_assert(kTileVectors == 3);
  if (vectors == 3) return Tiles<3>(t, rows);
  if (vectors == 2) return Tiles<2>(t, rows);
  Tiles<1>(t, rows);
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#endif
