#include "model/din_model.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "kernels/flush_denormals.h"
#include "kernels/gather.h"
#include "kernels/interaction.h"
#include "kernels/matrix_unit.h"
#include "model/folding.h"
#include "model/status_macros.h"

namespace din {
namespace {

// Floats on a 64-byte boundary. Grows, never shrinks, and is always finite: kernels may read past the rows they were
// given, up to their block size, and what they find there must not be a NaN.
class Floats {
 public:
  float* AtLeast(size_t n) {
    if (n > capacity_) {
      const size_t bytes = (n * sizeof(float) + 63) / 64 * 64;
      data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      capacity_ = 0;
      // For a golden case the load ends here; for a request, which passed the limits, the process: no memory is left.
      if (data_ == nullptr) throw std::bad_alloc();
      std::memset(data_.get(), 0, bytes);
      capacity_ = bytes / sizeof(float);
    }
    return data_.get();
  }
  float* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  size_t capacity_ = 0;
};

using DenseChain = std::vector<std::unique_ptr<const DenseLayer>>;

absl::StatusOr<DenseChain> CreateChain(absl::StatusOr<std::vector<DenseLayerWeights>> weights, InstructionSet isa) {
  DIN_RETURN_IF_ERROR(weights.status());
  DenseChain chain;
  for (const DenseLayerWeights& w : *weights) {
    DIN_ASSIGN_OR_RETURN(auto layer, DenseLayer::Create(w, isa));
    chain.push_back(std::move(layer));
  }
  return chain;
}

RowType RowTypeOf(DataType type) {
  switch (type) {
    case DataType::kF16:
      return RowType::kF16;
    case DataType::kBF16:
      return RowType::kBF16;
    case DataType::kI8:
      return RowType::kI8;
    default:
      return RowType::kF32;
  }
}

// No int8 times a scale may be infinite.
absl::Status CheckScales(const std::string& name, const Tensor& scales) {
  constexpr float kLargest = std::numeric_limits<float>::max() / 128;
  const auto* values = reinterpret_cast<const float*>(scales.data);
  for (int64_t i = 0; i < scales.elements(); ++i) {
    if (!(std::fabs(values[i]) <= kLargest)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, ": ", values[i], " at ", i, " is not in [-", kLargest, ", ", kLargest, "]"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<EmbeddingTable> OpenTable(const v1::Table& table, TensorReader& tensors) {
  const std::string name = TensorName(table);
  DIN_ASSIGN_OR_RETURN(const Tensor* tensor,
                       tensors.Table(name, {DataType::kF32, DataType::kF16, DataType::kBF16, DataType::kI8}));
  if (tensor->shape.size() != 2 || tensor->shape[1] != table.dim() ||
      tensor->shape[0] - table.row_offset() < table.rows()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", Describe(*tensor), ", table \"", table.name(),
                                                   "\" needs rows [", table.row_offset(), ", ",
                                                   table.row_offset() + table.rows(), ") of ", table.dim()));
  }
  EmbeddingTable out;
  out.type = RowTypeOf(tensor->type);
  out.rows = static_cast<size_t>(table.rows());
  out.dim = table.dim();
  const auto first = static_cast<size_t>(table.row_offset());
  out.data = tensor->data + first * out.dim * SizeOf(tensor->type);
  if (out.type == RowType::kI8) {
    DIN_ASSIGN_OR_RETURN(const Tensor* scales, tensors.Raw(name + ".scale", {DataType::kF32}));
    if (scales->shape != std::vector<int64_t>{tensor->shape[0]}) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ".scale: ", Describe(*scales), ", expected [",
                                                     tensor->shape[0], "], one per row of ", name));
    }
    DIN_RETURN_IF_ERROR(CheckScales(name + ".scale", *scales));
    out.scales = reinterpret_cast<const float*>(scales->data) + first;
  }
  out.overlay = tensor->overlay;
  out.overlay_offset = first;
  return out;
}

// The rows that `feature` can ask for must be in `table`.
absl::Status CheckRows(const ResolvedSpec& resolved, const InputDecoder& decoder, int feature, int table) {
  if (feature == kNone) return absl::OkStatus();
  const int id_map = resolved.features[feature].id_map;
  const v1::IdMap& map = resolved.spec.id_maps(id_map);
  int64_t needed = decoder.IdMapRows(id_map);
  if (map.out_of_vocabulary() == v1::IdMap::ROW) needed = std::max(needed, map.out_of_vocabulary_row() + 1);
  const v1::Table& t = resolved.spec.tables(table);
  if (needed <= t.rows()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("table \"", t.name(), "\": ", t.rows(), " rows, id map \"", map.name(),
                                                 "\" of feature \"", resolved.spec.features(feature).name(),
                                                 "\" gives rows up to ", needed - 1));
}

