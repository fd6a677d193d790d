// The kernels that scoring a request of a reference model calls, and nothing else: what DinModel::Score takes beyond
// them is the cost of knowing which ones.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "bench/harness.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "kernels/gather.h"
#include "model/din_model.h"
#include "model/input.h"
#include "model/tensor.h"

namespace din::bench {

// For the reference models: one attention without a post layer, whose query is all that they know of a candidate, F32
// tables, a tower, and nothing else. One thread. `model` and `tensors` must outlive it.
class KernelCalls {
 public:
  // For requests of up to this many candidates and behaviours.
  KernelCalls(const DinModel& model, const TensorMap& tensors, size_t candidates, size_t behaviours);

  // One after the other these are a whole request, and `scores` are those of the model, bit for bit.
  void GatherRows(const ScoringInput& input);  // each where it is used
  void Pool();
  void Assemble();  // the tower's input; it stays, so that what comes next can be repeated without
  void Tower(std::span<float> scores);

 private:
  // Where the rows of one feature go.
  struct Lookup {
    EmbeddingTable table;
    int feature;
    float* out;
    size_t stride;
  };

  const DinModel& model_;
  const ResolvedSpec& spec_;
  const size_t width_;  // of a query, and of a key
  std::unique_ptr<const ActivationUnit> unit_;
  std::unique_ptr<const DenseLayer> user_layer_;  // of the tower's terms that are the user's; null: there are none
  std::vector<std::unique_ptr<const DenseLayer>> tower_;
  std::vector<Lookup> lookups_;
  size_t candidates_ = 0;
  size_t behaviours_ = 0;
  AlignedFloats queries_, keys_, pooled_, user_, user_out_, input_, between_[2], unit_scratch_, dense_scratch_;
};

}  // namespace din::bench
