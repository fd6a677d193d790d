#include "model/reference_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/gather.h"
#include "model/tensor_reader.h"

namespace din::reference {
namespace {

template <typename T>
using Vector = std::vector<T>;

// ---------------------------------------------------------------------------------------------------------------------
// The parameters, as the snapshot has them

template <typename T>
struct Linear {
  size_t out = 0;
  Vector<T> w;  // [out, in]
  Vector<T> b;  // [out], zeros without a bias
};

template <typename T>
struct BatchNorm {
  T eps = 0;
  Vector<T> mean, var, gamma, beta;  // empty: not there, the identity
};

template <typename T>
struct Activation {
  v1::Activation spec;
  Vector<T> alpha;    // of PReLU and Dice
  BatchNorm<T> dice;  // inside Dice's sigmoid
  Vector<T> slope;    // of Dice's sigmoid
};

template <typename T>
struct Layer {
  Linear<T> linear;
  BatchNorm<T> bn;
  Activation<T> activation;
  BatchNorm<T> out_bn;
};

template <typename T>
struct Attention {
  Vector<Layer<T>> layers;
  Linear<T> out;
  BatchNorm<T> post_bn;
  Linear<T> post;
};

template <typename T>
struct Network {
  BatchNorm<T> in_bn;
  Vector<Layer<T>> layers;
};

// An embedding table, widened row by row when it is read: it may be far larger than one request needs.
struct Table {
  const Tensor* tensor = nullptr;
  const Tensor* scale = nullptr;  // of I8
  size_t row_offset = 0;
  size_t dim = 0;
};

template <typename T>
struct Parameters {
  Vector<Table> tables;
  Vector<Attention<T>> attentions;
  Vector<Network<T>> pre_towers;
  Network<T> tower;
  Linear<T> head;
  T global_bias = 0;
};

// Keeps the first error; what is read after it is empty.
template <typename T>
class ParameterReader {
 public:
  explicit ParameterReader(const TensorMap& tensors) : reader_(tensors) {}

  absl::StatusOr<Parameters<T>> Read(const ResolvedSpec& resolved) {
    const v1::ModelSpec& spec = resolved.spec;
    Parameters<T> p;
    for (const v1::Table& table : spec.tables()) p.tables.push_back(ReadTable(table));
    for (int g = 0; g < spec.attentions_size(); ++g) {
      p.attentions.push_back(ReadAttention(absl::StrCat("att", g), spec.attentions(g), resolved.attentions[g]));
    }
    for (int i = 0; i < spec.pre_towers_size(); ++i) {
      p.pre_towers.push_back(ReadNetwork(absl::StrCat("pre", i), spec.pre_towers(i), resolved.pre_towers[i]));
    }
    const v1::Tower& tower = spec.tower();
    p.tower = ReadNetwork("tower", tower, resolved.tower);
    if (resolved.tower.in_width > 0) {
      p.head = ReadLinear("head", tower.classes(), resolved.tower.out_width, tower.head_bias());
    }
    if (tower.global_bias()) p.global_bias = Take(reader_.Weights("bias.global", {1}), 1)[0];
    if (!status_.ok()) return status_;
    return p;
  }

 private:
  Vector<T> Take(absl::StatusOr<std::vector<double>> values, size_t size) {
    if (!values.ok()) {
      if (status_.ok()) status_ = values.status();
      return Vector<T>(size);
    }
    return Vector<T>(values->begin(), values->end());
  }

  Vector<T> ReadVector(const std::string& name, size_t units) {
    return Take(reader_.Weights(name, {static_cast<int64_t>(units)}), units);
  }