bool IsPerCandidate(const ResolvedSpec::Network& network) {
  return std::any_of(network.input.begin(), network.input.end(),
                     [](const ResolvedSpec::Term& term) { return term.per_candidate(); });
}

constexpr double kActivationWork = 8;

double RowWork(const DenseChain& chain) {
  double work = 0;
  for (const auto& layer : chain) {
    work += static_cast<double>(layer->out()) * (static_cast<double>(layer->in()) + kActivationWork);
  }
  return work;
}

double PairWork(const ActivationUnitWeights& unit) {
  auto in = static_cast<double>(unit.width);
  double work = in;  // pooling
  for (const ActivationUnitWeights::Hidden& hidden : unit.hidden) {
    work += static_cast<double>(hidden.units) * (in + kActivationWork);
    in = static_cast<double>(hidden.units);
  }
  return work + in;
}

// On one core of a server of 2023.
double WorkPerMicrosecond(InstructionSet isa, Precision precision) {
  switch (isa) {
    case InstructionSet::kBaseline:
      return 10e3;
    case InstructionSet::kAvx2:
      return 50e3;
    default:
      break;
  }
  switch (precision) {
    case Precision::kFp32:
      return 100e3;
    case Precision::kFp32Split:
      return 160e3;
    case Precision::kBf16:
      return CurrentMatrixUnit() == nullptr ? 180e3 : 250e3;
  }
  return 100e3;
}

}  // namespace

// Everything that a forward pass writes. One entry per slot, attention, … of the model that is being scored.
struct Workspace::Buffers {
  // The user's part of a request: written by UserPass, after that only read, by as many threads as share the request.
  struct User {
    struct Behaviours {
      Floats keys;       // [count, D]
      size_t count = 0;  // 0: the sequence is empty
      bool uniform = false;
    };
    std::vector<Floats> slots;           // [1, width], those of scope USER
    std::vector<Floats> sequence_pools;  // [1, width]
    std::vector<Behaviours> attentions;
    // Those that read nothing of a candidate:
    std::vector<Floats> interactions;  // [1, out width]
    std::vector<Floats> pre_towers;    // [1, out width]
    Floats tower;                      // [1, units of the first layer], before its activation
  };
  // A range of its candidates: each thread's own.
  struct Candidates {
    std::vector<Floats> slots;         // [candidates, width], those of scope CANDIDATE
    std::vector<Floats> attentions;    // [candidates, value width]
    std::vector<Floats> interactions;  // [candidates, out width]
    std::vector<Floats> pre_towers;    // [candidates, out width]
    Floats queries;                    // [candidates, D]
    Floats unit_scratch;
    Floats pooled;  // [candidates, D], before the post layer
    Floats biases;  // [candidates]
  };
  // Of whichever pass runs.
  struct Scratch {
    Floats layer[2];  // inputs and outputs of dense layers, in turn
    Floats dense;
    Floats keys;  // [behaviours, width] of a sequence pool
    std::vector<uint32_t> rows;
    std::vector<RowVectors> row_vectors;
  };
  User user;
  Candidates candidates;
  Scratch scratch;
};

Workspace::Workspace() : buffers_(std::make_unique<Buffers>()) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

struct DinModel::Impl {
  ResolvedSpec resolved;
  InstructionSet isa = InstructionSet::kBaseline;
  Precision precision = Precision::kFp32;  // Build's to set
  double work_per_microsecond = 0;         // of the pair work
  std::unique_ptr<const InputDecoder> decoder;
  std::vector<EmbeddingTable> tables;
  std::vector<bool> slot_is_vector;  // read by a query or a network, so it is materialised
  std::vector<std::unique_ptr<const ActivationUnit>> activation_units;
  std::vector<DenseChain> posts;
  std::vector<DenseChain> pre_towers;
  // What the tower's first layer makes of the terms that are the user's alone, its bias included, once per request;
  // null where there are none. The first layer of `tower` then has the columns of the candidate's terms only.
  std::unique_ptr<const DenseLayer> tower_user;
  DenseChain tower;
  float logit_bias = 0;  // of a model without a tower
  // Multiply-adds, an activation counted as a few: what EstimateCandidate is made from.
  std::vector<double> pair_work;  // per attention, for one behaviour
  double candidate_work = 0;      // all else

  absl::Status Build(const TensorMap& tensors, std::optional<Precision> asked);
  void FindVectorSlots();
};

