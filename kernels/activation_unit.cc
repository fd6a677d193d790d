#include "kernels/activation_unit.h"

#include <algorithm>
#include <cstring>

#include "hwy/aligned_allocator.h"
#include "kernels/bf16.h"
#include "kernels/dispatch-inl.h"
#include "kernels/matrix_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation_unit.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/activation-inl.h"
#include "kernels/tile-inl.h"

// How a request flows through, for D = 128, units 80 -> 40 -> 1 and 100 behaviours on AVX-512 (16 lanes):
//
//   once per call      96 keys [D] -> 2 blocks [D][48]            behaviours in the lanes
//                       4 keys [D] -> 1 panel  [D][16]            what is left over, as rows
//   per 8 candidates   b + Wq q    -> [8][80]
//   per 4 candidates   W = Wk + Wp diag(q), in panels [D][16 units]
//   per candidate
//     per block        W as rows   [80][D] x [D][48] -> act -> [40][80] x [80][48] -> act -> [1][40] x [40][48] = 48
//     scores left over        W as lanes   [4][D] x [D][80] -> 4 rows of 80
//   per 8 candidates   the 32 rows left over -> 1 block [80][32] -> act -> the other layers = 32 scores
//                      scores -> normalise -> weights -> sum over the keys
//
// A block of keys (24 KB) stays in the first-level cache while the panels stream past it. The layers after the first
// are the same for every candidate, so what is left over of several fills their lanes; the first costs 4 x 5 vectors
// there instead of 80. Which way a pair goes does not show in its bits: it is one chain of multiply-adds either way.
//
// On a matrix unit (matrix_unit.h) the same blocks are multiplied a tile of 16 units by up to 48 behaviours at a time:
//
//              a: W, 16 units                  b: keys, 48 behaviours                c: sums
//     [16][D]  bf16  = D/32 tiles   x   [D/2][48]  pairs of bf16 = D/32 x 3 tiles  ->  [16][48]  = 3 tiles, fp32
//
// While the unit works on 16 units, the vectors activate the 16 before them and round them to pairs of bf16, which are
// the next layer's b as they lie: the few instructions of a tile run long, and many of the others fit behind them. In
// fp32-split every a and b has beside it what rounding left of it, rows of a as [D high][D low], pairs of b alternating
// [high][low], and a tile is three products. What is left over of the behaviours takes a tile of its own, of which only
// the first layer computes the padding.

#ifndef DIN_KERNELS_ACTIVATION_UNIT_PACKED_
#define DIN_KERNELS_ACTIVATION_UNIT_PACKED_
namespace din {
namespace {

using AlignedFloats = hwy::AlignedFreeUniquePtr<float[]>;

// Weights in the layout of one instruction set; panels as in tile-inl.h.
struct PackedUnit {
  struct Layer {
    size_t in = 0;
    size_t out = 0;
    AlignedFloats panels;  // null for the first layer, which each candidate builds; bf16 pairs in that precision
    AlignedFloats bias;    // padded to panels; each kMatrixColumns times where a matrix unit reads it
    Activation activation;
  };
  size_t width = 0;
  size_t depth = 0;  // the width, padded for a matrix unit
  AlignedFloats query_panels;
  AlignedFloats key_panels;  // for a matrix unit rows, [units, padded][depth]
  AlignedFloats product_panels;
  std::vector<Layer> layers;  // hidden layers, then the one that gives the score, in panels of a single unit
  size_t widest = 0;          // units of the widest layer, padded to panels
  bool out_sigmoid = false;
  Normalise normalise = Normalise::kNone;
  const MatrixUnit* matrix = nullptr;  // what it was packed for, if any
};

// What a target's code wants to know about packing, and offers.
struct Target {
  size_t lanes;
  size_t group;     // candidates that are taken together
  size_t combined;  // those of them whose panels are built together
  size_t panel;
  size_t tile_vectors;
  using Pool = void(const PackedUnit& unit, const Target& target, const AttentionArgs& args, float* scratch);
  Pool* pool[3];    // by Precision; null where the target has none
  Pool* matrix[3];  // the same, on a matrix unit
};

constexpr size_t RoundUp(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Offsets into the scratch, in floats; each a multiple of 64 bytes.
struct ScratchLayout {
  ScratchLayout(const PackedUnit& unit, const Target& target, size_t behaviours) {
    padded = RoundUp(behaviours, std::max<size_t>(target.lanes, 16));
    units = RoundUp(unit.layers.front().out, target.panel);
    const size_t block = unit.widest * target.tile_vectors * target.lanes;
    keys = 0;
    rest_keys = keys + Aligned(padded * unit.depth);
    queries = rest_keys + Aligned(target.panel * unit.depth);
    bias = queries + Aligned(target.panel * unit.depth);
    matrix_bias = bias + Aligned(target.group * units);
    panels = matrix_bias + (unit.matrix == nullptr ? 0 : units * kMatrixColumns);
    panels_step = Aligned(units * unit.depth);
    hidden[0] = panels + target.combined * panels_step;
    hidden[1] = hidden[0] + Aligned(block);
    scores = hidden[1] + Aligned(block);
    rest_rows = scores + Aligned(target.group * padded);
    rest_scores = rest_rows + Aligned(target.group * target.lanes * units);
    total = rest_scores + Aligned(target.group * target.lanes);
  }
  static constexpr size_t Aligned(size_t floats) { return RoundUp(floats, 16); }

  size_t padded;       // behaviours, padded
  size_t units;        // of the first layer, padded to panels
  size_t keys;         // blocks of [D][vectors of the block * lanes], zeros past the last behaviour
  size_t rest_keys;    // [D][panel]: the behaviours that are left over
  size_t queries;      // [D][panel]: queries of a group; for a matrix unit then [combined][depth]
  size_t bias;         // [group][units]: their b + Wq q
  size_t matrix_bias;  // [units][kMatrixColumns]: that of one candidate
  size_t panels;       // [combined][panels_step]: Wk + Wp diag(q)
  size_t panels_step;
  size_t hidden[2];    // [units][tile vectors * lanes]: outputs of the layers, in turn
  size_t scores;       // [group][padded]: scores, then weights
  size_t rest_rows;    // [group * lanes][units]: the first layer of the pairs left over
  size_t rest_scores;  // [group * lanes]
  size_t total;
};

}  // namespace
}  // namespace din
#endif  // DIN_KERNELS_ACTIVATION_UNIT_PACKED_

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

using Tag = hn::ScalableTag<float>;

// ---------------------------------------------------------------------------------------------------------------------
// Keys

// out[c * out_step + r] = in[r * in_step + c] for four columns c and `rows` <= 4 rows r, the other rows as zeros.
void Transpose4(const float* in, size_t in_step, size_t rows, float* out, size_t out_step) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t c = 0; c < 4; ++c) {
    for (size_t r = 0; r < 4; ++r) out[c * out_step + r] = r < rows ? in[r * in_step + c] : 0.0f;
  }
