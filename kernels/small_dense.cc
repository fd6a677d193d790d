#include "kernels/small_dense.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "kernels/dispatch-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/small_dense.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef DIN_KERNELS_SMALL_DENSE_PACKED_
#define DIN_KERNELS_SMALL_DENSE_PACKED_
namespace din {
namespace {

// Units of a layer that are computed together, in the lanes of a few vectors.
struct UnitBlock {
  size_t first = 0;  // unit
  size_t vectors = 0;
  size_t weights = 0;  // offset of [in][vectors * lanes], zeros past the last unit
};

struct PackedLayer {
  size_t in = 0;
  size_t out = 0;
  std::vector<UnitBlock> blocks;
  hwy::AlignedFreeUniquePtr<float[]> weights;
  hwy::AlignedFreeUniquePtr<float[]> bias;  // padded as the units of the blocks are
};

struct Target {
  size_t lanes;
  size_t most_vectors;
  void (*run)(const PackedLayer& layer, const float* start, const float* x, size_t rows, float* y);
};

}  // namespace
}  // namespace din
#endif  // DIN_KERNELS_SMALL_DENSE_PACKED_

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Tag = hn::ScalableTag<float>;

// Sums, operands and one broadcast fill the registers: 32 of them, or 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr size_t kSums = 25;
constexpr size_t kMostVectors = 5;
#else
constexpr size_t kSums = 12;
constexpr size_t kMostVectors = 3;
#endif
constexpr size_t kMostRows = 12;  // enough chains of additions to hide their latency

constexpr size_t RowsFor(size_t vectors) { return kSums / vectors < kMostRows ? kSums / vectors : kMostRows; }

// y[r][u] = start[u] + sum over k of x[r][k] * w[k][u] for kRows rows and the units of a block.
template <size_t kRows, size_t kVectors>
HWY_NOINLINE void Tile(const PackedLayer& layer, const UnitBlock& block, const float* start,
                       const float* HWY_RESTRICT x, float* HWY_RESTRICT y) {
  const Tag d;
  using V = hn::Vec<Tag>;
  const size_t lanes = hn::Lanes(d);
  V sum[kRows][kVectors];
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) {
    const V bias = hn::Load(d, start + block.first + n * lanes);
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) sum[r][n] = bias;
  }
  const float* HWY_RESTRICT w = layer.weights.get() + block.weights;
  const size_t in = layer.in;
  for (size_t k = 0; k < in; ++k, w += kVectors * lanes) {
    V weight[kVectors];
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) weight[n] = hn::Load(d, w + n * lanes);
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
      const V value = hn::Set(d, x[r * in + k]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kVectors; ++n) sum[r][n] = hn::MulAdd(value, weight[n], sum[r][n]);
    }
  }
  const size_t rest = layer.out - block.first - (kVectors - 1) * lanes;  // units of the last vector, if fewer
#pragma GCC unroll 16
  for (size_t r = 0; r < kRows; ++r) {
    float* to = y + r * layer.out + block.first;
#pragma GCC unroll 8
    for (size_t n = 0; n + 1 < kVectors; ++n) hn::StoreU(sum[r][n], d, to + n * lanes);
    to += (kVectors - 1) * lanes;
    if (rest >= lanes) {
      hn::StoreU(sum[r][kVectors - 1], d, to);
    } else {
      HWY_ALIGN float last[hn::MaxLanes(Tag())];
      hn::Store(sum[r][kVectors - 1], d, last);
      std::memcpy(to, last, rest * sizeof(float));
    }
  }
}

template <size_t kRows, size_t kVectors>
void RemainingRows(const PackedLayer& layer, const UnitBlock& block, const float* start, const float* x, size_t rows,
                   float* y) {
  if (rows == kRows) return Tile<kRows, kVectors>(layer, block, start, x, y);
  if constexpr (kRows > 1) RemainingRows<kRows - 1, kVectors>(layer, block, start, x, rows, y);
}