absl::Status DinModel::Impl::Build(const TensorMap& tensors, std::optional<Precision> asked) {
  TensorReader reader(tensors);
  DIN_ASSIGN_OR_RETURN(decoder, InputDecoder::Create(resolved, reader));
  for (const v1::Table& table : resolved.spec.tables()) {
    DIN_ASSIGN_OR_RETURN(const EmbeddingTable opened, OpenTable(table, reader));
    tables.push_back(opened);
  }
  for (const ResolvedSpec::Slot& slot : resolved.slots) {
    DIN_RETURN_IF_ERROR(CheckRows(resolved, *decoder, slot.feature, slot.table));
  }
  for (const ResolvedSpec::IdBias& bias : resolved.id_biases) {
    DIN_RETURN_IF_ERROR(CheckRows(resolved, *decoder, bias.feature, bias.table));
  }
  std::vector<ActivationUnitWeights> units;
  for (int g = 0; g < resolved.spec.attentions_size(); ++g) {
    DIN_ASSIGN_OR_RETURN(units.emplace_back(), FoldActivationUnit(resolved, g, reader));
    DIN_ASSIGN_OR_RETURN(DenseChain post, CreateChain(FoldPost(resolved, g, reader), isa));
    posts.push_back(std::move(post));
  }
  precision = NearestSupported(isa, asked ? *asked : FastestExact(units));
  work_per_microsecond = WorkPerMicrosecond(isa, precision);
  for (const ActivationUnitWeights& unit : units) {
    activation_units.push_back(ActivationUnit::Create(unit, isa, precision));
    pair_work.push_back(PairWork(unit));
  }
  for (int p = 0; p < resolved.spec.pre_towers_size(); ++p) {
    DIN_ASSIGN_OR_RETURN(DenseChain pre, CreateChain(FoldPreTower(resolved, p, reader), isa));
    pre_towers.push_back(std::move(pre));
  }
  DIN_ASSIGN_OR_RETURN(std::vector<DenseLayerWeights> tower_weights, FoldTower(resolved, reader));
  if (!tower_weights.empty() && IsMixed(resolved.tower)) {
    DIN_ASSIGN_OR_RETURN(tower_user, DenseLayer::Create(SplitOffUser(resolved.tower, tower_weights.front()), isa));
  }
  DIN_ASSIGN_OR_RETURN(tower, CreateChain(std::move(tower_weights), isa));
  DIN_ASSIGN_OR_RETURN(logit_bias, FoldLogitBias(resolved, reader));
  for (const DenseChain& post : posts) candidate_work += RowWork(post);
  for (size_t p = 0; p < pre_towers.size(); ++p) {
    if (IsPerCandidate(resolved.pre_towers[p])) candidate_work += RowWork(pre_towers[p]);
  }
  candidate_work += RowWork(tower);
  FindVectorSlots();
  return reader.CheckAllUsed();
}

void DinModel::Impl::FindVectorSlots() {
  slot_is_vector.assign(resolved.slots.size(), false);
  for (const ResolvedSpec::Attention& attention : resolved.attentions) {
    for (int slot : attention.query.slots) slot_is_vector[slot] = true;
  }
  const auto mark = [&](const ResolvedSpec::Vector& v) {
    if (v.kind == ResolvedSpec::VectorKind::kSlot) slot_is_vector[v.index] = true;
  };
  const auto mark_network = [&](const ResolvedSpec::Network& network) {
    for (const ResolvedSpec::Term& term : network.input) {
      mark(term.a);
      if (term.is_product) mark(term.b);
    }
  };
  for (const ResolvedSpec::Interaction& interaction : resolved.interactions) {
    for (const ResolvedSpec::Vector& v : interaction.vectors) mark(v);
  }
  for (const ResolvedSpec::Network& pre : resolved.pre_towers) mark_network(pre);
  mark_network(resolved.tower);
  for (const ResolvedSpec::Vector& v : resolved.wide) mark(v);
}

namespace {

// What both passes do. Lives for the call.
class Pass {
 public:
  using Buffers = Workspace::Buffers;
  enum class Terms { kAll, kOfUser, kOfCandidate };  // of a network's input

  Pass(const ResolvedSpec& resolved, const std::vector<EmbeddingTable>& tables, InstructionSet isa,
       const ScoringInput& input, Buffers::Scratch& scratch)
      : resolved_(resolved), tables_(tables), isa_(isa), input_(input), scratch_(scratch) {}

 protected:
  struct Range {
    size_t first;
    size_t count;
  };