#else
  const hn::Simd<float, 4, 0> d;
  const hn::Simd<double, 2, 0> dd;
  const auto zero = hn::Zero(d);
  const auto r0 = hn::LoadU(d, in);
  const auto r1 = rows > 1 ? hn::LoadU(d, in + in_step) : zero;
  const auto r2 = rows > 2 ? hn::LoadU(d, in + 2 * in_step) : zero;
  const auto r3 = rows > 3 ? hn::LoadU(d, in + 3 * in_step) : zero;
  const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, low01, low23)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23)), d, out + out_step);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, high01, high23)), d, out + 2 * out_step);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23)), d, out + 3 * out_step);
#endif
}

// A block: `rows` rows of `width` floats, `stride` apart -> [width][columns], columns >= rows; zeros past the rows.
void PackBlock(const float* in, size_t stride, size_t rows, size_t width, size_t columns, float* HWY_RESTRICT block) {
  size_t d = 0;
  if (columns % 4 == 0) {
    for (; d + 4 <= width; d += 4) {
      for (size_t j = 0; j < columns; j += 4) {
        float* out = block + d * columns + j;
        if (j < rows) {
          Transpose4(in + j * stride + d, stride, std::min<size_t>(4, rows - j), out, columns);
        } else {
          for (size_t c = 0; c < 4; ++c) std::fill_n(out + c * columns, 4, 0.0f);
        }
      }
    }
  }
  for (; d < width; ++d) {
    for (size_t j = 0; j < columns; ++j) block[d * columns + j] = j < rows ? in[j * stride + d] : 0.0f;
  }
}

// What a step takes for one number of the sum: rows [first, end) of x [rows][columns] become steps, in place; `first`
// is even.
template <class Step>
constexpr size_t Steps(size_t rows) {
  return (rows + Step::kNumbers - 1) / Step::kNumbers;
}
template <class Step>
void RowsToSteps([[maybe_unused]] float* x, [[maybe_unused]] size_t first, [[maybe_unused]] size_t end,
                 [[maybe_unused]] size_t columns) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (Step::kNumbers == 2) {
    const Tag d;
    for (size_t r = first; r < end; r += 2) {
      const float* row = x + r * columns;
      const float* next = row + columns;
      // Behind what is still to be read: the pairs, or alternately them and the pairs of what rounding left.
      float* out = Step::kSplit ? x + r * columns : x + r / 2 * columns;
      for (size_t j = 0; j < columns; j += kLanes) {
        const auto low = hn::Load(d, row + j);
        const auto high = r + 1 < end ? hn::Load(d, next + j) : hn::Zero(d);
        hn::Store(Bf16Pairs(low, high), d, out + j);
        if constexpr (Step::kSplit) {
          hn::Store(Bf16Pairs(hn::Sub(low, RoundToBf16(low)), hn::Sub(high, RoundToBf16(high))), d, out + columns + j);
        }
      }
    }
  }
#endif
}