template <size_t kVectors>
void Rows(const PackedLayer& layer, const UnitBlock& block, const float* start, const float* x, size_t rows, float* y) {
  constexpr size_t kRows = RowsFor(kVectors);
  for (; rows >= kRows; rows -= kRows, x += kRows * layer.in, y += kRows * layer.out) {
    Tile<kRows, kVectors>(layer, block, start, x, y);
  }
  if constexpr (kRows > 1) {
    if (rows > 0) RemainingRows<kRows - 1, kVectors>(layer, block, start, x, rows, y);
  }
}

template <size_t kVectors>
void BlockOf(const PackedLayer& layer, const UnitBlock& block, const float* start, const float* x, size_t rows,
             float* y) {
  if (block.vectors == kVectors) return Rows<kVectors>(layer, block, start, x, rows, y);
  if constexpr (kVectors > 1) BlockOf<kVectors - 1>(layer, block, start, x, rows, y);
}

void RunImpl(const PackedLayer& layer, const float* start, const float* x, size_t rows, float* y) {
  for (const UnitBlock& block : layer.blocks) BlockOf<kMostVectors>(layer, block, start, x, rows, y);
}

Target DescribeTarget() { return {hn::Lanes(Tag()), kMostVectors, &RunImpl}; }

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {
namespace {

HWY_EXPORT(DescribeTarget);

// Blocks as even as can be.
PackedLayer Pack(const DenseLayerWeights& weights, const Target& target) {
  PackedLayer layer;
  layer.in = weights.in;
  layer.out = weights.out;
  const size_t lanes = target.lanes;
  size_t vectors = (weights.out + lanes - 1) / lanes;
  const size_t padded = vectors * lanes;
  layer.weights = hwy::AllocateAligned<float>(weights.in * padded);
  layer.bias = hwy::AllocateAligned<float>(padded);
  std::fill_n(std::copy(weights.bias.begin(), weights.bias.end(), layer.bias.get()), padded - weights.out, 0.0f);
  size_t first = 0;
  for (size_t blocks = (vectors + target.most_vectors - 1) / target.most_vectors; blocks > 0; --blocks) {
    const UnitBlock block{first, (vectors + blocks - 1) / blocks, first * weights.in};
    float* to = layer.weights.get() + block.weights;
    for (size_t k = 0; k < weights.in; ++k) {
      for (size_t u = first; u < first + block.vectors * lanes; ++u) {
        *to++ = u < weights.out ? weights.weight[u * weights.in + k] : 0.0f;
      }
    }
    layer.blocks.push_back(block);
    first += block.vectors * lanes;
    vectors -= block.vectors;
  }
  return layer;
}

class SmallDenseLayer final : public DenseLayer {
 public:
  SmallDenseLayer(const DenseLayerWeights& weights, InstructionSet isa, const Target& target)
      : isa_(isa), run_(target.run), activation_(weights.activation), layer_(Pack(weights, target)) {}

  size_t in() const override { return layer_.in; }
  size_t out() const override { return layer_.out; }
  size_t ScratchBytes() const override { return 0; }
  void RunFrom(const float* start, const float* x, size_t rows, float* y, void* /*scratch*/) const override {
    run_(layer_, start == nullptr ? layer_.bias.get() : start, x, rows, y);
    Activate(activation_, isa_, y, rows, layer_.out, layer_.out);
  }

 private:
  const InstructionSet isa_;
  void (*const run_)(const PackedLayer& layer, const float* start, const float* x, size_t rows, float* y);
  const Activation activation_;
  const PackedLayer layer_;
};

}  // namespace

std::unique_ptr<const DenseLayer> CreateSmallDenseLayer(const DenseLayerWeights& weights, InstructionSet isa) {
  return std::make_unique<SmallDenseLayer>(weights, isa, Select(HWY_DISPATCH_TABLE(DescribeTarget), isa)());
}

}  // namespace din
#endif  // HWY_ONCE