  // Never fewer, so that a workspace that goes from model to model keeps its memory.
  template <typename T>
  static void Fit(std::vector<T>& buffers, size_t n) {
    if (buffers.size() < n) buffers.resize(n);
  }

  // Of an ID feature, the rows in `range`; row 0 where there is no feature.
  std::span<const uint32_t> IdRows(int feature, Range range) {
    if (feature != kNone) return std::span(input_.columns[feature].rows).subspan(range.first, range.count);
    scratch_.rows.assign(range.count, 0);
    return scratch_.rows;
  }

  // One slot for the rows in `range` of what its scope counts, `stride` floats apart.
  void WriteSlot(int slot, Range range, float* out, size_t stride) {
    const ResolvedSpec::Slot& s = resolved_.slots[slot];
    const v1::Slot& spec = resolved_.spec.slots(slot);
    switch (spec.op_case()) {
      case v1::Slot::kEmbed:
        Gather(tables_[s.table], IdRows(s.feature, range), out, stride, isa_);
        return;
      case v1::Slot::kPool:
        for (size_t i = 0; i < range.count; ++i) WritePooled(s, spec.pool(), range.first + i, out + i * stride);
        return;
      case v1::Slot::kScaled: {
        Gather(tables_[s.table], IdRows(s.feature, range), out, stride, isa_);
        const float* values = input_.columns[s.value].values.data() + range.first;
        for (size_t i = 0; i < range.count; ++i) {
          for (size_t d = 0; d < s.width; ++d) out[i * stride + d] *= values[i];
        }
        return;
      }
      default: {
        const float* values = input_.columns[s.value].values.data() + range.first * s.width;
        for (size_t i = 0; i < range.count; ++i) std::copy_n(values + i * s.width, s.width, out + i * stride);
      }
    }
  }

  void WritePooled(const ResolvedSpec::Slot& slot, const v1::Slot::Pool& pool, size_t row, float* out) {
    const ScoringInput::Column& column = input_.columns[slot.feature];
    const size_t begin = column.offsets[row];
    const size_t end = column.offsets[row + 1];
    std::span<const uint32_t> rows = std::span(column.rows).subspan(begin, end - begin);
    if (pool.skip_padding()) {
      scratch_.rows.clear();
      for (size_t i = begin; i < end; ++i) {
        if (!column.is_padding[i]) scratch_.rows.push_back(column.rows[i]);
      }
      rows = scratch_.rows;
    }
    const PoolKind kind = pool.kind() == v1::Slot::Pool::MEAN  ? PoolKind::kMean
                          : pool.kind() == v1::Slot::Pool::SUM ? PoolKind::kSum
                                                               : PoolKind::kMax;
    GatherPool(tables_[slot.table], rows, kind, static_cast<float>(pool.divisor_epsilon()),
               static_cast<float>(pool.empty_value()), out, isa_);
  }

  // [behaviours, D] of one sequence.
  void WriteKeys(const ResolvedSpec::Concat& key, size_t behaviours, Floats& out) {
    float* keys = out.AtLeast(behaviours * key.width);
    for (size_t i = 0; i < key.slots.size(); ++i) {
      WriteSlot(key.slots[i], {0, behaviours}, keys + key.offsets[i], key.width);
    }
  }

  // `rows` rows of a vector's first `width` floats, or its only row again and again.
  static void CopyRows(const float* row, size_t from_stride, size_t rows, size_t width, float* to, size_t to_stride) {
    for (size_t r = 0; r < rows; ++r, row += from_stride) std::copy_n(row, width, to + r * to_stride);
  }

  static bool Has(Terms terms, const ResolvedSpec::Term& term) {
    return terms == Terms::kAll || (terms == Terms::kOfCandidate) == term.per_candidate();
  }

  // The network's input [rows, width of these terms], in scratch_.layer[0]. value(vector) finds a vector's rows.
  template <typename Value>
  const float* Assemble(const ResolvedSpec::Network& network, Terms terms, size_t rows, const Value& value) {
    size_t stride = 0;
    for (const ResolvedSpec::Term& term : network.input) stride += Has(terms, term) ? term.width() : 0;
    float* out = scratch_.layer[0].AtLeast(DenseLayer::PaddedRows(rows) * stride);
    size_t offset = 0;
    for (const ResolvedSpec::Term& term : network.input) {
      if (!Has(terms, term)) continue;
      const float* a = value(term.a) + term.a.begin;
      CopyRows(a, term.a.per_candidate ? term.a.width : 0, rows, term.width(), out + offset, stride);
      if (term.is_product) {
        const float* b = value(term.b) + term.b.begin;
        const size_t b_stride = term.b.per_candidate ? term.b.width : 0;
        for (size_t r = 0; r < rows; ++r) {
          for (size_t d = 0; d < term.width(); ++d) out[r * stride + offset + d] *= b[r * b_stride + d];
        }
      }
      offset += term.width();
    }
    return out;
  }