// Calls block(first, vectors) for `n` columns in blocks of at most kTileVectors vectors and as even as can be: a single
// vector left over would not keep the multipliers busy.
template <class Block>
void ForEachBlock(size_t n, const Block& block) {
  size_t vectors = (n + kLanes - 1) / kLanes;
  size_t blocks = (vectors + kTileVectors - 1) / kTileVectors;
  size_t first = 0;
  for (; blocks > 0; --blocks) {
    const size_t size = (vectors + blocks - 1) / blocks;
    block(first, size);
    first += size * kLanes;
    vectors -= size;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Candidates

// c [rows][units] = bias + a * panels, with the units in the lanes; `units` is a multiple of kLanes.
template <class Step>
void RunUnitsInLanes(const float* a, size_t rows, const float* panels, size_t units, size_t depth, const float* bias,
                     BiasOf bias_of, float* c, size_t c_step) {
  for (size_t u = 0; u < units;) {
    const size_t vectors = kPanel == kLanes ? std::min(kTileVectors, (units - u) / kLanes) : 1;
    const TileArgs tile{.a = a,
                        .b = panels + PanelOffset(u, depth),
                        .b_step = kPanel,
                        .b_vector = kPanel * depth,
                        .depth = depth,
                        .bias = bias + u,
                        .bias_of = bias_of,
                        .c = c + u,
                        .c_step = c_step};
    RunTiles<Step>(tile, rows, vectors);
    u += vectors * kLanes;
  }
}

// b + Wq q for `count` <= kGroup candidates.
void ProjectQueries(const PackedUnit& unit, const float* queries, size_t stride, size_t count,
                    const ScratchLayout& layout, float* scratch) {
  float* HWY_RESTRICT panel = scratch + layout.queries;
  for (size_t c = 0; c < count; ++c) {
    for (size_t k = 0; k < unit.width; ++k) panel[k * kPanel + c] = queries[c * stride + k];
  }
  RunUnitsInLanes<FloatStep>(panel, count, unit.query_panels.get(), layout.units, unit.width,
                             unit.layers.front().bias.get(), BiasOf::kLanes, scratch + layout.bias, layout.units);
}

// Candidates whose panels are built together: Wk and Wp come from the second-level cache once for all of them.
constexpr size_t kCombined = 4;

// Wk + Wp diag(q), for `count` <= kCombined candidates: what makes the first layer a plain layer on keys.
// out[c * panels_step ...] are the panels of candidate c.
template <class Step, size_t kCandidates>
void CombinePanels(const PackedUnit& unit, const float* HWY_RESTRICT queries, size_t query_stride, size_t units,
                   float* HWY_RESTRICT out, size_t panels_step) {
  const Tag d;
  using V = hn::Vec<Tag>;
  const float* HWY_RESTRICT key = unit.key_panels.get();
  const float* HWY_RESTRICT product = unit.product_panels.get();
  for (size_t u = 0; u < units; u += kPanel) {
    for (size_t k = 0; k < unit.width; k += Step::kNumbers) {
      for (size_t n = 0; n < kPanel; n += kLanes, key += kLanes, product += kLanes, out += kLanes) {
        const V w = hn::Load(d, key);
        const V p = hn::Load(d, product);
#if HWY_TARGET <= HWY_AVX3
        if constexpr (Step::kNumbers == 2) {
          const bool pair = k + 1 < unit.width;
          const V next_w = pair ? hn::Load(d, key + kPanel) : hn::Zero(d);
          const V next_p = pair ? hn::Load(d, product + kPanel) : hn::Zero(d);
#pragma GCC unroll 4
          for (size_t c = 0; c < kCandidates; ++c) {
            const float* query = queries + c * query_stride + k;
            const V low = hn::MulAdd(p, hn::Set(d, query[0]), w);
            const V high = hn::MulAdd(next_p, hn::Set(d, query[pair ? 1 : 0]), next_w);
            hn::Store(Bf16Pairs(low, high), d, out + c * panels_step);
          }
          continue;
        }
#endif
#pragma GCC unroll 4
        for (size_t c = 0; c < kCandidates; ++c) {
          hn::Store(hn::MulAdd(p, hn::Set(d, queries[c * query_stride + k]), w), d, out + c * panels_step);
        }
      }
      if (Step::kNumbers == 2 && k + 1 < unit.width) {
        key += kPanel;
        product += kPanel;
      }
    }
  }
}

template <class Step, size_t kCandidates>
void CombineSome(const PackedUnit& unit, const float* queries, size_t query_stride, size_t count, size_t units,
                 float* out, size_t panels_step) {
  if (count == kCandidates) {
    return CombinePanels<Step, kCandidates>(unit, queries, query_stride, units, out, panels_step);
  }
  if constexpr (kCandidates > 1) {
    CombineSome<Step, kCandidates - 1>(unit, queries, query_stride, count, units, out, panels_step);
  }
}

// The same as rows of bf16, [units][depth], or [units][depth high][depth low]; queries [..][depth].
template <class Step, size_t kCandidates>
void CombineRows([[maybe_unused]] const PackedUnit& unit, [[maybe_unused]] const float* HWY_RESTRICT queries,
                 [[maybe_unused]] size_t units, [[maybe_unused]] float* out, [[maybe_unused]] size_t panels_step) {
#if HWY_TARGET <= HWY_AVX3
  const Tag d;
  using V = hn::Vec<Tag>;
  const size_t depth = unit.depth;
  const size_t row_numbers = Step::kSplit ? 2 * depth : depth;
  const float* HWY_RESTRICT key = unit.key_panels.get();
  const float* HWY_RESTRICT product = unit.product_panels.get();
  for (size_t u = 0; u < units; ++u) {
    for (size_t k = 0; k < depth; k += kLanes, key += kLanes, product += kLanes) {
      const V w = hn::Load(d, key);
      const V p = hn::Load(d, product);
#pragma GCC unroll 4
      for (size_t c = 0; c < kCandidates; ++c) {
        const V x = hn::MulAdd(p, hn::Load(d, queries + c * depth + k), w);
        const V rounded = RoundToBf16(x);
        uint16_t* row = reinterpret_cast<uint16_t*>(out + c * panels_step) + u * row_numbers + k;
        StoreUpperHalves(rounded, row);
        if constexpr (Step::kSplit) StoreUpperHalves(RoundToBf16(hn::Sub(x, rounded)), row + depth);
      }
    }
  }
#endif
}

template <class Step, size_t kCandidates>
void CombineSomeRows(const PackedUnit& unit, const float* queries, size_t count, size_t units, float* out,
                     size_t panels_step) {
  if (count == kCandidates) return CombineRows<Step, kCandidates>(unit, queries, units, out, panels_step);
  if constexpr (kCandidates > 1) {
    CombineSomeRows<Step, kCandidates - 1>(unit, queries, count, units, out, panels_step);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Scores

template <ActivationKind kKind, class SigmoidKind>
void ActivateRows(const Activation& a, float* x, size_t first, size_t end, size_t columns) {
  const Tag d;
  x += first * columns;
  for (size_t u = first; u < end; ++u, x += columns) {
    for (size_t j = 0; j < columns; j += hn::Lanes(d)) {
      hn::Store(ActivateUnit<kKind, UnitInAllLanes, SigmoidKind>(d, a, u, hn::Load(d, x + j)), d, x + j);
    }
  }
}

void ActivateDiceRow(const Activation& a, float* x, size_t units, size_t columns) {
  const Tag d;
  using V = hn::Vec<Tag>;
  for (size_t j = 0; j < columns; j += hn::Lanes(d)) {
    V mean = hn::Zero(d);
    for (size_t u = 0; u < units; ++u) mean = hn::Add(mean, hn::Load(d, x + u * columns + j));
    mean = hn::Div(mean, hn::Set(d, static_cast<float>(units)));
    V sum = hn::Set(d, static_cast<float>(units) * a.eps);
    for (size_t u = 0; u < units; ++u) {
      const V centred = hn::Sub(hn::Load(d, x + u * columns + j), mean);
      sum = hn::MulAdd(centred, centred, sum);
    }
    const V inverse = InverseDeviation(d, sum);
    for (size_t u = 0; u < units; ++u) {
      const V value = hn::Load(d, x + u * columns + j);
      const V z = hn::Mul(hn::Sub(value, mean), inverse);
      hn::Store(Gate<ExactSigmoid>(d, value, z, hn::Set(d, a.alpha[u])), d, x + u * columns + j);
    }
  }
}

// In place on units [first, end) of x [units][columns], behaviours in the columns; kDiceRow: on all. OutputSigmoid: for
// units that are a sigmoid and nothing else.
template <class SigmoidKind, class OutputSigmoid = SigmoidKind>
void ActivateUnits(const Activation& a, float* x, size_t first, size_t end, size_t columns) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return;
    case ActivationKind::kSigmoid:
      return ActivateRows<ActivationKind::kSigmoid, OutputSigmoid>(a, x, first, end, columns);
    case ActivationKind::kTanh:
      return ActivateRows<ActivationKind::kTanh, SigmoidKind>(a, x, first, end, columns);
    case ActivationKind::kSlope:
      return ActivateRows<ActivationKind::kSlope, SigmoidKind>(a, x, first, end, columns);
    case ActivationKind::kDice:
      return ActivateRows<ActivationKind::kDice, SigmoidKind>(a, x, first, end, columns);
    case ActivationKind::kDiceRow:
      return ActivateDiceRow(a, x, end, columns);
  }
}

// A block through one layer: x [steps of in][columns] -> y [out][columns].
template <class Step>
void RunLayer(const float* panels, const float* bias, size_t in, size_t out, const float* x, size_t vectors, float* y) {
  const size_t columns = vectors * kLanes;
  const TileArgs tile{.a = panels,
                      .b = x,
                      .b_step = columns,
                      .b_vector = kLanes,
                      .depth = Steps<Step>(in),
                      .bias = bias,
                      .bias_of = BiasOf::kRows,
                      .c = y,
                      .c_step = columns};
  RunTiles<Step>(tile, out, vectors);
}

// Units [first, end) of hidden layer i, in x, become what layer i + 1 takes. The last hidden layer's outputs
// stay fp32, and ScoreBlock makes them on its way, except behind the tiles of a matrix unit. kDiceRow: all at once.
template <class Step>
void ActivateHidden(const PackedUnit& unit, size_t i, size_t first, size_t end, float* x, size_t vectors) {
  const PackedUnit::Layer& layer = unit.layers[i];
  const size_t columns = vectors * kLanes;
  if (i + 2 == unit.layers.size()) {
    if constexpr (Step::kMatrix) ActivateUnits<ExactSigmoid>(layer.activation, x, first, end, columns);
    return;
  }
  ActivateUnits<typename Step::HiddenSigmoid, typename Step::HiddenOutput>(layer.activation, x, first, end, columns);
  if (Step::kMatrix && end == layer.out) {
    end = RoundUp(end, kMatrixDepth);
    std::fill_n(x + layer.out * columns, (end - layer.out) * columns, 0.0f);
  }
  RowsToSteps<Step>(x, first, end, columns);
}

// c = bias + a b for 16 units, which begin at `u`.
template <class Step>
void MultiplyMatrix(const PackedUnit& unit, const float* rows, const float* bias, size_t u, size_t depth,
                    const float* b, size_t vectors, float* c) {
  constexpr size_t kCopies = Step::kSplit ? 2 : 1;
  const size_t columns = vectors * kLanes;
  const MatrixTiles tiles{.a = reinterpret_cast<const uint16_t*>(rows) + u * kCopies * depth,
                          .a_step = kCopies * depth,
                          .b = b,
                          .b_step = kCopies * columns,
                          .depth = depth,
                          .bias = bias + u * kMatrixColumns,
                          .c = c + u * columns,
                          .c_step = columns,
                          .a_low = depth,
                          .b_low = columns};
  (Step::kSplit ? unit.matrix->split : unit.matrix->bf16)[vectors - 1](tiles);
}

// A block through hidden layer i and its activation, on a matrix unit.
template <class Step>
void RunMatrixLayer(const PackedUnit& unit, size_t i, const float* rows, const float* bias, const float* x,
                    size_t vectors, float* y) {
  const PackedUnit::Layer& layer = unit.layers[i];
  const size_t depth = RoundUp(layer.in, kMatrixDepth);
  const bool by_tile = layer.activation.kind != ActivationKind::kDiceRow;
  size_t activated = 0;
  for (size_t u = 0; u < layer.out; u += kMatrixRows) {
    MultiplyMatrix<Step>(unit, rows, bias, u, depth, x, vectors, y);
    if (by_tile && u > 0) {
      ActivateHidden<Step>(unit, i, activated, u, y, vectors);
      activated = u;
    }
  }
  ActivateHidden<Step>(unit, i, activated, layer.out, y, vectors);
}

// A block through hidden layer i and its activation: x -> what layer i + 1 takes.
template <class Step>
void RunHidden(const PackedUnit& unit, size_t i, const float* panels, const float* bias, const float* x, size_t vectors,
               float* y) {
  if constexpr (Step::kMatrix) {
    RunMatrixLayer<Step>(unit, i, panels, bias, x, vectors, y);
  } else {
    const PackedUnit::Layer& layer = unit.layers[i];
    RunLayer<Step>(panels, bias, layer.in, layer.out, x, vectors, y);
    ActivateHidden<Step>(unit, i, 0, layer.out, y, vectors);
  }
}

// scores [columns] = bias + sum over the units u of weight[u] * activation(x[u][column]), of what the last hidden layer
// summed up: nobody else needs its outputs, so they are not stored. One chain of multiply-adds in the order of the
// units.
template <ActivationKind kKind, size_t kVectors>
void ScoreUnits(const PackedUnit::Layer& layer, const Activation& a, const float* HWY_RESTRICT x,
                float* HWY_RESTRICT scores) {
  const Tag d;
  using V = hn::Vec<Tag>;
  const float* HWY_RESTRICT weight = layer.panels.get();
  V sum[kVectors];
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) sum[n] = hn::Set(d, layer.bias[0]);
  for (size_t u = 0; u < layer.in; ++u, x += kVectors * kLanes) {
    const V w = hn::Set(d, weight[u]);
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) {
      V y = hn::Load(d, x + n * kLanes);
      if constexpr (kKind != ActivationKind::kNone) y = ActivateUnit<kKind, UnitInAllLanes>(d, a, u, y);
      sum[n] = hn::MulAdd(w, y, sum[n]);
    }
  }
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) hn::Store(sum[n], d, scores + n * kLanes);
}

