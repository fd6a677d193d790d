#include "bench/kernel_calls.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "kernels/activation.h"
#include "model/folding.h"
#include "model/tensor_reader.h"
#include "tests/model/raw_model.h"

namespace din::bench {

using testing::OrDie;

KernelCalls::KernelCalls(const DinModel& model, const TensorMap& tensors, size_t candidates, size_t behaviours)
    : model_(model), spec_(model.resolved()), width_(spec_.attentions.at(0).key.width) {
  if (spec_.attentions.size() != 1 || spec_.attentions[0].value_width != width_ || !spec_.interactions.empty() ||
      !spec_.pre_towers.empty() || !spec_.wide.empty()) {
    std::fprintf(stderr, "KernelCalls: not a reference model\n");
    std::abort();
  }
  TensorReader reader(tensors);
  unit_ =
      ActivationUnit::Create(OrDie(FoldActivationUnit(spec_, 0, reader)), model.instruction_set(), model.precision());
  std::vector<DenseLayerWeights> layers = OrDie(FoldTower(spec_, reader));
  DenseLayerWeights& first = layers[0];
  DenseLayerWeights user;
  if (IsMixed(spec_.tower)) user = SplitOffUser(spec_.tower, first);

  const size_t rows = DenseLayer::PaddedRows(candidates);
  size_t widest = 0, scratch = 0;
  const auto create = [&](const DenseLayerWeights& weights) {
    auto layer = OrDie(DenseLayer::Create(weights, model_.instruction_set()));
    widest = std::max(widest, layer->out());
    scratch = std::max(scratch, layer->ScratchBytes() / sizeof(float));
    return layer;
  };
  if (user.in > 0) user_layer_ = create(user);
  for (const DenseLayerWeights& weights : layers) tower_.push_back(create(weights));

  queries_ = Aligned(candidates * width_);
  keys_ = Aligned(behaviours * width_);
  pooled_ = Aligned(candidates * width_);
  user_ = Aligned(DenseLayer::PaddedRows(1) * user.in);
  user_out_ = Aligned(DenseLayer::PaddedRows(1) * user.out);
  input_ = Aligned(rows * first.in);
  for (AlignedFloats& floats : between_) floats = Aligned(rows * widest);
  unit_scratch_ = Aligned(unit_->ScratchFloats(candidates, behaviours));
  dense_scratch_ = Aligned(scratch + 1);

  const auto look_up = [&](int slot, float* out, size_t stride) {
    const ResolvedSpec::Slot& s = spec_.slots[slot];
    const v1::Table& table = spec_.spec.tables(s.table);
    lookups_.push_back({{tensors.at(TensorName(table)).data, RowType::kF32, static_cast<size_t>(table.rows()), s.width},
                        s.feature,
                        out,
                        stride});
  };
  const ResolvedSpec::Attention& attention = spec_.attentions[0];
  for (const auto& [concat, rows] : {std::pair(&attention.key, keys_.get()), {&attention.query, queries_.get()}}) {
    for (size_t i = 0; i < concat->slots.size(); ++i) {
      look_up(concat->slots[i], rows + concat->offsets[i], width_);
    }
  }
  size_t offset = 0;
  for (const ResolvedSpec::Term& term : spec_.tower.input) {
    if (term.per_candidate()) continue;
    look_up(term.a.index, user_.get() + offset, user.in);
    offset += term.width();
  }
}

void KernelCalls::GatherRows(const ScoringInput& input) {
  candidates_ = input.candidates;
  behaviours_ = input.sequences[0].positions.size();
  for (const Lookup& lookup : lookups_) {
    Gather(lookup.table, input.columns[lookup.feature].rows, lookup.out, lookup.stride, model_.instruction_set());
  }
}

void KernelCalls::Pool() {
  unit_->Pool({.queries = queries_.get(),
               .query_stride = width_,
               .candidates = candidates_,
               .keys = keys_.get(),
               .behaviours = behaviours_,
               .pooled = pooled_.get(),
               .pooled_stride = width_},
              unit_scratch_.get());
}

void KernelCalls::Assemble() {
  // Of a candidate, a row of what was pooled or of its query.
  const auto value = [&](const ResolvedSpec::Vector& v, size_t candidate) {
    if (v.kind == ResolvedSpec::VectorKind::kAttention) return pooled_.get() + candidate * width_ + v.begin;
    const ResolvedSpec::Concat& query = spec_.attentions[0].query;
    const auto slot = std::ranges::find(query.slots, v.index) - query.slots.begin();
    return queries_.get() + candidate * width_ + query.offsets[slot] + v.begin;
  };
  float* out = input_.get();
  for (size_t c = 0; c < candidates_; ++c) {
    for (const ResolvedSpec::Term& term : spec_.tower.input) {
      if (!term.per_candidate()) continue;
      const float* const a = value(term.a, c);
      const float* const b = term.is_product ? value(term.b, c) : nullptr;
      for (size_t d = 0; d < term.width(); ++d) *out++ = b == nullptr ? a[d] : a[d] * b[d];
    }
  }
}

void KernelCalls::Tower(std::span<float> scores) {
  const float* start = nullptr;
  if (user_layer_ != nullptr) {
    user_layer_->Run(user_.get(), 1, user_out_.get(), dense_scratch_.get());
    start = user_out_.get();
  }
  const float* x = input_.get();
  for (size_t l = 0; l < tower_.size(); ++l) {
    float* y = between_[l % 2].get();
    tower_[l]->RunFrom(std::exchange(start, nullptr), x, candidates_, y, dense_scratch_.get());
    x = y;
  }
  std::copy_n(x, candidates_, scores.data());
  Sigmoid(model_.instruction_set(), scores.data(), candidates_);
}

}  // namespace din::bench