  // [rows, out width], into `out`.
  template <typename Value>
  void WriteInteraction(int i, size_t rows, Floats& out, const Value& value) {
    const ResolvedSpec::Interaction& interaction = resolved_.interactions[i];
    std::vector<RowVectors>& vectors = scratch_.row_vectors;
    vectors.clear();
    for (const ResolvedSpec::Vector& v : interaction.vectors) {
      vectors.push_back({value(v) + v.begin, v.per_candidate ? v.width : 0});
    }
    InteractionArgs args;
    args.vectors = vectors;
    args.width = interaction.width;
    args.rows = rows;
    args.out = out.AtLeast(rows * interaction.out_width);
    args.out_stride = interaction.out_width;
    if (resolved_.spec.interactions(i).kind() == v1::Interaction::INNER_PRODUCTS) {
      InnerProducts(args, isa_);
    } else {
      BiInteraction(args, isa_);
    }
  }

  // Layer after layer; x may be scratch_.layer[0]. The result goes to `out` [rows, out of the last layer]. `start`: as
  // in DenseLayer::RunFrom, for the first layer.
  void Run(const DenseChain& layers, const float* x, size_t rows, float* out, const float* start = nullptr) {
    int into = 1;
    for (const auto& layer : layers) {
      float* y = scratch_.layer[into].AtLeast(DenseLayer::PaddedRows(rows) * layer->out());
      void* scratch = scratch_.dense.AtLeast(layer->ScratchBytes() / sizeof(float) + 1);
      layer->RunFrom(start, x, rows, y, scratch);
      start = nullptr;
      x = y;
      into = 1 - into;
    }
    std::copy_n(x, rows * layers.back()->out(), out);
  }

  const ResolvedSpec& resolved_;
  const std::vector<EmbeddingTable>& tables_;
  const InstructionSet isa_;
  const ScoringInput& input_;
  Buffers::Scratch& scratch_;
};

// What the user brings, once per request.
class UserPass : public Pass {
 public:
  template <typename... Args>
  explicit UserPass(Buffers::User& user, Args&&... args) : Pass(std::forward<Args>(args)...), user_(user) {
    Fit(user_.slots, resolved_.slots.size());
    Fit(user_.attentions, resolved_.attentions.size());
    Fit(user_.sequence_pools, resolved_.sequence_pools.size());
    Fit(user_.interactions, resolved_.interactions.size());
    Fit(user_.pre_towers, resolved_.pre_towers.size());
  }

  void Slot(int slot) {
    const size_t width = resolved_.slots[slot].width;
    WriteSlot(slot, {0, 1}, user_.slots[slot].AtLeast(width), width);
  }

  void SequencePool(int pool) {
    const ResolvedSpec::SequencePool& p = resolved_.sequence_pools[pool];
    const v1::SequencePool& spec = resolved_.spec.sequence_pools(pool);
    const size_t width = p.key.width;
    const size_t behaviours = Behaviours(p.sequence);
    float* out = user_.sequence_pools[pool].AtLeast(width);
    std::fill_n(out, width, 0.0f);
    if (behaviours == 0) return;
    WriteKeys(p.key, behaviours, scratch_.keys);
    const float* keys = scratch_.keys.get();
    for (size_t i = 0; i < behaviours; ++i) {
      for (size_t d = 0; d < width; ++d) out[d] += keys[i * width + d];
    }
    if (spec.kind() != v1::SequencePool::MEAN) return;
    const auto divisor = static_cast<float>(static_cast<double>(behaviours) + spec.divisor_epsilon());
    for (size_t d = 0; d < width; ++d) out[d] /= divisor;
  }

  void Attention(int g) {
    const ResolvedSpec::Attention& attention = resolved_.attentions[g];
    const ScoringInput::Sequence& sequence = input_.sequences[attention.sequence];
    Buffers::User::Behaviours& behaviours = user_.attentions[g];
    behaviours.uniform = sequence.empty && resolved_.spec.attentions(g).empty() == v1::Attention::EMPTY_POSITIONS_MEAN;
    behaviours.count = behaviours.uniform ? sequence.positions.size() : Behaviours(attention.sequence);
    if (behaviours.count > 0) WriteKeys(attention.key, behaviours.count, behaviours.keys);
  }