template <ActivationKind kKind>
void ScoreVectors(const PackedUnit::Layer& layer, const Activation& a, const float* x, size_t vectors, float* scores) {
  static_assert(kTileVectors == 3);
  if (vectors == 3) return ScoreUnits<kKind, 3>(layer, a, x, scores);
  if (vectors == 2) return ScoreUnits<kKind, 2>(layer, a, x, scores);
  ScoreUnits<kKind, 1>(layer, a, x, scores);
}

// From what the last hidden layer left in x to one row of scores.
template <class Step>
void ScoreBlock(const PackedUnit& unit, float* x, size_t vectors, float* scores) {
  const PackedUnit::Layer& layer = unit.layers.back();
  const Activation& a = unit.layers[unit.layers.size() - 2].activation;
  if constexpr (Step::kMatrix) return ScoreVectors<ActivationKind::kNone>(layer, a, x, vectors, scores);
  switch (a.kind) {
    case ActivationKind::kSigmoid:
      return ScoreVectors<ActivationKind::kSigmoid>(layer, a, x, vectors, scores);
    case ActivationKind::kTanh:
      return ScoreVectors<ActivationKind::kTanh>(layer, a, x, vectors, scores);
    case ActivationKind::kSlope:
      return ScoreVectors<ActivationKind::kSlope>(layer, a, x, vectors, scores);
    case ActivationKind::kDice:
      return ScoreVectors<ActivationKind::kDice>(layer, a, x, vectors, scores);
    case ActivationKind::kDiceRow:
      ActivateDiceRow(a, x, layer.in, vectors * kLanes);
      [[fallthrough]];
    case ActivationKind::kNone:
      return ScoreVectors<ActivationKind::kNone>(layer, a, x, vectors, scores);
  }
}

