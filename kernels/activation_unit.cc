#include "kernels/activation_unit.h"

#include <algorithm>
#include <cstring>

#include "hwy/aligned_allocator.h"
#include "kernels/dispatch-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation_unit.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/activation-inl.h"
#include "kernels/tile-inl.h"

// How a request flows through, for D = 128 and units 80 -> 40 -> 1 on AVX-512 (16 lanes):
//
//   once per call      keys [H][D]  ->  blocks of up to 48 behaviours, each [D][48]       behaviours in the lanes
//   per 8 candidates   Wq q                                                               units in the lanes
//   per candidate      W = Wk + Wp diag(q) in panels [D][8 units], b + Wq q
//     per block        [80][D] x [D][48] -> act -> [40][80] x [80][48] -> act -> [1][40] x [40][48] -> 48 scores
//                       panels   block             panels    15 KB               panel
//     then             scores -> normalise -> weights -> sum over the keys
//
// A block of keys (24 KB) stays in the first-level cache while the panels stream past it.

#ifndef DIN_KERNELS_ACTIVATION_UNIT_PACKED_
#define DIN_KERNELS_ACTIVATION_UNIT_PACKED_
namespace din {
namespace {

using AlignedFloats = hwy::AlignedFreeUniquePtr<float[]>;

// Weights in the layout of one instruction set.
struct PackedUnit {
  struct Layer {
    size_t in = 0;
    size_t out = 0;
    AlignedFloats panels;  // [out / tile rows][in][tile rows]; null for the first layer, which each candidate builds
    AlignedFloats bias;    // [out, padded to tile rows]
    Activation activation;
  };
  size_t width = 0;
  size_t query_columns = 0;      // units of the first layer, padded to lanes
  AlignedFloats query_weight;    // [D][query_columns]
  AlignedFloats key_panels;      // as Layer::panels
  AlignedFloats product_panels;  // as Layer::panels
  std::vector<Layer> layers;     // hidden layers, then the one that gives the score
  size_t widest = 0;             // units of the widest layer, padded to tile rows
  bool out_sigmoid = false;
  Normalise normalise = Normalise::kNone;
};

// What a target's code wants to know about packing, and offers.
struct Target {
  size_t lanes;
  size_t tile_rows;
  size_t tile_vectors;
  void (*pool)(const PackedUnit& unit, const Target& target, const AttentionArgs& args, float* scratch);
};

constexpr size_t RoundUp(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Offsets into the scratch, in floats; each a multiple of 64 bytes.
struct ScratchLayout {
  ScratchLayout(const PackedUnit& unit, const Target& target, size_t behaviours) {
    const size_t padded = RoundUp(behaviours, target.lanes);
    const size_t units = unit.layers.front().out;
    keys = 0;
    scores = keys + Aligned(padded * unit.width);
    panels = scores + Aligned(padded);
    bias = panels + Aligned(RoundUp(units, target.tile_rows) * unit.width);
    query_panel = bias + Aligned(RoundUp(units, target.tile_rows));
    query_part = query_panel + Aligned(unit.width * target.tile_rows);
    repeated_query = query_part + Aligned(target.tile_rows * unit.query_columns);
    hidden[0] = repeated_query + Aligned(unit.width * target.tile_rows);
    hidden[1] = hidden[0] + Aligned(unit.widest * target.tile_vectors * target.lanes);
    total = hidden[1] + Aligned(unit.widest * target.tile_vectors * target.lanes);
  }
  static constexpr size_t Aligned(size_t floats) { return RoundUp(floats, 16); }

  size_t keys;            // blocks of [D][vectors of the block * lanes], zeros past the last behaviour
  size_t scores;          // [behaviours, padded to lanes]: scores, then weights
  size_t panels;          // Wk + Wp diag(q), of one candidate
  size_t bias;            // b + Wq q, of one candidate
  size_t query_panel;     // [D][tile rows]: queries of tile rows candidates
  size_t query_part;      // [tile rows][query_columns]: their Wq q
  size_t repeated_query;  // [D][tile rows]: each component of one query, tile rows times
  size_t hidden[2];       // [units][tile vectors * lanes]: outputs of the layers, in turn
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

// A block: keys [behaviours][width] -> [width][columns], columns >= behaviours; zeros past the behaviours.
void PackBlock(const float* keys, size_t behaviours, size_t width, size_t columns, float* HWY_RESTRICT block) {
  size_t d = 0;
  if (columns % 4 == 0) {
    for (; d + 4 <= width; d += 4) {
      for (size_t j = 0; j < columns; j += 4) {
        float* out = block + d * columns + j;
        if (j < behaviours) {
          Transpose4(keys + j * width + d, width, std::min<size_t>(4, behaviours - j), out, columns);
        } else {
          for (size_t c = 0; c < 4; ++c) std::fill_n(out + c * columns, 4, 0.0f);
        }
      }
    }
  }
  for (; d < width; ++d) {
    for (size_t j = 0; j < columns; ++j) block[d * columns + j] = j < behaviours ? keys[j * width + d] : 0.0f;
  }
}

// Calls block(first behaviour, vectors) for blocks of at most kTileVectors vectors and as even as can be: a single
// vector left over would not keep the multipliers busy.
template <class Block>
void ForEachBlock(size_t behaviours, const Block& block) {
  const size_t lanes = hn::Lanes(Tag());
  size_t vectors = (behaviours + lanes - 1) / lanes;
  size_t blocks = (vectors + kTileVectors - 1) / kTileVectors;
  size_t first = 0;
  for (; blocks > 0; --blocks) {
    const size_t size = (vectors + blocks - 1) / blocks;
    block(first, size);
    first += size * lanes;
    vectors -= size;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Candidates

// Wq q for `count` <= kTileRows candidates.
void ProjectQueries(const PackedUnit& unit, const float* queries, size_t stride, size_t count,
                    const ScratchLayout& layout, float* scratch) {
  float* HWY_RESTRICT panel = scratch + layout.query_panel;
  for (size_t c = 0; c < count; ++c) {
    for (size_t k = 0; k < unit.width; ++k) panel[k * kTileRows + c] = queries[c * stride + k];
  }
  static constexpr float kNoBias[kTileRows] = {};
  const size_t lanes = hn::Lanes(Tag());
  for (size_t column = 0; column < unit.query_columns;) {
    const size_t vectors = std::min(kTileVectors, (unit.query_columns - column) / lanes);
    const TileArgs tile{.a = panel, .b = unit.query_weight.get() + column, .b_step = unit.query_columns,
                        .depth = unit.width, .bias = kNoBias, .c = scratch + layout.query_part + column,
                        .c_step = unit.query_columns};
    RunTiles(tile, count, vectors);
    column += vectors * lanes;
  }
}

// One panel of Wk + Wp diag(q).
void CombinePanel(const float* HWY_RESTRICT key, const float* HWY_RESTRICT product, const float* HWY_RESTRICT query,
                  size_t floats, float* HWY_RESTRICT out) {
  const Tag d;
  const hn::CappedTag<float, kTileRows> row;  // a panel is a whole number of rows, if not of vectors
  size_t i = 0;
  for (; i + hn::Lanes(d) <= floats; i += hn::Lanes(d)) {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, product + i), hn::LoadU(d, query + i), hn::LoadU(d, key + i)), d, out + i);
  }
  for (; i < floats; i += hn::Lanes(row)) {
    hn::StoreU(hn::MulAdd(hn::LoadU(row, product + i), hn::LoadU(row, query + i), hn::LoadU(row, key + i)), row,
               out + i);
  }
}

// Wk + Wp diag(q) and b + Wq q: what makes the candidate's first layer a plain layer on keys.
void PrepareCandidate(const PackedUnit& unit, const float* query, const float* query_part, const ScratchLayout& layout,
                      float* scratch) {
  const hn::CappedTag<float, kTileRows> row;
  float* HWY_RESTRICT repeated = scratch + layout.repeated_query;
  for (size_t k = 0; k < unit.width; ++k) {
    for (size_t m = 0; m < kTileRows; m += hn::Lanes(row)) {
      hn::Store(hn::Set(row, query[k]), row, repeated + k * kTileRows + m);
    }
  }
  const PackedUnit::Layer& first = unit.layers.front();
  const size_t units = RoundUpToTileRows(first.out);
  const size_t panel = unit.width * kTileRows;
  for (size_t p = 0; p < units / kTileRows; ++p) {
    CombinePanel(unit.key_panels.get() + p * panel, unit.product_panels.get() + p * panel, repeated, panel,
                 scratch + layout.panels + p * panel);
  }
  float* HWY_RESTRICT bias = scratch + layout.bias;
  for (size_t u = 0; u < first.out; ++u) bias[u] = first.bias[u] + query_part[u];
  for (size_t u = first.out; u < units; ++u) bias[u] = 0.0f;
}

// ---------------------------------------------------------------------------------------------------------------------
// Scores

template <ActivationKind kKind>
void ActivateRows(const Activation& a, float* x, size_t units, size_t columns) {
  const Tag d;
  for (size_t u = 0; u < units; ++u, x += columns) {
    for (size_t j = 0; j < columns; j += hn::Lanes(d)) {
      hn::Store(ActivateUnit<kKind, UnitInAllLanes>(d, a, u, hn::Load(d, x + j)), d, x + j);
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
      const V p = Sigmoid(d, hn::Mul(hn::Sub(value, mean), inverse));
      hn::Store(Gate(d, value, p, hn::Set(d, a.alpha[u])), d, x + u * columns + j);
    }
  }
}

// In place on x [units][columns], behaviours in the columns.
void ActivateBlock(const Activation& a, float* x, size_t units, size_t columns) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return;
    case ActivationKind::kSigmoid:
      return ActivateRows<ActivationKind::kSigmoid>(a, x, units, columns);
    case ActivationKind::kTanh:
      return ActivateRows<ActivationKind::kTanh>(a, x, units, columns);
    case ActivationKind::kSlope:
      return ActivateRows<ActivationKind::kSlope>(a, x, units, columns);
    case ActivationKind::kDice:
      return ActivateRows<ActivationKind::kDice>(a, x, units, columns);
    case ActivationKind::kDiceRow:
      return ActivateDiceRow(a, x, units, columns);
  }
}

// All layers for one block of keys; `scores` gets one row of `vectors` vectors.
void ScoreBlock(const PackedUnit& unit, const ScratchLayout& layout, float* scratch, const float* block,
                size_t vectors, float* scores) {
  const size_t columns = vectors * hn::Lanes(Tag());
  const float* in = block;
  for (size_t i = 0; i < unit.layers.size(); ++i) {
    const PackedUnit::Layer& layer = unit.layers[i];
    float* out = i + 1 == unit.layers.size() ? scores : scratch + layout.hidden[i % 2];
    const TileArgs tile{.a = i == 0 ? scratch + layout.panels : layer.panels.get(),
                        .b = in,
                        .b_step = columns,
                        .depth = layer.in,
                        .bias = i == 0 ? scratch + layout.bias : layer.bias.get(),
                        .c = out,
                        .c_step = columns};
    RunTiles(tile, layer.out, vectors);
    ActivateBlock(layer.activation, out, layer.out, columns);
    in = out;
  }
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

// Columns [first, end) of the weighted sum, in kVectors vectors of which the last ends at `end`: it overlaps the one
// before and computes some columns a second time, alike.
template <size_t kVectors, class D>
void PoolColumns(D d, const AttentionArgs& args, const float* weights, size_t width, size_t first, size_t end,
                 float* out) {
  using V = hn::Vec<D>;
  size_t column[kVectors];
  V sum[kVectors];
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) {
    column[n] = std::min(first + n * hn::Lanes(d), end - hn::Lanes(d));
    sum[n] = hn::Zero(d);
  }
  const float* key = args.keys;
  for (size_t j = 0; j < args.behaviours; ++j, key += width) {
    const V weight = hn::Set(d, weights[j]);
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) sum[n] = hn::MulAdd(weight, hn::LoadU(d, key + column[n]), sum[n]);
  }
#pragma GCC unroll 8
  for (size_t n = 0; n < kVectors; ++n) hn::StoreU(sum[n], d, out + column[n]);
}