  void Interaction(int i) {
    WriteInteraction(i, 1, user_.interactions[i], [this](const ResolvedSpec::Vector& v) { return Value(v); });
  }

  void PreTower(int p, const DenseChain& layers) {
    const ResolvedSpec::Network& network = resolved_.pre_towers[p];
    const float* x = Assemble(network, Terms::kAll, 1, [this](const ResolvedSpec::Vector& v) { return Value(v); });
    Run(layers, x, 1, user_.pre_towers[p].AtLeast(network.out_width));
  }

  void Tower(const DenseLayer& layer) {
    const float* x =
        Assemble(resolved_.tower, Terms::kOfUser, 1, [this](const ResolvedSpec::Vector& v) { return Value(v); });
    float* out = user_.tower.AtLeast(DenseLayer::PaddedRows(1) * layer.out());
    layer.Run(x, 1, out, scratch_.dense.AtLeast(layer.ScratchBytes() / sizeof(float) + 1));
  }

 private:
  size_t Behaviours(int sequence) const {
    const ScoringInput::Sequence& s = input_.sequences[sequence];
    return s.empty ? 0 : s.positions.size();
  }

  const float* Value(const ResolvedSpec::Vector& v) const {
    switch (v.kind) {
      case ResolvedSpec::VectorKind::kSlot:
        return user_.slots[v.index].get();
      case ResolvedSpec::VectorKind::kSequencePool:
        return user_.sequence_pools[v.index].get();
      case ResolvedSpec::VectorKind::kInteraction:
        return user_.interactions[v.index].get();
      case ResolvedSpec::VectorKind::kPreTower:
        return user_.pre_towers[v.index].get();
      case ResolvedSpec::VectorKind::kAttention:
        break;  // is per candidate
    }
    return nullptr;
  }

  Buffers::User& user_;
};

// Candidates [first, first + count) of the request.
class CandidatePass : public Pass {
 public:
  template <typename... Args>
  CandidatePass(size_t first, size_t count, const Buffers::User& user, Buffers::Candidates& own, Args&&... args)
      : Pass(std::forward<Args>(args)...), range_{first, count}, user_(user), own_(own) {
    Fit(own_.slots, resolved_.slots.size());
    Fit(own_.attentions, resolved_.attentions.size());
    Fit(own_.interactions, resolved_.interactions.size());
    Fit(own_.pre_towers, resolved_.pre_towers.size());
  }

  void Slot(int slot) {
    const size_t width = resolved_.slots[slot].width;
    WriteSlot(slot, range_, own_.slots[slot].AtLeast(range_.count * width), width);
  }

  // Into `pooled` [count, D]; `weights` as in AttentionArgs.
  void Pool(int g, const ActivationUnit& unit, float* pooled, float* weights) {
    const ResolvedSpec::Attention& attention = resolved_.attentions[g];
    const Buffers::User::Behaviours& behaviours = user_.attentions[g];
    const size_t width = attention.key.width;
    AttentionArgs args;
    args.queries = Queries(attention.query, width);
    args.query_stride = width;
    args.candidates = range_.count;
    args.keys = behaviours.count > 0 ? behaviours.keys.get() : nullptr;
    args.behaviours = behaviours.count;
    args.uniform = behaviours.uniform;
    args.pooled = pooled;
    args.pooled_stride = width;
    args.weights = weights;
    unit.Pool(args, own_.unit_scratch.AtLeast(unit.ScratchFloats(range_.count, behaviours.count)));
  }

  void Attention(int g, const ActivationUnit& unit, const DenseChain& post) {
    const size_t width = resolved_.attentions[g].key.width;
    const size_t rows = range_.count;
    Floats& value = own_.attentions[g];
    if (post.empty()) {
      Pool(g, unit, value.AtLeast(rows * width), nullptr);
      return;
    }
    float* pooled = own_.pooled.AtLeast(DenseLayer::PaddedRows(rows) * width);
    Pool(g, unit, pooled, nullptr);
    Run(post, pooled, rows, value.AtLeast(rows * post.back()->out()));
  }

  void Interaction(int i) {
    WriteInteraction(i, range_.count, own_.interactions[i], [this](const ResolvedSpec::Vector& v) { return Value(v); });
  }

  void PreTower(int p, const DenseChain& layers) {
    const ResolvedSpec::Network& network = resolved_.pre_towers[p];
    Run(layers, Input(network, Terms::kAll), range_.count,
        own_.pre_towers[p].AtLeast(range_.count * network.out_width));
  }