// From what layer 0 left in hidden[0] to one row of scores.
template <class Step>
void FinishBlock(const PackedUnit& unit, const ScratchLayout& layout, float* scratch, size_t vectors, float* scores) {
  const size_t hidden = unit.layers.size() - 1;
  float* x = scratch + layout.hidden[0];
  for (size_t i = 1; i < hidden; ++i) {
    const PackedUnit::Layer& layer = unit.layers[i];
    float* y = scratch + layout.hidden[i % 2];
    RunHidden<Step>(unit, i, layer.panels.get(), layer.bias.get(), x, vectors, y);
    x = y;
  }
  ScoreBlock<Step>(unit, x, vectors, scores);
}

// Scores [behaviours, padded to vectors] -> weights, zeros in the padding.
void NormaliseScores(const PackedUnit& unit, float* scores, size_t behaviours) {
  const Tag d;
  using V = hn::Vec<Tag>;
  const size_t lanes = hn::Lanes(d);
  const size_t padded = RoundUp(behaviours, lanes);
  const auto sigmoids = [=]() HWY_ATTR {
    for (size_t j = 0; j < padded; j += lanes) hn::Store(Sigmoid(d, hn::Load(d, scores + j)), d, scores + j);
  };
  if (unit.out_sigmoid) sigmoids();
  if (unit.normalise == Normalise::kSigmoid) sigmoids();
  if (unit.normalise == Normalise::kSoftmax) {
    for (size_t j = behaviours; j < padded; ++j) scores[j] = scores[0];
    V highest = hn::Load(d, scores);
    for (size_t j = lanes; j < padded; j += lanes) highest = hn::Max(highest, hn::Load(d, scores + j));
    highest = hn::MaxOfLanes(d, highest);
    for (size_t j = 0; j < padded; j += lanes) {
      hn::Store(ExpOfNegative(d, hn::Sub(hn::Load(d, scores + j), highest)), d, scores + j);
    }
    std::fill(scores + behaviours, scores + padded, 0.0f);
    V sum = hn::Zero(d);
    for (size_t j = 0; j < padded; j += lanes) sum = hn::Add(sum, hn::Load(d, scores + j));
    const V share = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
    for (size_t j = 0; j < padded; j += lanes) hn::Store(hn::Mul(hn::Load(d, scores + j), share), d, scores + j);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Pooling

// `count` candidates, their weights `stride` floats apart and their sums `out_stride`.
struct PoolArgs {
  const float* keys;  // [behaviours][width]
  size_t behaviours;
  size_t width;
  const float* weights;
  size_t stride;
  float* out;
  size_t out_stride;
};

// Columns [first, end) of the weighted sums, in kVectors vectors of which the last ends at `end`: it overlaps the one
// before and computes some columns a second time, alike. Every sum is one chain in the order of the behaviours.
template <size_t kCandidates, size_t kVectors, class D>
void PoolColumns(D d, const PoolArgs& args, size_t first, size_t end) {
  using V = hn::Vec<D>;
  size_t column[kVectors];
  V sum[kCandidates][kVectors];
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) {
    column[n] = std::min(first + n * hn::Lanes(d), end - hn::Lanes(d));
#pragma GCC unroll 8
    for (size_t c = 0; c < kCandidates; ++c) sum[c][n] = hn::Zero(d);
  }
  const float* key = args.keys;
  for (size_t j = 0; j < args.behaviours; ++j, key += args.width) {
    V keys[kVectors];
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) keys[n] = hn::LoadU(d, key + column[n]);
#pragma GCC unroll 8
    for (size_t c = 0; c < kCandidates; ++c) {
      const V weight = hn::Set(d, args.weights[c * args.stride + j]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kVectors; ++n) sum[c][n] = hn::MulAdd(weight, keys[n], sum[c][n]);
    }
  }
#pragma GCC unroll 8
  for (size_t c = 0; c < kCandidates; ++c) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) hn::StoreU(sum[c][n], d, args.out + c * args.out_stride + column[n]);
  }
}

