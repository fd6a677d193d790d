// DIN's local activation unit and the pooling it weighs (arXiv 1706.06978, section 4.3): the pair work, B x H times.
//
//   first layer, for a candidate q and a behaviour k:   h = act(Wq q + Wk k + Wp (q o k) + b)
//
// Every ordering of [q, k, q - k, k - q, q o k] folds into these three matrices exactly (DESIGN.md, "Folding"), so Wq q
// is computed once per candidate, and Wk k + Wp (q o k) = (Wk + Wp diag(q)) k costs one matrix per candidate and D
// multiplications per unit and pair instead of 4 D.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kernels/activation.h"
#include "kernels/instruction_set.h"
#include "kernels/precision.h"

namespace din {

enum class Normalise { kNone, kSoftmax, kSigmoid };

// Folded weights, row-major, [out, in].
struct ActivationUnitWeights {
  struct Hidden {
    size_t units = 0;
    std::vector<float> weight;  // [units, units of the layer before]; unused by the first layer
    std::vector<float> bias;    // [units]
    Activation activation;
  };
  size_t width = 0;                   // D, of queries and keys
  std::vector<float> query_weight;    // [hidden[0].units, D]
  std::vector<float> key_weight;      // [hidden[0].units, D]
  std::vector<float> product_weight;  // [hidden[0].units, D]
  std::vector<Hidden> hidden;         // at least one
  std::vector<float> out_weight;      // [hidden.back().units]
  float out_bias = 0;
  bool out_sigmoid = false;  // the score goes through a sigmoid before `normalise`
  Normalise normalise = Normalise::kNone;
};

// The fastest of fp32 and fp32-split, both exact, for the pair work of all `units` together: fp32-split, unless half or
// more of what the tiles of a matrix unit would multiply is padding. NearestSupported() then says what this CPU has.
Precision FastestExact(std::span<const ActivationUnitWeights> units);

// One call: all candidates of a request against one behaviour list.
struct AttentionArgs {
  const float* queries = nullptr;  // [candidates, D], query_stride floats apart
  size_t query_stride = 0;
  size_t candidates = 0;
  const float* keys = nullptr;  // [behaviours, D], contiguous
  size_t behaviours = 0;        // 0: pooled = 0
  bool uniform = false;         // the weights are 1 / behaviours, whatever the unit says (EMPTY_POSITIONS_MEAN)
  float* pooled = nullptr;      // [candidates, D], pooled_stride floats apart; does not overlap the inputs
  size_t pooled_stride = 0;
  float* weights = nullptr;  // optional, [candidates, behaviours]: what each behaviour was multiplied by
};

// Immutable after Create; any number of threads, each with a scratch of its own.
// A candidate's pooled vector depends on its query and the keys alone, bit for bit: neither on the other candidates nor
// on how they are split over calls.
class ActivationUnit {
 public:
  // Packs the weights for `isa` and the nearest to `precision` that it supports. The weights must be consistent (the
  // model's validation has seen to it).
  static std::unique_ptr<const ActivationUnit> Create(const ActivationUnitWeights& weights, InstructionSet isa,
                                                      Precision precision = Precision::kFp32);
  virtual ~ActivationUnit() = default;

  // Floats of scratch, 64-byte aligned, that Pool needs for up to this many candidates and behaviours.
  virtual size_t ScratchFloats(size_t candidates, size_t behaviours) const = 0;
  // Neither allocates nor fails.
  virtual void Pool(const AttentionArgs& args, float* scratch) const = 0;
};

}  // namespace din