  void Tower(const DenseChain& layers, float logit_bias, Terms terms, std::span<float> scores) {
    if (layers.empty()) {
      std::fill(scores.begin(), scores.end(), logit_bias);
    } else {
      Run(layers, Input(resolved_.tower, terms), range_.count, scores.data(),
          terms == Terms::kAll ? nullptr : user_.tower.get());
    }
    for (const ResolvedSpec::IdBias& bias : resolved_.id_biases) AddIdBias(bias, scores);
    for (const ResolvedSpec::Vector& v : resolved_.wide) AddElements(v, scores);
    Sigmoid(isa_, scores.data(), scores.size());
  }

 private:
  // [count, D], filled up with zeros where the slots are narrower.
  const float* Queries(const ResolvedSpec::Concat& query, size_t width) {
    float* queries = own_.queries.AtLeast(range_.count * width);
    if (query.width < width) std::fill_n(queries, range_.count * width, 0.0f);
    for (size_t i = 0; i < query.slots.size(); ++i) {
      const int slot = query.slots[i];
      const bool per_candidate = resolved_.slots[slot].scope == v1::CANDIDATE;
      const size_t slot_width = resolved_.slots[slot].width;
      CopyRows((per_candidate ? own_.slots : user_.slots)[slot].get(), per_candidate ? slot_width : 0, range_.count,
               slot_width, queries + query.offsets[i], width);
    }
    return queries;
  }

  const float* Input(const ResolvedSpec::Network& network, Terms terms) {
    return Assemble(network, terms, range_.count, [this](const ResolvedSpec::Vector& v) { return Value(v); });
  }

  const float* Value(const ResolvedSpec::Vector& v) const {
    switch (v.kind) {
      case ResolvedSpec::VectorKind::kSlot:
        return (v.per_candidate ? own_.slots : user_.slots)[v.index].get();
      case ResolvedSpec::VectorKind::kAttention:
        return own_.attentions[v.index].get();
      case ResolvedSpec::VectorKind::kSequencePool:
        return user_.sequence_pools[v.index].get();
      case ResolvedSpec::VectorKind::kInteraction:
        return (v.per_candidate ? own_.interactions : user_.interactions)[v.index].get();
      case ResolvedSpec::VectorKind::kPreTower:
        return (v.per_candidate ? own_.pre_towers : user_.pre_towers)[v.index].get();
    }
    return nullptr;
  }

  void AddIdBias(const ResolvedSpec::IdBias& bias, std::span<float> logits) {
    const bool per_candidate = resolved_.spec.features(bias.feature).scope() == v1::CANDIDATE;
    const Range rows = per_candidate ? range_ : Range{0, 1};
    float* values = own_.biases.AtLeast(rows.count);
    Gather(tables_[bias.table], IdRows(bias.feature, rows), values, 1, isa_);
    for (size_t c = 0; c < logits.size(); ++c) logits[c] += values[per_candidate ? c : 0];
  }

  void AddElements(const ResolvedSpec::Vector& v, std::span<float> logits) const {
    const float* first = Value(v) + v.begin;
    const auto sum = [&](const float* row) { return std::accumulate(row, row + v.used(), 0.0f); };
    const float of_user = v.per_candidate ? 0.0f : sum(first);
    for (size_t c = 0; c < logits.size(); ++c) logits[c] += v.per_candidate ? sum(first + c * v.width) : of_user;
  }

  const Range range_;
  const Buffers::User& user_;
  Buffers::Candidates& own_;
};

}  // namespace