template <size_t kCandidates, size_t kVectors, class D>
void PoolVectors(D d, const PoolArgs& args, size_t vectors, size_t first, size_t end) {
  if (vectors == kVectors) return PoolColumns<kCandidates, kVectors>(d, args, first, end);
  if constexpr (kVectors > 1) PoolVectors<kCandidates, kVectors - 1>(d, args, vectors, first, end);
}

template <size_t kCandidates, class D>
void PoolAll(D d, const PoolArgs& args) {
  // As many sums as a tile has; for one candidate enough chains to keep the multipliers busy.
  constexpr size_t kMaxVectors = kCandidates == 1 ? 5 : kTileVectors;
  const size_t lanes = hn::Lanes(d);
  if (args.width >= lanes) {
    size_t vectors = (args.width + lanes - 1) / lanes;
    size_t passes = (vectors + kMaxVectors - 1) / kMaxVectors;  // as even as can be: one vector is too few chains
    for (size_t first = 0; passes > 0; --passes) {
      const size_t size = (vectors + passes - 1) / passes;
      const size_t end = std::min(first + size * lanes, args.width);
      PoolVectors<kCandidates, kMaxVectors>(d, args, size, first, end);
      first = end;
      vectors -= size;
    }
  } else if constexpr (hn::MaxLanes(d) > 1) {
    PoolAll<kCandidates>(hn::Half<D>(), args);
  }
}

// The weighted sums of the keys, for `count` candidates: several at a time, so that a key is read once for all of them.
void PoolKeys(PoolArgs args, size_t count) {
  for (; count >= kTileRows; count -= kTileRows) {
    PoolAll<kTileRows>(Tag(), args);
    args.weights += kTileRows * args.stride;
    args.out += kTileRows * args.out_stride;
  }
  for (; count > 0; --count) {
    PoolAll<1>(Tag(), args);
    args.weights += args.stride;
    args.out += args.out_stride;
  }
}

// ---------------------------------------------------------------------------------------------------------------------

// Candidates that are taken together.
constexpr size_t kGroup = kTileRows;

template <class Step>
class Call {
 public:
  Call(const PackedUnit& unit, const Target& target, const AttentionArgs& args, float* scratch)
      : unit_(unit), args_(args), layout_(unit, target, args.behaviours), scratch_(scratch) {}

  void Run() {
    const bool score = args_.behaviours > 0 && !args_.uniform;
    if (score) PackKeys();
    for (size_t first = 0; first < args_.candidates; first += kGroup) {
      const size_t count = std::min(kGroup, args_.candidates - first);
      if (score) {
        ScoreGroup(first, count);
      } else {
        const float weight = 1.0f / static_cast<float>(args_.behaviours);
        for (size_t c = 0; c < count; ++c) std::fill_n(Scores(c), args_.behaviours, weight);
      }
      PoolGroup(first, count);
    }
  }

 private:
  float* Scores(size_t in_group) const { return scratch_ + layout_.scores + in_group * layout_.padded; }

  void PackKeys() {
    const size_t units = unit_.layers.front().out;
    const size_t vectors = RoundUpTo(units, kLanes) / kLanes;
    const size_t rest = args_.behaviours % kLanes;
    // As lanes, the units cost a vector for each kLanes of them and behaviour; the rest as one more vector of
    // behaviours would cost one for each unit. Small tiles are a little slower.
    // A matrix unit pads the first layer either way.
    rest_ = (Step::kMatrix ? rest <= kLanes / 2 : rest * vectors * 5 / 4 < units) ? rest : 0;
    in_blocks_ = args_.behaviours - rest_;
    ForEachBlock(in_blocks_, [&](size_t first, size_t vectors) HWY_ATTR {
      PackKeyBlock(first, std::min(vectors * kLanes, in_blocks_ - first), vectors * kLanes,
                   scratch_ + layout_.keys + first * unit_.depth);
    });
    if (rest_ > 0) PackKeyBlock(in_blocks_, rest_, kPanel, scratch_ + layout_.rest_keys);
  }

  void PackKeyBlock(size_t first, size_t count, size_t columns, float* block) {
    const size_t width = unit_.width;
    PackBlock(args_.keys + first * width, width, count, width, columns, block);
    std::fill_n(block + width * columns, (unit_.depth - width) * columns, 0.0f);
    RowsToSteps<Step>(block, 0, unit_.depth, columns);
  }

  void ScoreGroup(size_t first, size_t count) {
    const float* queries = args_.queries + first * args_.query_stride;
    ProjectQueries(unit_, queries, args_.query_stride, count, layout_, scratch_);
    for (size_t c = 0; c < count; c += kCombined) {
      const size_t combined = std::min(kCombined, count - c);
      Combine(queries + c * args_.query_stride, combined);
      for (size_t i = 0; i < combined; ++i) ScoreCandidate(scratch_ + layout_.panels + i * layout_.panels_step, c + i);
    }
    if (rest_ > 0) ScoreRest(count);
    for (size_t c = 0; c < count; ++c) NormaliseScores(unit_, Scores(c), args_.behaviours);
  }

  void Combine(const float* queries, size_t count) {
    float* panels = scratch_ + layout_.panels;
    if constexpr (Step::kMatrix) {
      float* rows = scratch_ + layout_.queries;
      for (size_t c = 0; c < count; ++c) {
        float* row = rows + c * unit_.depth;
        std::fill(std::copy_n(queries + c * args_.query_stride, unit_.width, row), row + unit_.depth, 0.0f);
      }
      CombineSomeRows<Step, kCombined>(unit_, rows, count, layout_.units, panels, layout_.panels_step);
    } else {
      CombineSome<Step, kCombined>(unit_, queries, args_.query_stride, count, layout_.units, panels,
                                   layout_.panels_step);
    }
  }