  Table ReadTable(const v1::Table& table) {
    const std::string name = TensorName(table);
    const absl::StatusOr<const Tensor*> tensor =
        reader_.Raw(name, {DataType::kF32, DataType::kF16, DataType::kBF16, DataType::kI8});
    if (!tensor.ok()) {
      if (status_.ok()) status_ = tensor.status();
      return {};
    }
    const std::vector<int64_t>& shape = (*tensor)->shape;
    if (shape.size() != 2 || shape[1] != table.dim() || table.row_offset() + table.rows() > shape[0]) {
      if (status_.ok()) {
        status_ = absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", Describe(**tensor), ", expected [>= ",
                                                          table.row_offset() + table.rows(), ", ", table.dim(), "]"));
      }
      return {};
    }
    const Tensor* scale = nullptr;
    if ((*tensor)->type == DataType::kI8) {
      // Weights checks the shape.
      if (Take(reader_.Weights(name + ".scale", {shape[0]}), 1); !status_.ok()) return {};
      scale = *reader_.Raw(name + ".scale", {DataType::kF32});
    }
    return {*tensor, scale, static_cast<size_t>(table.row_offset()), table.dim()};
  }

  Linear<T> ReadLinear(const std::string& prefix, size_t out, size_t in, bool bias) {
    Linear<T> linear;
    linear.out = out;
    linear.w = Take(reader_.Weights(prefix + ".w", {static_cast<int64_t>(out), static_cast<int64_t>(in)}), out * in);
    linear.b = bias ? ReadVector(prefix + ".b", out) : Vector<T>(out);
    return linear;
  }

  BatchNorm<T> ReadBatchNorm(const std::string& prefix, double eps, bool affine, size_t units) {
    BatchNorm<T> bn;
    bn.eps = static_cast<T>(eps);
    bn.mean = ReadVector(prefix + ".mean", units);
    bn.var = ReadVector(prefix + ".var", units);
    if (status_.ok() && std::any_of(bn.var.begin(), bn.var.end(), [](T v) { return v < 0; })) {
      status_ = absl::InvalidArgumentError(absl::StrCat("tensor ", prefix, ".var: negative"));
    }
    bn.gamma = affine ? ReadVector(prefix + ".gamma", units) : Vector<T>(units, 1);
    bn.beta = affine ? ReadVector(prefix + ".beta", units) : Vector<T>(units, 0);
    return bn;
  }

  BatchNorm<T> ReadBatchNorm(const std::string& prefix, const v1::BatchNorm& bn, size_t units) {
    return ReadBatchNorm(prefix, bn.eps(), bn.affine(), units);
  }

  Activation<T> ReadActivation(const std::string& prefix, const v1::Activation& spec, size_t units) {
    Activation<T> activation;
    activation.spec = spec;
    const v1::Dice& dice = spec.dice();
    const bool is_dice = spec.kind() == v1::Activation::DICE;
    if (spec.kind() == v1::Activation::PRELU || (is_dice && dice.alpha() == v1::Dice::ALPHA_TENSOR)) {
      activation.alpha = Take(reader_.WeightsOrScalar(prefix + ".alpha", static_cast<int64_t>(units)), units);
    } else if (is_dice) {
      activation.alpha.assign(units, static_cast<T>(dice.alpha_value()));
    }
    if (is_dice && dice.statistics() == v1::Dice::RUNNING) {
      activation.dice = ReadBatchNorm(prefix, dice.eps(), dice.affine(), units);
      activation.slope = dice.slope() ? ReadVector(prefix + ".slope", units) : Vector<T>(units, 1);
    }
    return activation;
  }

  Vector<Layer<T>> ReadLayers(const std::string& prefix, const google::protobuf::RepeatedPtrField<v1::Layer>& specs,
                              size_t in) {
    Vector<Layer<T>> layers;
    for (int i = 0; i < specs.size(); ++i) {
      const v1::Layer& spec = specs[i];
      const std::string at = absl::StrCat(prefix, ".l", i);
      Layer<T> layer;
      layer.linear = ReadLinear(at, spec.units(), in, spec.bias());
      if (spec.has_bn()) layer.bn = ReadBatchNorm(at + ".bn", spec.bn(), spec.units());
      layer.activation = ReadActivation(at + ".act", spec.activation(), spec.units());
      if (spec.has_out_bn()) layer.out_bn = ReadBatchNorm(at + ".out_bn", spec.out_bn(), spec.units());
      layers.push_back(std::move(layer));
      in = spec.units();
    }
    return layers;
  }