template <size_t kVectors, class D>
void PoolRemaining(D d, const AttentionArgs& args, const float* weights, size_t width, size_t first, float* out) {
  const size_t columns = kVectors * hn::Lanes(d);
  for (; width - first >= columns; first += columns) {
    PoolColumns<kVectors>(d, args, weights, width, first, first + columns, out);
  }
  if (width - first > columns - hn::Lanes(d)) {
    PoolColumns<kVectors>(d, args, weights, width, first, width, out);
  } else if constexpr (kVectors > 1) {
    if (first < width) PoolRemaining<kVectors - 1>(d, args, weights, width, first, out);
  }
}

// out[0 .. width) = sum over the behaviours, in their order, of weights[j] * keys[j].
template <class D>
void PoolKeys(D d, const AttentionArgs& args, const float* weights, size_t width, float* out) {
  constexpr size_t kVectors = 8;  // chains enough to hide the latency of an addition
  if (width >= hn::Lanes(d)) return PoolRemaining<kVectors>(d, args, weights, width, 0, out);
  if constexpr (hn::MaxLanes(d) > 1) PoolKeys(hn::Half<D>(), args, weights, width, out);
}

// ---------------------------------------------------------------------------------------------------------------------

void PoolImpl(const PackedUnit& unit, const Target& target, const AttentionArgs& args, float* scratch) {
  const ScratchLayout layout(unit, target, args.behaviours);
  const size_t width = unit.width;
  float* scores = scratch + layout.scores;
  const auto pool = [&](size_t candidate) HWY_ATTR {
    PoolKeys(Tag(), args, scores, width, args.pooled + candidate * args.pooled_stride);
    if (args.weights != nullptr) std::copy_n(scores, args.behaviours, args.weights + candidate * args.behaviours);
  };
  if (args.behaviours == 0 || args.uniform) {
    std::fill_n(scores, args.behaviours, 1.0f / static_cast<float>(args.behaviours));
    for (size_t c = 0; c < args.candidates; ++c) pool(c);
    return;
  }
  const size_t lanes = hn::Lanes(Tag());
  ForEachBlock(args.behaviours, [&](size_t first, size_t vectors) HWY_ATTR {
    PackBlock(args.keys + first * width, std::min(vectors * lanes, args.behaviours - first), width, vectors * lanes,
              scratch + layout.keys + first * width);
  });
  for (size_t c = 0; c < args.candidates; ++c) {
    const size_t in_group = c % kTileRows;
    const float* query = args.queries + c * args.query_stride;
    if (in_group == 0) {
      ProjectQueries(unit, query, args.query_stride, std::min(kTileRows, args.candidates - c), layout, scratch);
    }
    PrepareCandidate(unit, query, scratch + layout.query_part + in_group * unit.query_columns, layout, scratch);
    ForEachBlock(args.behaviours, [&](size_t first, size_t vectors) HWY_ATTR {
      ScoreBlock(unit, layout, scratch, scratch + layout.keys + first * width, vectors, scores + first);
    });
    NormaliseScores(unit, scores, args.behaviours);
    pool(c);
  }
}