  void ScoreCandidate(const float* panels, size_t in_group) {
    const float* bias = scratch_ + layout_.bias + in_group * layout_.units;
    if constexpr (Step::kMatrix) {
      float* copies = scratch_ + layout_.matrix_bias;
      for (size_t u = 0; u < layout_.units; ++u) std::fill_n(copies + u * kMatrixColumns, kMatrixColumns, bias[u]);
      bias = copies;
    }
    ForEachBlock(in_blocks_, [&](size_t first, size_t vectors) HWY_ATTR {
      RunHidden<Step>(unit_, 0, panels, bias, scratch_ + layout_.keys + first * unit_.depth, vectors,
                      scratch_ + layout_.hidden[0]);
      FinishBlock<Step>(unit_, layout_, scratch_, vectors, Scores(in_group) + first);
    });
    if (rest_ > 0) RunRest(panels, bias, scratch_ + layout_.rest_rows + in_group * rest_ * layout_.units);
  }

  // The first layer of a candidate and the behaviours that are left over: rows [rest][units].
  void RunRest(const float* panels, const float* bias, float* rows) {
    const float* keys = scratch_ + layout_.rest_keys;
    const size_t units = RoundUpTo(unit_.layers.front().out, kLanes);
    if constexpr (Step::kMatrix) {
      float* sums = scratch_ + layout_.hidden[1];
      for (size_t u = 0; u < units; u += kMatrixRows) {
        MultiplyMatrix<Step>(unit_, panels, bias, u, unit_.depth, keys, 1, sums);
      }
      for (size_t j = 0; j < rest_; ++j) {
        for (size_t u = 0; u < units; ++u) rows[j * layout_.units + u] = sums[u * kMatrixColumns + j];
      }
    } else {
      RunUnitsInLanes<Step>(keys, rest_, panels, units, Steps<Step>(unit_.width), bias, BiasOf::kLanes, rows,
                            layout_.units);
    }
  }

  void ScoreRest(size_t count) {
    const size_t pairs = count * rest_;
    float* scores = scratch_ + layout_.rest_scores;
    ForEachBlock(pairs, [&](size_t first, size_t vectors) HWY_ATTR {
      PackBlock(scratch_ + layout_.rest_rows + first * layout_.units, layout_.units,
                std::min(vectors * kLanes, pairs - first), unit_.layers.front().out, vectors * kLanes,
                scratch_ + layout_.hidden[0]);
      ActivateHidden<Step>(unit_, 0, 0, unit_.layers.front().out, scratch_ + layout_.hidden[0], vectors);
      FinishBlock<Step>(unit_, layout_, scratch_, vectors, scores + first);
    });
    for (size_t c = 0; c < count; ++c) std::copy_n(scores + c * rest_, rest_, Scores(c) + in_blocks_);
  }

  void PoolGroup(size_t first, size_t count) {
    PoolKeys({.keys = args_.keys,
              .behaviours = args_.behaviours,
              .width = unit_.width,
              .weights = Scores(0),
              .stride = layout_.padded,
              .out = args_.pooled + first * args_.pooled_stride,
              .out_stride = args_.pooled_stride},
             count);
    if (args_.weights == nullptr) return;
    for (size_t c = 0; c < count; ++c) {
      std::copy_n(Scores(c), args_.behaviours, args_.weights + (first + c) * args_.behaviours);
    }
  }

  const PackedUnit& unit_;
  const AttentionArgs& args_;
  const ScratchLayout layout_;
  float* const scratch_;
  size_t in_blocks_ = 0;  // behaviours that go in blocks
  size_t rest_ = 0;       // those that are left over
};

template <class Step>
void PoolImpl(const PackedUnit& unit, const Target& target, const AttentionArgs& args, float* scratch) {
  if constexpr (Step::kMatrix) unit.matrix->begin();
  Call<Step>(unit, target, args, scratch).Run();
  if constexpr (Step::kMatrix) unit.matrix->end();
}