  Attention<T> ReadAttention(const std::string& prefix, const v1::Attention& spec,
                             const ResolvedSpec::Attention& resolved) {
    const size_t width = resolved.key.width;
    Attention<T> attention;
    attention.layers = ReadLayers(prefix, spec.layers(), spec.input_size() * width);
    attention.out = ReadLinear(prefix + ".out", 1, spec.layers(spec.layers_size() - 1).units(), spec.out_bias());
    const v1::Attention::Post& post = spec.post();
    if (post.has_bn()) attention.post_bn = ReadBatchNorm(prefix + ".post.bn", post.bn(), width);
    if (post.units() > 0) attention.post = ReadLinear(prefix + ".post", post.units(), width, post.bias());
    return attention;
  }

  // A v1::PreTower or a v1::Tower.
  template <typename Spec>
  Network<T> ReadNetwork(const std::string& prefix, const Spec& spec, const ResolvedSpec::Network& resolved) {
    Network<T> network;
    if (spec.has_in_bn()) network.in_bn = ReadBatchNorm(prefix + ".in_bn", spec.in_bn(), resolved.in_width);
    network.layers = ReadLayers(prefix, spec.layers(), resolved.in_width);
    return network;
  }

  TensorReader reader_;
  absl::Status status_;
};

// ---------------------------------------------------------------------------------------------------------------------
// Layers

template <typename T>
T Sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

template <typename T>
Vector<T> Apply(const Linear<T>& linear, const Vector<T>& x) {
  Vector<T> y(linear.out);
  for (size_t o = 0; o < linear.out; ++o) {
    y[o] = linear.b[o];
    for (size_t i = 0; i < x.size(); ++i) y[o] += linear.w[o * x.size() + i] * x[i];
  }
  return y;
}

template <typename T>
Vector<T> Apply(const BatchNorm<T>& bn, Vector<T> x) {
  if (bn.mean.empty()) return x;
  for (size_t u = 0; u < x.size(); ++u) {
    x[u] = (x[u] - bn.mean[u]) / std::sqrt(bn.var[u] + bn.eps) * bn.gamma[u] + bn.beta[u];
  }
  return x;
}

// What goes into Dice's sigmoid.
template <typename T>
Vector<T> DiceArgument(const Activation<T>& activation, const Vector<T>& x) {
  Vector<T> z = x;  // IDENTITY
  if (activation.spec.dice().statistics() == v1::Dice::RUNNING) {
    z = Apply(activation.dice, x);
    for (size_t u = 0; u < x.size(); ++u) z[u] *= activation.slope[u];
  }
  if (activation.spec.dice().statistics() == v1::Dice::PER_ROW) {
    T mean = 0;
    for (T v : x) mean += v;
    mean /= static_cast<T>(x.size());
    T sum = 0;
    for (T v : x) sum += (v - mean) * (v - mean) + static_cast<T>(activation.spec.dice().eps());
    for (size_t u = 0; u < x.size(); ++u) z[u] = (x[u] - mean) / std::sqrt(sum);
  }
  return z;
}

// DIN section 5.3: p(x) x + (1 - p(x)) alpha x.
template <typename T>
Vector<T> Dice(const Activation<T>& activation, const Vector<T>& x) {
  const Vector<T> z = DiceArgument(activation, x);
  Vector<T> y(x.size());
  for (size_t u = 0; u < x.size(); ++u) {
    const T p = Sigmoid(z[u]);
    y[u] = p * x[u] + (1 - p) * activation.alpha[u] * x[u];
  }
  return y;
}

template <typename T>
Vector<T> Apply(const Activation<T>& activation, Vector<T> x) {
  using A = v1::Activation;
  if (activation.spec.kind() == A::DICE) return Dice(activation, x);
  for (size_t u = 0; u < x.size(); ++u) {
    switch (activation.spec.kind()) {
      case A::RELU:
        x[u] = std::max<T>(x[u], 0);
        break;
      case A::SIGMOID:
        x[u] = Sigmoid(x[u]);
        break;
      case A::TANH:
        x[u] = std::tanh(x[u]);
        break;
      case A::PRELU:
        if (x[u] < 0) x[u] *= activation.alpha[u];
        break;
      case A::LEAKY_RELU:
        if (x[u] < 0) x[u] *= static_cast<T>(activation.spec.leaky_slope());
        break;
      case A::SILU:
        x[u] *= Sigmoid(x[u]);
        break;
      default:  // NONE; ResolveSpec accepts no other
        break;
    }
  }
  return x;
}

template <typename T>
Vector<T> Apply(const Vector<Layer<T>>& layers, Vector<T> x) {
  for (const Layer<T>& layer : layers) {
    x = Apply(layer.out_bn, Apply(layer.activation, Apply(layer.bn, Apply(layer.linear, x))));
  }
  return x;
}

// ---------------------------------------------------------------------------------------------------------------------
// Embeddings

// IEEE 754 binary16: sign, 5 bits of exponent, 10 of fraction. (Tables are finite: exponent 31 does not occur.)
double HalfToDouble(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -value : value;
}

double Element(const Tensor& tensor, size_t index) {
  const std::byte* at = tensor.data + index * SizeOf(tensor.type);
  if (tensor.type == DataType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (tensor.type == DataType::kI8) return static_cast<double>(static_cast<int8_t>(*at));
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  if (tensor.type == DataType::kF16) return HalfToDouble(bits);
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;  // bfloat16 is the upper half of a float
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// An int8 row's element is the float nearest to its product with the row's scale.
double Element(const Table& table, size_t row, size_t d) {
  const double element = Element(*table.tensor, row * table.dim + d);
  return table.scale == nullptr ? element
                                : static_cast<double>(static_cast<float>(element * Element(*table.scale, row)));
}

template <typename T>
Vector<T> Row(const Table& table, uint32_t row) {
  Vector<T> out(table.dim, 0);
  if (row == kZeroRow) return out;
  for (size_t d = 0; d < table.dim; ++d) {
    out[d] = static_cast<T>(Element(table, table.row_offset + row, d));
  }
  return out;
}

template <typename T>
void Append(Vector<T>& to, const Vector<T>& what) {
  to.insert(to.end(), what.begin(), what.end());
}

// ---------------------------------------------------------------------------------------------------------------------
// The model

template <typename T>
class Evaluation {
 public:
  Evaluation(const ResolvedSpec& resolved, const Parameters<T>& parameters, const ScoringInput& input)
      : resolved_(resolved), spec_(resolved.spec), p_(parameters), input_(input) {}

  Scores<T> Run() {
    Scores<T> out;
    out.weights.resize(spec_.attentions_size());
    for (size_t c = 0; c < input_.candidates; ++c) {
      ScoreCandidate(c);
      const T logit = Logit(c);
      out.logits.push_back(logit);
      out.scores.push_back(Sigmoid(logit));
      for (size_t g = 0; g < weights_.size(); ++g) Append(out.weights[g], weights_[g]);
    }
    return out;
  }

 private:
  // --- Slots ---------------------------------------------------------------------------------------------------------

  // `row` is a candidate or a position of the slot's sequence; a slot of the user has only one.
  Vector<T> Slot(int index, size_t row) const {
    const v1::Slot& spec = spec_.slots(index);
    const ResolvedSpec::Slot& slot = resolved_.slots[index];
    if (slot.scope == v1::USER) row = 0;
    switch (spec.op_case()) {
      case v1::Slot::kEmbed:
        return Row<T>(p_.tables[slot.table], input_.columns[slot.feature].rows[row]);
      case v1::Slot::kPool:
        return Pool(spec.pool(), p_.tables[slot.table], input_.columns[slot.feature], row);
      case v1::Slot::kDense:
        return Dense(slot, row);
      default: {  // Scaled
        const uint32_t id_row = slot.feature == kNone ? 0 : input_.columns[slot.feature].rows[row];
        Vector<T> vector = Row<T>(p_.tables[slot.table], id_row);
        for (T& v : vector) v *= Dense(slot, row)[0];
        return vector;
      }
    }
  }

  Vector<T> Dense(const ResolvedSpec::Slot& slot, size_t row) const {
    const std::vector<float>& values = input_.columns[slot.value].values;
    const size_t width = resolved_.features[slot.value].width;
    return Vector<T>(values.begin() + row * width, values.begin() + (row + 1) * width);
  }

  static Vector<T> Pool(const v1::Slot::Pool& spec, const Table& table, const ScoringInput::Column& column,
                        size_t row) {
    Vector<Vector<T>> members;
    for (size_t i = column.offsets[row]; i < column.offsets[row + 1]; ++i) {
      if (spec.skip_padding() && column.is_padding[i]) continue;
      members.push_back(Row<T>(table, column.rows[i]));
    }
    if (members.empty()) {
      return Vector<T>(table.dim, spec.kind() == v1::Slot::Pool::SUM ? 0 : static_cast<T>(spec.empty_value()));
    }
    Vector<T> pooled = members[0];
    for (size_t i = 1; i < members.size(); ++i) {
      for (size_t d = 0; d < table.dim; ++d) {
        pooled[d] = spec.kind() == v1::Slot::Pool::MAX ? std::max(pooled[d], members[i][d]) : pooled[d] + members[i][d];
      }
    }
    if (spec.kind() == v1::Slot::Pool::MEAN) {
      for (T& v : pooled) v /= static_cast<T>(members.size()) + static_cast<T>(spec.divisor_epsilon());
    }
    return pooled;
  }

  Vector<T> Concat(const ResolvedSpec::Concat& concat, size_t row) const {
    Vector<T> out;
    for (int slot : concat.slots) Append(out, Slot(slot, row));
    return out;
  }

  // --- Attention -----------------------------------------------------------------------------------------------------

  // The local activation unit: how much the behaviour k counts for the candidate q, before `normalise`.
  T AttentionScore(int g, const Vector<T>& q, const Vector<T>& k) const {
    using A = v1::Attention;
    const v1::Attention& spec = spec_.attentions(g);
    Vector<T> x;
    for (int piece : spec.input()) {
      for (size_t d = 0; d < k.size(); ++d) {
        switch (piece) {
          case A::Q:
            x.push_back(q[d]);
            break;
          case A::K:
            x.push_back(k[d]);
            break;
          case A::Q_MINUS_K:
            x.push_back(q[d] - k[d]);
            break;
          case A::K_MINUS_Q:
            x.push_back(k[d] - q[d]);
            break;
          default:  // Q_TIMES_K
            x.push_back(q[d] * k[d]);
            break;
        }
      }
    }
    T score = Apply(p_.attentions[g].out, Apply(p_.attentions[g].layers, x))[0];
    if (spec.out_activation() == v1::Activation::SIGMOID) score = Sigmoid(score);
    if (spec.scale() == A::SCALE_INVERSE_SQRT_WIDTH) score /= std::sqrt(static_cast<T>(k.size()));
    return score;
  }

  static Vector<T> Softmax(Vector<T> scores) {
    const T largest = *std::max_element(scores.begin(), scores.end());
    T sum = 0;
    for (T& s : scores) {
      s = std::exp(s - largest);
      sum += s;
    }
    for (T& s : scores) s /= sum;
    return scores;
  }

  // One weight per position; none when the sequence counts as empty.
  Vector<T> AttentionWeights(int g, const Vector<T>& q, const Vector<Vector<T>>& keys) const {
    using A = v1::Attention;
    const v1::Attention& spec = spec_.attentions(g);
    if (input_.sequences[resolved_.attentions[g].sequence].empty) {
      if (spec.empty() == A::EMPTY_ZERO) return {};
      return Vector<T>(keys.size(), 1 / static_cast<T>(keys.size()));
    }
    Vector<T> weights;
    for (const Vector<T>& k : keys) weights.push_back(AttentionScore(g, q, k));
    if (spec.normalise() == A::NORMALISE_SOFTMAX) return Softmax(weights);
    if (spec.normalise() == A::NORMALISE_SIGMOID) {
      for (T& w : weights) w = Sigmoid(w);
    }
    return weights;
  }

  // DIN section 4.3, equation 3: the sum over j of a(e_j, v_A) e_j.
  Vector<T> AttentionVector(int g, size_t candidate, Vector<T>& weights) const {
    const ResolvedSpec::Attention& attention = resolved_.attentions[g];
    Vector<T> q = Concat(attention.query, candidate);
    q.resize(attention.key.width, 0);
    const Vector<Vector<T>> keys = Keys(attention.key, attention.sequence);
    weights = AttentionWeights(g, q, keys);
    Vector<T> sum(attention.key.width, 0);
    for (size_t j = 0; j < weights.size(); ++j) {
      for (size_t d = 0; d < sum.size(); ++d) sum[d] += weights[j] * keys[j][d];
    }
    sum = Apply(p_.attentions[g].post_bn, sum);
    return spec_.attentions(g).post().units() > 0 ? Apply(p_.attentions[g].post, sum) : sum;
  }

  Vector<Vector<T>> Keys(const ResolvedSpec::Concat& key, int sequence) const {
    Vector<Vector<T>> keys;
    for (size_t j = 0; j < input_.sequences[sequence].positions.size(); ++j) keys.push_back(Concat(key, j));
    return keys;
  }

  Vector<T> SequencePool(int index) const {
    const v1::SequencePool& spec = spec_.sequence_pools(index);
    const ResolvedSpec::SequencePool& pool = resolved_.sequence_pools[index];
    Vector<T> sum(pool.key.width, 0);
    if (input_.sequences[pool.sequence].empty) return sum;
    const Vector<Vector<T>> keys = Keys(pool.key, pool.sequence);
    for (const Vector<T>& key : keys) {
      for (size_t d = 0; d < sum.size(); ++d) sum[d] += key[d];
    }
    if (spec.kind() == v1::SequencePool::MEAN) {
      for (T& v : sum) v /= static_cast<T>(keys.size()) + static_cast<T>(spec.divisor_epsilon());
    }
    return sum;
  }

  // Over all pairs of the vectors: their inner products, or the sum of their element-wise products.
  Vector<T> Interaction(int index, size_t candidate) const {
    const ResolvedSpec::Interaction& interaction = resolved_.interactions[index];
    Vector<Vector<T>> vectors;
    for (const ResolvedSpec::Vector& vector : interaction.vectors) vectors.push_back(Part(vector, candidate));
    Vector<T> products;
    Vector<T> sum(interaction.width, 0);
    for (size_t i = 0; i < vectors.size(); ++i) {
      for (size_t j = i + 1; j < vectors.size(); ++j) {
        products.push_back(0);
        for (size_t d = 0; d < sum.size(); ++d) {
          products.back() += vectors[i][d] * vectors[j][d];
          sum[d] += vectors[i][d] * vectors[j][d];
        }
      }
    }
    return spec_.interactions(index).kind() == v1::Interaction::INNER_PRODUCTS ? products : sum;
  }

  // --- Networks ------------------------------------------------------------------------------------------------------

  Vector<T> Part(const ResolvedSpec::Vector& vector, size_t candidate) const {
    Vector<T> whole;
    switch (vector.kind) {
      case ResolvedSpec::VectorKind::kSlot:
        whole = Slot(vector.index, candidate);
        break;
      case ResolvedSpec::VectorKind::kAttention:
        whole = attention_vectors_[vector.index];
        break;
      case ResolvedSpec::VectorKind::kSequencePool:
        whole = SequencePool(vector.index);
        break;
      case ResolvedSpec::VectorKind::kInteraction:
        whole = Interaction(vector.index, candidate);
        break;
      case ResolvedSpec::VectorKind::kPreTower:
        whole = pre_tower_vectors_[vector.index];
        break;
    }
    return Vector<T>(whole.begin() + vector.begin, whole.begin() + vector.end);
  }

  Vector<T> Run(const Network<T>& network, const ResolvedSpec::Network& resolved, size_t candidate) const {
    Vector<T> x;
    for (const ResolvedSpec::Term& term : resolved.input) {
      Vector<T> a = Part(term.a, candidate);
      if (term.is_product) {
        const Vector<T> b = Part(term.b, candidate);
        for (size_t d = 0; d < a.size(); ++d) a[d] *= b[d];
      }
      Append(x, a);
    }
    return Apply(network.layers, Apply(network.in_bn, x));
  }

  // Everything below the tower, for one candidate.
  void ScoreCandidate(size_t candidate) {
    weights_.assign(spec_.attentions_size(), {});
    attention_vectors_.clear();
    pre_tower_vectors_.clear();
    for (int g = 0; g < spec_.attentions_size(); ++g) {
      attention_vectors_.push_back(AttentionVector(g, candidate, weights_[g]));
    }
    for (int i = 0; i < spec_.pre_towers_size(); ++i) {
      pre_tower_vectors_.push_back(Run(p_.pre_towers[i], resolved_.pre_towers[i], candidate));
    }
  }

  // The softmax over two classes is the sigmoid of their difference, which makes a logit of it too.
  T TowerLogit(size_t candidate) const {
    const v1::Tower& spec = spec_.tower();
    if (resolved_.tower.in_width == 0) return 0;
    const Vector<T> z = Apply(p_.head, Run(p_.tower, resolved_.tower, candidate));
    return spec.classes() == 2 ? z[spec.positive_class()] - z[1 - spec.positive_class()] : z[0];
  }

  T Logit(size_t candidate) const {
    T logit = TowerLogit(candidate) + p_.global_bias;
    for (const ResolvedSpec::IdBias& bias : resolved_.id_biases) {
      const size_t row = spec_.features(bias.feature).scope() == v1::USER ? 0 : candidate;
      logit += Row<T>(p_.tables[bias.table], input_.columns[bias.feature].rows[row])[0];
    }
    for (const ResolvedSpec::Vector& wide : resolved_.wide) {
      for (T v : Part(wide, candidate)) logit += v;
    }
    return logit;
  }

  const ResolvedSpec& resolved_;
  const v1::ModelSpec& spec_;
  const Parameters<T>& p_;
  const ScoringInput& input_;
  // Of the candidate at hand.
  Vector<Vector<T>> weights_;
  Vector<Vector<T>> attention_vectors_;
  Vector<Vector<T>> pre_tower_vectors_;
};

}  // namespace

template <typename T>
absl::StatusOr<Scores<T>> Score(const ResolvedSpec& resolved, const TensorMap& tensors, const ScoringInput& input) {
  absl::StatusOr<Parameters<T>> parameters = ParameterReader<T>(tensors).Read(resolved);
  if (!parameters.ok()) return parameters.status();
  return Evaluation<T>(resolved, *parameters, input).Run();
}

template absl::StatusOr<Scores<double>> Score(const ResolvedSpec&, const TensorMap&, const ScoringInput&);
template absl::StatusOr<Scores<float>> Score(const ResolvedSpec&, const TensorMap&, const ScoringInput&);

}  // namespace din::reference