Target DescribeTarget() { return {hn::Lanes(Tag()), kTileRows, kTileVectors, &PoolImpl}; }

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {
namespace {

HWY_EXPORT(DescribeTarget);

// [out, in] -> panels [out / tile_rows][in][tile_rows], zeros past `out`.
AlignedFloats PackPanels(const std::vector<float>& weight, size_t out, size_t in, size_t tile_rows) {
  auto panels = hwy::AllocateAligned<float>(RoundUp(out, tile_rows) * in);
  std::fill_n(panels.get(), RoundUp(out, tile_rows) * in, 0.0f);
  for (size_t u = 0; u < out; ++u) {
    float* panel = panels.get() + u / tile_rows * tile_rows * in;
    for (size_t k = 0; k < in; ++k) panel[k * tile_rows + u % tile_rows] = weight[u * in + k];
  }
  return panels;
}

// [out, in] -> [in][columns], zeros past `out`.
AlignedFloats PackColumns(const std::vector<float>& weight, size_t out, size_t in, size_t columns) {
  auto packed = hwy::AllocateAligned<float>(in * columns);
  std::fill_n(packed.get(), in * columns, 0.0f);
  for (size_t u = 0; u < out; ++u) {
    for (size_t k = 0; k < in; ++k) packed[k * columns + u] = weight[u * in + k];
  }
  return packed;
}

AlignedFloats PackBias(const std::vector<float>& bias, size_t tile_rows) {
  auto packed = hwy::AllocateAligned<float>(RoundUp(bias.size(), tile_rows));
  std::fill_n(std::copy(bias.begin(), bias.end(), packed.get()), RoundUp(bias.size(), tile_rows) - bias.size(), 0.0f);
  return packed;
}

PackedUnit Pack(const ActivationUnitWeights& weights, const Target& target) {
  PackedUnit unit;
  const size_t width = unit.width = weights.width;
  const size_t units = weights.hidden.front().units;
  const size_t rows = target.tile_rows;
  unit.query_columns = RoundUp(units, target.lanes);
  unit.query_weight = PackColumns(weights.query_weight, units, width, unit.query_columns);
  unit.key_panels = PackPanels(weights.key_weight, units, width, rows);
  unit.product_panels = PackPanels(weights.product_weight, units, width, rows);
  size_t in = width;
  for (const ActivationUnitWeights::Hidden& hidden : weights.hidden) {
    PackedUnit::Layer layer{in, hidden.units, nullptr, PackBias(hidden.bias, rows), hidden.activation};
    if (!unit.layers.empty()) layer.panels = PackPanels(hidden.weight, hidden.units, in, rows);
    unit.layers.push_back(std::move(layer));
    unit.widest = std::max(unit.widest, RoundUp(hidden.units, rows));
    in = hidden.units;
  }
  unit.layers.push_back({in, 1, PackPanels(weights.out_weight, 1, in, rows), PackBias({weights.out_bias}, rows), {}});
  unit.out_sigmoid = weights.out_sigmoid;
  unit.normalise = weights.normalise;
  return unit;
}

class PackedActivationUnit final : public ActivationUnit {
 public:
  PackedActivationUnit(const ActivationUnitWeights& weights, const Target& target)
      : target_(target), unit_(Pack(weights, target)) {}

  size_t ScratchFloats(size_t /*candidates*/, size_t behaviours) const override {
    return ScratchLayout(unit_, target_, behaviours).total;
  }

  void Pool(const AttentionArgs& args, float* scratch) const override { target_.pool(unit_, target_, args, scratch); }

 private:
  const Target target_;
  const PackedUnit unit_;
};

}  // namespace

std::unique_ptr<const ActivationUnit> ActivationUnit::Create(const ActivationUnitWeights& weights, InstructionSet isa) {
  return std::make_unique<PackedActivationUnit>(weights, Select(HWY_DISPATCH_TABLE(DescribeTarget), isa)());
}

}  // namespace din
#endif  // HWY_ONCE