Target DescribeTarget() {
  Target target{kLanes, kGroup, kCombined, kPanel, kTileVectors, {&PoolImpl<FloatStep>, nullptr, nullptr}, {}};
#if HWY_TARGET <= HWY_AVX3
  target.pool[static_cast<size_t>(Precision::kBf16)] = &PoolImpl<Bf16PairStep>;
  target.matrix[static_cast<size_t>(Precision::kFp32Split)] = &PoolImpl<SplitMatrixStep>;
  target.matrix[static_cast<size_t>(Precision::kBf16)] = &PoolImpl<Bf16MatrixStep>;
#endif
  return target;
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {
namespace {

HWY_EXPORT(DescribeTarget);

// [out, in] -> panels [out / panel][in][panel], zeros past `out`.
AlignedFloats PackPanels(const std::vector<float>& weight, size_t out, size_t in, size_t panel) {
  auto panels = hwy::AllocateAligned<float>(RoundUp(out, panel) * in);
  std::fill_n(panels.get(), RoundUp(out, panel) * in, 0.0f);
  for (size_t u = 0; u < out; ++u) {
    for (size_t k = 0; k < in; ++k) panels[(u / panel * in + k) * panel + u % panel] = weight[u * in + k];
  }
  return panels;
}

// [out, in] -> panels [out / panel][pairs of in][panel] of two bf16 in the bits of a float.
AlignedFloats PackPairPanels(const std::vector<float>& weight, size_t out, size_t in, size_t panel) {
  const size_t pairs = (in + 1) / 2;
  std::vector<float> paired(out * pairs);
  for (size_t u = 0; u < out; ++u) {
    for (size_t k = 0; k < in; k += 2) {
      const float* w = weight.data() + u * in + k;
      paired[u * pairs + k / 2] = Bf16Pair(w[0], k + 1 < in ? w[1] : 0.0f);
    }
  }
  return PackPanels(paired, out, pairs, panel);
}

// [out, in] -> rows of floats [out, padded][depth], zeros past `in` and `out`.
AlignedFloats PackRows(const std::vector<float>& weight, size_t out, size_t in, size_t depth) {
  const size_t size = RoundUp(out, kMatrixRows) * depth;
  auto rows = hwy::AllocateAligned<float>(size);
  std::fill_n(rows.get(), size, 0.0f);
  for (size_t u = 0; u < out; ++u) std::copy_n(&weight[u * in], in, &rows[u * depth]);
  return rows;
}

// [out, in] -> rows of bf16 [out, padded][in, padded], each followed by what rounding left of it if `split`.
AlignedFloats PackMatrix(const std::vector<float>& weight, size_t out, size_t in, bool split) {
  const size_t depth = RoundUp(in, kMatrixDepth);
  const size_t step = split ? 2 * depth : depth;
  const size_t rows = RoundUp(out, kMatrixRows);
  auto packed = hwy::AllocateAligned<float>(rows * step / 2);
  auto* numbers = reinterpret_cast<uint16_t*>(packed.get());
  std::fill_n(numbers, rows * step, uint16_t{0});
  for (size_t u = 0; u < out; ++u) {
    for (size_t k = 0; k < in; ++k) {
      const float x = weight[u * in + k];
      const uint16_t high = ToBf16(x);
      numbers[u * step + k] = high;
      if (split) numbers[u * step + depth + k] = ToBf16(x - FromBf16(high));
    }
  }
  return packed;
}

// Each number `copies` times, zeros in the padding.
AlignedFloats PackBias(const std::vector<float>& bias, size_t panel, size_t copies = 1) {
  const size_t size = RoundUp(bias.size(), panel) * copies;
  auto packed = hwy::AllocateAligned<float>(size);
  std::fill_n(packed.get(), size, 0.0f);
  for (size_t u = 0; u < bias.size(); ++u) std::fill_n(&packed[u * copies], copies, bias[u]);
  return packed;
}

// The bias of a layer that takes centred outputs.
std::vector<float> BiasOfCentred(const ActivationUnitWeights::Hidden& hidden, const Activation& before, size_t in) {
  std::vector<float> bias = hidden.bias;
  for (size_t u = 0; u < bias.size(); ++u) {
    double sum = bias[u];
    for (size_t k = 0; k < in; ++k) sum += double{CentreOf(before)} * double{hidden.weight[u * in + k]};
    bias[u] = static_cast<float>(sum);
  }
  return bias;
}

PackedUnit Pack(const ActivationUnitWeights& weights, const Target& target, Precision precision,
                const MatrixUnit* matrix) {
  PackedUnit unit;
  unit.matrix = matrix;
  const size_t width = unit.width = weights.width;
  unit.depth = matrix == nullptr ? width : RoundUp(width, kMatrixDepth);
  const size_t units = weights.hidden.front().units;
  const size_t panel = target.panel;
  unit.query_panels = PackPanels(weights.query_weight, units, width, panel);
  if (matrix == nullptr) {
    unit.key_panels = PackPanels(weights.key_weight, units, width, panel);
    unit.product_panels = PackPanels(weights.product_weight, units, width, panel);
  } else {
    unit.key_panels = PackRows(weights.key_weight, units, width, unit.depth);
    unit.product_panels = PackRows(weights.product_weight, units, width, unit.depth);
  }
  size_t in = width;
  const ActivationUnitWeights::Hidden* before = nullptr;
  for (const ActivationUnitWeights::Hidden& hidden : weights.hidden) {
    const bool first = before == nullptr;
    PackedUnit::Layer layer{in, hidden.units, nullptr, nullptr, hidden.activation};
    const bool centred = precision != Precision::kFp32 && !first;
    layer.bias = PackBias(centred ? BiasOfCentred(hidden, before->activation, in) : hidden.bias, panel,
                          matrix != nullptr && !first ? kMatrixColumns : 1);
    if (!first && matrix != nullptr) {
      layer.panels = PackMatrix(hidden.weight, hidden.units, in, precision == Precision::kFp32Split);
    } else if (!first) {
      const auto pack = precision == Precision::kBf16 ? PackPairPanels : PackPanels;
      layer.panels = pack(hidden.weight, hidden.units, in, panel);
    }
    unit.layers.push_back(std::move(layer));
    unit.widest = std::max(unit.widest, RoundUp(hidden.units, matrix == nullptr ? panel : kMatrixDepth));
    in = hidden.units;
    before = &hidden;
  }
  unit.layers.push_back({in, 1, PackPanels(weights.out_weight, 1, in, 1), PackBias({weights.out_bias}, 1), {}});
  unit.out_sigmoid = weights.out_sigmoid;
  unit.normalise = weights.normalise;
  return unit;
}

class PackedActivationUnit final : public ActivationUnit {
 public:
  PackedActivationUnit(const ActivationUnitWeights& weights, const Target& target, Precision precision,
                       const MatrixUnit* matrix)
      : target_(target),
        pool_((matrix == nullptr ? target.pool : target.matrix)[static_cast<size_t>(precision)]),
        unit_(Pack(weights, target, precision, matrix)) {}

  size_t ScratchFloats(size_t /*candidates*/, size_t behaviours) const override {
    return ScratchLayout(unit_, target_, behaviours).total;
  }

  void Pool(const AttentionArgs& args, float* scratch) const override { pool_(unit_, target_, args, scratch); }

 private:
  const Target target_;
  Target::Pool* const pool_;
  const PackedUnit unit_;
};

}  // namespace

Precision FastestExact(std::span<const ActivationUnitWeights> units) {
  size_t needed = 0, multiplied = 0;  // for one pair
  for (const ActivationUnitWeights& unit : units) {
    size_t in = unit.width;
    for (const ActivationUnitWeights::Hidden& hidden : unit.hidden) {
      needed += in * hidden.units;
      multiplied += RoundUp(in, kMatrixDepth) * RoundUp(hidden.units, kMatrixRows);
      in = hidden.units;
    }
  }
  return 2 * needed > multiplied ? Precision::kFp32Split : Precision::kFp32;
}

std::unique_ptr<const ActivationUnit> ActivationUnit::Create(const ActivationUnitWeights& weights, InstructionSet isa,
                                                             Precision precision) {
  const Target target = Select(HWY_DISPATCH_TABLE(DescribeTarget), isa)();
  precision = NearestSupported(isa, precision);
  const bool matrix = target.matrix[static_cast<size_t>(precision)] != nullptr;
  return std::make_unique<PackedActivationUnit>(weights, target, precision, matrix ? CurrentMatrixUnit() : nullptr);
}

}  // namespace din
#endif  // HWY_ONCE