DinModel::DinModel(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
DinModel::~DinModel() = default;

absl::StatusOr<std::unique_ptr<const DinModel>> DinModel::Create(v1::ModelSpec spec, const TensorMap& tensors,
                                                                 InstructionSet isa,
                                                                 std::optional<Precision> precision) {
  auto impl = std::make_unique<Impl>();
  DIN_ASSIGN_OR_RETURN(impl->resolved, ResolveSpec(std::move(spec)));
  impl->isa = isa;
  DIN_RETURN_IF_ERROR(impl->Build(tensors, precision));
  return std::unique_ptr<const DinModel>(new DinModel(std::move(impl)));
}

const v1::ModelSpec& DinModel::spec() const { return impl_->resolved.spec; }
const ResolvedSpec& DinModel::resolved() const { return impl_->resolved; }
const InputDecoder& DinModel::decoder() const { return *impl_->decoder; }
InstructionSet DinModel::instruction_set() const { return impl_->isa; }
Precision DinModel::precision() const { return impl_->precision; }

void DinModel::Score(const ScoringInput& input, Workspace& workspace, std::span<float> scores) const {
  assert(scores.size() == input.candidates);
  PrepareUser(input, workspace);
  ScoreCandidates(input, workspace, 0, workspace, scores);
}

void DinModel::PrepareUser(const ScoringInput& input, Workspace& user) const {
  const ScopedFlushDenormals flush;
  const Impl& m = *impl_;
  UserPass pass(user.buffers_->user, m.resolved, m.tables, m.isa, input, user.buffers_->scratch);
  for (size_t s = 0; s < m.slot_is_vector.size(); ++s) {
    if (m.slot_is_vector[s] && m.resolved.slots[s].scope != v1::CANDIDATE) pass.Slot(static_cast<int>(s));
  }
  for (size_t p = 0; p < m.resolved.sequence_pools.size(); ++p) pass.SequencePool(static_cast<int>(p));
  for (size_t g = 0; g < m.activation_units.size(); ++g) pass.Attention(static_cast<int>(g));
  for (size_t i = 0; i < m.resolved.interactions.size(); ++i) {
    if (!m.resolved.interactions[i].per_candidate) pass.Interaction(static_cast<int>(i));
  }
  for (size_t p = 0; p < m.pre_towers.size(); ++p) {
    if (!IsPerCandidate(m.resolved.pre_towers[p])) pass.PreTower(static_cast<int>(p), m.pre_towers[p]);
  }
  if (m.tower_user != nullptr) pass.Tower(*m.tower_user);
}

void DinModel::ScoreCandidates(const ScoringInput& input, const Workspace& user, size_t first, Workspace& workspace,
                               std::span<float> scores) const {
  assert(first + scores.size() <= input.candidates);
  const ScopedFlushDenormals flush;
  const Impl& m = *impl_;
  CandidatePass pass(first, scores.size(), user.buffers_->user, workspace.buffers_->candidates, m.resolved, m.tables,
                     m.isa, input, workspace.buffers_->scratch);
  for (size_t s = 0; s < m.slot_is_vector.size(); ++s) {
    if (m.slot_is_vector[s] && m.resolved.slots[s].scope == v1::CANDIDATE) pass.Slot(static_cast<int>(s));
  }
  for (size_t g = 0; g < m.activation_units.size(); ++g) {
    pass.Attention(static_cast<int>(g), *m.activation_units[g], m.posts[g]);
  }
  for (size_t i = 0; i < m.resolved.interactions.size(); ++i) {
    if (m.resolved.interactions[i].per_candidate) pass.Interaction(static_cast<int>(i));
  }
  for (size_t p = 0; p < m.pre_towers.size(); ++p) {
    if (IsPerCandidate(m.resolved.pre_towers[p])) pass.PreTower(static_cast<int>(p), m.pre_towers[p]);
  }
  pass.Tower(m.tower, m.logit_bias, m.tower_user == nullptr ? Pass::Terms::kAll : Pass::Terms::kOfCandidate, scores);
}

double DinModel::EstimateCandidate(const ScoringInput& input) const {
  double work = impl_->candidate_work;
  for (size_t g = 0; g < impl_->pair_work.size(); ++g) {
    const int sequence = impl_->resolved.attentions[g].sequence;
    work += impl_->pair_work[g] * static_cast<double>(input.sequences[sequence].positions.size());
  }
  return work / impl_->work_per_microsecond;
}

std::vector<AttentionWeights> DinModel::Explain(const ScoringInput& input, size_t candidate,
                                                Workspace& workspace) const {
  assert(candidate < input.candidates);
  PrepareUser(input, workspace);
  const ScopedFlushDenormals flush;
  const Impl& m = *impl_;
  CandidatePass pass(candidate, 1, workspace.buffers_->user, workspace.buffers_->candidates, m.resolved, m.tables,
                     m.isa, input, workspace.buffers_->scratch);
  std::vector<AttentionWeights> out(m.activation_units.size());
  for (size_t g = 0; g < out.size(); ++g) {
    const ResolvedSpec::Attention& attention = m.resolved.attentions[g];
    for (int slot : attention.query.slots) {
      if (m.resolved.slots[slot].scope == v1::CANDIDATE) pass.Slot(slot);
    }
    out[g].weights.resize(input.sequences[attention.sequence].positions.size());
    std::vector<float> pooled(attention.key.width);
    pass.Pool(static_cast<int>(g), *m.activation_units[g], pooled.data(), out[g].weights.data());
    const bool no_mean = m.resolved.spec.attentions(static_cast<int>(g)).empty() == v1::Attention::EMPTY_ZERO;
    if (input.sequences[attention.sequence].empty && no_mean) out[g].weights.clear();
  }
  return out;
}

}  // namespace din
