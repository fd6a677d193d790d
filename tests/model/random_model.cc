#include "tests/model/random_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/reference_model.h"
#include "model/resolved_spec.h"
#include "model/tensor_reader.h"

namespace din::testing {
namespace {

[[noreturn]] void Die(const std::string& why) {
  std::cerr << "random_model: " << why << std::endl;
  std::abort();
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) Die(value.status().ToString());
  return std::move(value).value();
}

// ---------------------------------------------------------------------------------------------------------------------
// Chance

size_t Below(Rng& rng, size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(rng); }
size_t Between(Rng& rng, size_t low, size_t high) { return low + Below(rng, high - low + 1); }
bool Chance(Rng& rng, double p) { return std::bernoulli_distribution(p)(rng); }
double Uniform(Rng& rng, double low, double high) { return std::uniform_real_distribution<double>(low, high)(rng); }
double Normal(Rng& rng, double sigma) { return std::normal_distribution<double>(0, sigma)(rng); }

template <typename T>
T Pick(Rng& rng, std::initializer_list<T> from) {
  return from.begin()[Below(rng, from.size())];
}

std::vector<double> Normals(Rng& rng, size_t n, double sigma) {
  std::vector<double> out(n);
  for (double& v : out) v = Normal(rng, sigma);
  return out;
}

// ---------------------------------------------------------------------------------------------------------------------
// Numbers in 16 bits, rounded to nearest

uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Of |value| < 65504.
uint16_t ToF16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  exponent = std::max(exponent, -13);  // below: subnormal, in steps of 2^-24
  const auto fraction = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));
  // A fraction in [1024, 2048) counts 1024 towards the exponent field, which is exponent + 14.
  return static_cast<uint16_t>(sign | ((exponent + 13) * 1024 + fraction));
}

// ---------------------------------------------------------------------------------------------------------------------
// Raw ids

struct RawId {
  int64_t number = 0;
  std::string text;
  bool operator==(const RawId&) const = default;
};

// Keys of a vocabulary or a side table: integers or strings, found by looking at each.
class Keys {
 public:
  static Keys Read(const RawModel& model, const std::string& name, v1::IdType type) {
    return Read(model.tensors, name, type);
  }
  static Keys Read(const TensorMap& tensors, const std::string& name, v1::IdType type) {
    TensorReader reader(tensors);
    Keys keys;
    if (type == v1::INT64) {
      keys.numbers_ = OrDie(reader.IntegersInPlace(name, -1));
    } else {
      keys.texts_ = OrDie(reader.StringsInPlace(name, -1));
    }
    return keys;
  }

  size_t size() const { return numbers_.size() + texts_.size(); }
  RawId operator[](size_t i) const {
    return numbers_.size() > 0 ? RawId{numbers_[i], ""} : RawId{0, std::string(texts_[i])};
  }
  bool Has(const RawId& id) const {
    for (size_t i = 0; i < size(); ++i) {
      if ((*this)[i] == id) return true;
    }
    return false;
  }

 private:
  IntegerList numbers_;
  StringList texts_;
};

RawId AnyId(Rng& rng, v1::IdType type) {
  if (type == v1::STRING) return {0, absl::StrCat("id-", Below(rng, 5000))};
  return {static_cast<int64_t>(Below(rng, 4000)) - 2000, ""};
}

bool AllowsUnknown(const v1::IdMap& map) {
  return map.out_of_vocabulary() == v1::IdMap::ROW || map.out_of_vocabulary() == v1::IdMap::ZERO;
}

RawId KnownId(Rng& rng, const v1::IdMap& map, const TensorMap& tensors) {
  if (map.has_identity()) {
    return {map.identity().first() + static_cast<int64_t>(Below(rng, map.identity().size())), ""};
  }
  if (!map.has_vocabulary()) return AnyId(rng, map.id_type());
  const Keys keys = Keys::Read(tensors, absl::StrCat("vocab.", map.name(), ".keys"), map.id_type());
  return keys[Below(rng, keys.size())];
}

bool Knows(const v1::IdMap& map, const TensorMap& tensors, const RawId& id) {
  if (map.has_identity()) {
    return id.number >= map.identity().first() && id.number < map.identity().first() + map.identity().size();
  }
  if (!map.has_vocabulary()) return true;
  return Keys::Read(tensors, absl::StrCat("vocab.", map.name(), ".keys"), map.id_type()).Has(id);
}

// Rows that a table needs for every id of the map.
int64_t RowsNeeded(const v1::IdMap& map, const TensorMap& tensors) {
  int64_t rows = RowsOf(map);
  if (map.has_vocabulary()) {
    const Keys keys = Keys::Read(tensors, absl::StrCat("vocab.", map.name(), ".keys"), map.id_type());
    rows = map.vocabulary().first_row() + static_cast<int64_t>(keys.size());
  }
  return map.out_of_vocabulary() == v1::IdMap::ROW ? std::max(rows, map.out_of_vocabulary_row() + 1) : rows;
}

// ---------------------------------------------------------------------------------------------------------------------
// Requests

class RequestBuilder {
 public:
  RequestBuilder(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size)
      : rng_(rng), resolved_(OrDie(ResolveSpec(spec))), tensors_(tensors), size_(size) {}

  v1::GoldenCase Build() {
    v1::GoldenCase request;
    for (const v1::SequenceSpec& sequence : spec().sequences()) request.add_sequences()->set_name(sequence.name());
    for (int f = 0; f < spec().features_size(); ++f) {
      const v1::Feature& feature = spec().features(f);
      if (feature.has_side() && Chance(rng_, 0.7)) continue;
      switch (feature.scope()) {
        case v1::USER:
          Fill(f, 1, *request.add_features());
          break;
        case v1::CANDIDATE:
          Fill(f, size_.candidates, *request.add_candidates());
          break;
        default:
          Fill(f, size_.behaviours, *request.mutable_sequences(resolved_.features[f].sequence)->add_columns());
          break;
      }
    }
    return request;
  }

 private:
  const v1::ModelSpec& spec() const { return resolved_.spec; }

  void Fill(int f, size_t rows, v1::Column& column) {
    const v1::Feature& feature = spec().features(f);
    column.set_name(feature.name());
    if (feature.kind() == v1::ID_LIST && feature.scope() != v1::USER) column.add_offsets(0);
    for (size_t row = 0; row < rows; ++row) {
      if (feature.kind() == v1::DENSE) {
        for (size_t i = 0; i < feature.width(); ++i) column.add_values(static_cast<float>(Normal(rng_, 1)));
        continue;
      }
      const size_t ids = feature.kind() == v1::ID ? 1 : Below(rng_, size_.list_ids + 1);
      for (size_t i = 0; i < ids; ++i) AddId(f, column);
      if (feature.kind() == v1::ID_LIST && feature.scope() != v1::USER) {
        column.add_offsets(static_cast<uint32_t>(column.ids_size() + column.keys_size()));
      }
    }
  }

  void AddId(int f, v1::Column& column) {
    const RawId id = DrawId(f);
    if (resolved_.features[f].id_type == v1::STRING) {
      column.add_keys(id.text);
    } else {
      column.add_ids(id.number);
    }
  }

  RawId DrawId(int f) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      RawId id = Propose(f);
      if (Accepts(f, id)) return id;
    }
    Die("no id for " + spec().features(f).name());
  }

  RawId Propose(int f) {
    const v1::Feature& feature = spec().features(f);
    const v1::IdMap& map = spec().id_maps(resolved_.features[f].id_map);
    if (feature.has_padding() && !feature.padding().has_zero_vector() && Chance(rng_, 0.2)) {
      return {feature.padding().id(), feature.padding().key()};
    }
    if (AllowsUnknown(map) && Chance(rng_, 0.2)) return AnyId(rng_, map.id_type());
    for (const ResolvedSpec::Feature& other : resolved_.features) {
      if (other.side_key != f || Chance(rng_, 0.5)) continue;
      return SideKey(spec().side_tables(other.side_table));
    }
    return KnownId(rng_, map, tensors_);
  }

  RawId SideKey(const v1::SideTable& table) {
    const std::string keys = absl::StrCat("side.", table.name(), ".keys");
    if (IsDense(table)) return {static_cast<int64_t>(Below(rng_, table.rows())), ""};
    return Keys::Read(tensors_, keys, table.key_type())[Below(rng_, table.rows())];
  }

  // The keys are 0 .. rows - 1.
  bool IsDense(const v1::SideTable& table) const {
    return table.key_type() == v1::INT64 && tensors_.count(absl::StrCat("side.", table.name(), ".keys")) == 0;
  }

  bool Accepts(int f, const RawId& id) {
    const v1::IdMap& map = spec().id_maps(resolved_.features[f].id_map);
    if (map.out_of_vocabulary() == v1::IdMap::ERROR && !Knows(map, tensors_, id)) return false;
    for (const ResolvedSpec::Feature& other : resolved_.features) {
      if (other.side_key != f) continue;
      const v1::SideTable& table = spec().side_tables(other.side_table);
      if (table.missing_key() != v1::SideTable::MISSING_KEY_ERROR) continue;
      const bool has = IsDense(table) ? id.number >= 0 && id.number < table.rows()
                                      : Keys::Read(tensors_, absl::StrCat("side.", table.name(), ".keys"),
                                                   table.key_type())
                                            .Has(id);
      if (!has) return false;
    }
    return true;
  }

  Rng& rng_;
  const ResolvedSpec resolved_;
  const TensorMap& tensors_;
  const RequestSize size_;
};

// ---------------------------------------------------------------------------------------------------------------------
// Layers. Every network is given vectors of magnitude 1, unless `scale` says otherwise per element, and Linears are drawn
// so that magnitudes stay there; a few units are drawn at 1/200 together with their statistics, so that epsilons count.

constexpr double kSmall = 5e-3;

class LayerBuilder {
 public:
  LayerBuilder(Rng& rng, RawModel& model) : rng_(rng), model_(model) {}

  // y = W x + b with y of magnitude `out_scale` for x of magnitude `scale`.
  void Linear(const std::string& prefix, const std::vector<double>& scale, const std::vector<double>& out_scale,
              bool bias) {
    const size_t in = scale.size();
    const size_t out = out_scale.size();
    std::vector<double> w(out * in);
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) {
        w[o * in + i] = Normal(rng_, out_scale[o] / scale[i] / std::sqrt(static_cast<double>(in)));
      }
    }
    model_.AddWeights(prefix + ".w", {static_cast<int64_t>(out), static_cast<int64_t>(in)}, w);
    if (bias) Vector(prefix + ".b", out_scale, 0.3);
  }

  // Statistics of values of magnitude `scale`. Returns the magnitude of the result.
  std::vector<double> BatchNorm(const std::string& prefix, const v1::BatchNorm& bn, const std::vector<double>& scale) {
    std::vector<double> var = scale;
    std::vector<double> out(scale.size());
    for (size_t u = 0; u < scale.size(); ++u) {
      var[u] = Uniform(rng_, 0.3, 2) * scale[u] * scale[u];
      out[u] = bn.affine() ? 1 : scale[u] / std::sqrt(var[u] + bn.eps());
    }
    Vector(prefix + ".mean", scale, 0.3);
    Add(prefix + ".var", var);
    if (bn.affine()) Affine(prefix, scale.size());
    return out;
  }

  // Linear, BatchNorm, activation, BatchNorm as `layer` says. Returns the magnitude of the result.
  std::vector<double> Layer(const std::string& prefix, const v1::Layer& layer, const std::vector<double>& scale) {
    const bool may_be_small = layer.has_bn() || IsRunningDice(layer.activation());
    std::vector<double> x(layer.units(), 1);
    for (double& s : x) s = may_be_small && Chance(rng_, 0.2) ? kSmall : 1;
    Linear(prefix, scale, x, layer.bias());
    if (layer.has_bn()) x = BatchNorm(prefix + ".bn", layer.bn(), x);
    x = Activation(prefix + ".act", layer.activation(), x);
    return layer.has_out_bn() ? BatchNorm(prefix + ".out_bn", layer.out_bn(), x) : x;
  }

  template <typename Layers>
  std::vector<double> LayerStack(const std::string& prefix, const Layers& layers, std::vector<double> scale) {
    for (int i = 0; i < layers.size(); ++i) scale = Layer(absl::StrCat(prefix, ".l", i), layers[i], scale);
    return scale;
  }

 private:
  static bool IsRunningDice(const v1::Activation& activation) {
    return activation.kind() == v1::Activation::DICE && activation.dice().statistics() == v1::Dice::RUNNING;
  }

  void Add(const std::string& name, const std::vector<double>& values) {
    model_.AddWeights(name, {static_cast<int64_t>(values.size())}, values);
  }

  void Vector(const std::string& name, std::vector<double> scale, double sigma) {
    for (double& v : scale) v *= Normal(rng_, sigma);
    Add(name, scale);
  }

  void Affine(const std::string& prefix, size_t units) {
    std::vector<double> gamma(units);
    for (double& v : gamma) v = Uniform(rng_, 0.5, 1.5) * (Chance(rng_, 0.2) ? -1 : 1);
    Add(prefix + ".gamma", gamma);
    Add(prefix + ".beta", Normals(rng_, units, 0.3));
  }

  // One per unit, or one for all.
  void Alpha(const std::string& name, size_t units) {
    Add(name, Normals(rng_, Chance(rng_, 0.3) ? 1 : units, 0.3));
  }

  std::vector<double> Activation(const std::string& prefix, const v1::Activation& activation,
                                 const std::vector<double>& scale) {
    const size_t units = scale.size();
    if (activation.kind() == v1::Activation::PRELU) Alpha(prefix + ".alpha", units);
    if (activation.kind() == v1::Activation::SIGMOID || activation.kind() == v1::Activation::TANH) {
      return std::vector<double>(units, 0.7);
    }
    if (activation.kind() != v1::Activation::DICE) return scale;
    const v1::Dice& dice = activation.dice();
    if (dice.alpha() == v1::Dice::ALPHA_TENSOR) Alpha(prefix + ".alpha", units);
    if (dice.statistics() == v1::Dice::RUNNING) {
      v1::BatchNorm bn;
      bn.set_eps(dice.eps());
      bn.set_affine(dice.affine());
      BatchNorm(prefix, bn, scale);
      if (dice.slope()) {
        std::vector<double> slope(units);
        for (double& v : slope) v = Uniform(rng_, 0.5, 1.5);
        Add(prefix + ".slope", slope);
      }
    }
    return scale;
  }

  Rng& rng_;
  RawModel& model_;
};

// The logits and attention weights of `requests` requests in fp64.
reference::Scores<double> Evaluate(Rng& rng, const RawModel& model, size_t requests, const RequestSize& size) {
  const ResolvedSpec resolved = OrDie(ResolveSpec(model.spec));
  TensorReader reader(model.tensors);
  const auto decoder = OrDie(InputDecoder::Create(resolved, reader));
  reference::Scores<double> all;
  all.weights.resize(model.spec.attentions_size());
  for (size_t r = 0; r < requests; ++r) {
    const v1::GoldenCase request = RandomRequest(rng, model.spec, model.tensors, size);
    const ScoringInput input = DecodeOrDie(*decoder, request);
    const auto scores = OrDie(reference::Score<double>(resolved, model.tensors, input));
    all.logits.insert(all.logits.end(), scores.logits.begin(), scores.logits.end());
    for (size_t g = 0; g < scores.weights.size(); ++g) {
      all.weights[g].insert(all.weights[g].end(), scores.weights[g].begin(), scores.weights[g].end());
    }
  }
  return all;
}

void Scale(RawModel& model, std::string_view name, double factor) {
  if (model.tensors.find(name) == model.tensors.end()) return;
  for (float& v : model.Floats(name)) v = static_cast<float>(v * factor);
}

// ---------------------------------------------------------------------------------------------------------------------
// Random models

class ModelBuilder {
 public:
  ModelBuilder(uint64_t seed, const RandomModelOptions& options)
      : rng_(seed), options_(options), layers_(rng_, model_) {
    spec().set_format(1);
    spec().set_description(absl::StrCat("random model, seed ", seed));
  }

  RawModel Build() {
    IdMaps();
    Sequences();
    const size_t slots = Between(rng_, 1, 4);
    for (size_t i = 0; i < slots; ++i) AddSlot(i == 0 ? v1::CANDIDATE : UserOrCandidate(), kNone, Width());
    Attentions();
    SequencePools();
    PreTowers();
    Tower();
    Labels();
    TableData();
    BoundLogits();
    return std::move(model_);
  }

 private:
  v1::ModelSpec& spec() { return model_.spec; }

  size_t Width() { return Between(rng_, 1, options_.slot_width); }
  v1::Scope UserOrCandidate() { return Chance(rng_, 0.5) ? v1::USER : v1::CANDIDATE; }

  // --- Ids ------------------------------------------------------------------------------------------------------------

  void IdMaps() {
    const size_t maps = Between(rng_, 1, 4);
    for (size_t i = 0; i < maps; ++i) AddIdMap(absl::StrCat("map", i), i == 0);
  }

  // `int64`: features of side tables that are lists need at least one map of integers.
  void AddIdMap(const std::string& name, bool int64) {
    v1::IdMap& map = *spec().add_id_maps();
    map.set_name(name);
    const size_t size = Between(rng_, 2, 40);
    const size_t kind = Below(rng_, 4);
    map.set_id_type(kind < 2 || int64 || Chance(rng_, 0.5) ? v1::INT64 : v1::STRING);
    if (kind == 0) {
      map.mutable_identity()->set_size(size);
      if (Chance(rng_, 0.3)) map.mutable_identity()->set_first(Pick<int64_t>(rng_, {-7, 1, 100}));
    } else if (kind == 1) {
      map.mutable_modulo()->set_size(size);
    } else if (kind == 2) {
      Hash(*map.mutable_hash(), size);
    } else {
      Vocabulary(map, size);
    }
    if (kind == 0 || kind == 3) {
      map.set_out_of_vocabulary(Pick(rng_, {v1::IdMap::ERROR, v1::IdMap::ROW, v1::IdMap::ZERO}));
      if (map.out_of_vocabulary() == v1::IdMap::ROW) map.set_out_of_vocabulary_row(Below(rng_, size + 2));
    }
  }

  void Hash(v1::IdMap::Hash& hash, size_t size) {
    using H = v1::IdMap::Hash;
    hash.set_function(Pick(rng_, {H::FARMHASH64_DECIMAL, H::FARMHASH64_DECIMAL_SKIP_ZERO, H::XXH64}));
    hash.set_size(size);
    if (hash.function() == H::XXH64) hash.set_seed(Below(rng_, 1000));
  }

  void Vocabulary(v1::IdMap& map, size_t size) {
    map.mutable_vocabulary()->set_first_row(Below(rng_, 3));
    const std::string name = absl::StrCat("vocab.", map.name(), ".keys");
    std::vector<int64_t> numbers;
    std::vector<std::string> texts;
    for (size_t i = 0; i < size; ++i) {
      numbers.push_back(static_cast<int64_t>(i * i * 13) - 500);
      texts.push_back(absl::StrCat("key", i * 7));
    }
    if (map.id_type() == v1::INT64) {
      model_.AddIntegers(name, numbers);
    } else {
      model_.AddStrings(name, texts);
    }
  }

  // --- Tables ---------------------------------------------------------------------------------------------------------

  struct TensorData {
    int64_t rows = 0;
    int64_t dim = 0;
  };

  // A table of this width for the ids of `map`; sometimes one that is there already.
  std::string TableFor(const v1::IdMap& map, size_t dim) {
    return TableOf(RowsNeeded(map, model_.tensors), dim);
  }

  std::string TableOf(int64_t rows, size_t dim) {
    for (const v1::Table& table : spec().tables()) {
      if (table.dim() == dim && table.rows() >= rows && Chance(rng_, 0.5)) return table.name();
    }
    v1::Table& table = *spec().add_tables();
    table.set_name(absl::StrCat("t", spec().tables_size() - 1));
    table.set_rows(rows + static_cast<int64_t>(Below(rng_, 3)));
    table.set_dim(static_cast<uint32_t>(dim));
    std::string tensor = absl::StrCat("table.", table.name());
    if (Chance(rng_, 0.3)) {  // a window on a tensor that others look at, too
      tensor = absl::StrCat("windows.", dim);
      table.set_tensor(tensor);
      table.set_row_offset(table_data_[tensor].rows + static_cast<int64_t>(Below(rng_, 3)));
    }
    table_data_[tensor] = {table.row_offset() + table.rows(), static_cast<int64_t>(dim)};
    return table.name();
  }

  void TableData() {
    for (const auto& [name, data] : table_data_) {
      const DataType type = Pick(rng_, {DataType::kF32, DataType::kF32, DataType::kF16, DataType::kBF16});
      const double sigma = data.dim == 1 ? 0.5 : Pick(rng_, {0.3, 1.0});
      model_.AddWeights(name, {data.rows, data.dim}, Normals(rng_, data.rows * data.dim, sigma), type);
    }
  }

  // --- Sequences and features -----------------------------------------------------------------------------------------

  void Sequences() {
    const size_t sequences = Between(rng_, 1, 2);
    for (size_t s = 0; s < sequences; ++s) {
      v1::SequenceSpec& sequence = *spec().add_sequences();
      sequence.set_name(absl::StrCat("seq", s));
      sequence.set_max_length(static_cast<uint32_t>(Between(rng_, 1, options_.positions)));
      sequence.set_keep(Pick(rng_, {v1::KEEP_LAST, v1::KEEP_FIRST}));
      sequence.set_invalid(Chance(rng_, 0.7) ? v1::SequenceSpec::DROP : v1::SequenceSpec::PARTICIPATE);
      if (Chance(rng_, 0.5)) sequence.set_padded_length(sequence.max_length() + Below(rng_, 4));
      has_padding_.push_back(Chance(rng_, 0.6) || sequence.invalid() == v1::SequenceSpec::PARTICIPATE);
    }
  }

  int SequenceOf(const v1::Feature& feature) const {
    for (int s = 0; s < model_.spec.sequences_size(); ++s) {
      if (model_.spec.sequences(s).name() == feature.sequence()) return s;
    }
    return kNone;
  }

  bool IsKey(const v1::Feature& feature) {  // of some side table
    return std::any_of(spec().features().begin(), spec().features().end(),
                       [&](const v1::Feature& f) { return f.side().key() == feature.name(); });
  }

  // Features of one place that requests send.
  std::vector<int> SentIds(v1::Scope scope, int sequence) {
    std::vector<int> out;
    for (int f = 0; f < spec().features_size(); ++f) {
      const v1::Feature& feature = spec().features(f);
      if (feature.scope() == scope && SequenceOf(feature) == sequence && feature.kind() == v1::ID &&
          !feature.has_side()) {
        out.push_back(f);
      }
    }
    return out;
  }

  const v1::IdMap& MapOf(const v1::Feature& feature) {
    return *std::find_if(spec().id_maps().begin(), spec().id_maps().end(),
                         [&](const v1::IdMap& map) { return map.name() == feature.id_map(); });
  }

  // A new feature, by index: adding the next one may move it.
  int AddFeature(v1::Scope scope, int sequence, v1::FeatureKind kind, size_t width = 0) {
    const std::vector<int> keys = SentIds(scope, sequence);
    v1::Feature& feature = *spec().add_features();
    feature.set_name(absl::StrCat("f", spec().features_size() - 1));
    feature.set_scope(scope);
    feature.set_kind(kind);
    if (scope == v1::SEQUENCE) feature.set_sequence(spec().sequences(sequence).name());
    if (kind == v1::DENSE) {
      feature.set_width(static_cast<uint32_t>(width));
    } else {
      IdsOf(feature, sequence);
    }
    if (kind == v1::ID_LIST && Chance(rng_, 0.4)) {
      feature.set_max_length(static_cast<uint32_t>(Between(rng_, 1, 4)));
      feature.set_keep(Pick(rng_, {v1::KEEP_LAST, v1::KEEP_FIRST}));
    }
    if (!keys.empty() && Chance(rng_, 0.35)) {
      FromSideTable(feature, spec().features(keys[Below(rng_, keys.size())]));
    }
    return spec().features_size() - 1;
  }

  void IdsOf(v1::Feature& feature, int sequence) {
    const v1::IdMap& map = spec().id_maps(static_cast<int>(Below(rng_, spec().id_maps_size())));
    feature.set_id_map(map.name());
    const bool must = sequence != kNone && has_padding_[sequence];
    if (!must && Chance(rng_, 0.6)) return;
    if (Chance(rng_, 0.2)) {
      feature.mutable_padding()->set_zero_vector(true);
      return;
    }
    const RawId id = KnownId(rng_, map, model_.tensors);
    if (map.id_type() == v1::INT64) {
      feature.mutable_padding()->set_id(id.number);
    } else {
      feature.mutable_padding()->set_key(id.text);
    }
    if (feature.scope() == v1::SEQUENCE && feature.kind() == v1::ID && Chance(rng_, 0.5)) {
      spec().mutable_sequences(sequence)->add_valid_when_not_padding(feature.name());
    }
  }

  // --- Side tables ----------------------------------------------------------------------------------------------------

  void FromSideTable(v1::Feature& feature, const v1::Feature& key) {
    if (feature.kind() == v1::ID_LIST && MapOf(feature).id_type() == v1::STRING) return;  // no such side tables
    v1::SideTable& table = *spec().add_side_tables();
    table.set_name(absl::StrCat("side", spec().side_tables_size() - 1));
    table.set_kind(feature.kind());
    SideKeys(table, key);
    SideValues(table, feature);
    feature.mutable_side()->set_side_table(table.name());
    feature.mutable_side()->set_key(key.name());
  }

  void SideKeys(v1::SideTable& table, const v1::Feature& key) {
    const v1::IdMap& map = MapOf(key);
    table.set_key_type(map.id_type());
    // An identity's ids are all there, so nothing needs to be missing; of others only some ids are.
    const bool all = map.has_identity();
    table.set_missing_key(all && Chance(rng_, 0.5) ? v1::SideTable::MISSING_KEY_ERROR
                                                   : v1::SideTable::MISSING_KEY_ZERO);
    std::vector<int64_t> numbers;
    std::vector<std::string> texts;
    if (all) {
      numbers.resize(map.identity().size());
      std::iota(numbers.begin(), numbers.end(), map.identity().first());
      std::shuffle(numbers.begin(), numbers.end(), rng_);
    }
    for (int i = 0; !all && i < 20; ++i) {
      const RawId id = KnownId(rng_, map, model_.tensors);
      if (std::find(numbers.begin(), numbers.end(), id.number) == numbers.end()) numbers.push_back(id.number);
      if (std::find(texts.begin(), texts.end(), id.text) == texts.end()) texts.push_back(id.text);
    }
    table.set_rows(map.id_type() == v1::INT64 ? numbers.size() : texts.size());
    const std::string name = absl::StrCat("side.", table.name(), ".keys");
    if (map.id_type() == v1::STRING) {
      model_.AddStrings(name, texts);
    } else if (!all || map.identity().first() != 0 || Chance(rng_, 0.5)) {
      model_.AddIntegers(name, numbers, Pick(rng_, {DataType::kI64, DataType::kI32}));
    }
  }

  void SideValues(v1::SideTable& table, const v1::Feature& feature) {
    const std::string name = absl::StrCat("side.", table.name());
    const auto rows = static_cast<size_t>(table.rows());
    if (feature.kind() == v1::DENSE) {
      table.set_width(feature.width());
      model_.AddWeights(name + ".values", {table.rows(), feature.width()}, Normals(rng_, rows * feature.width(), 1));
      return;
    }
    const v1::IdMap& map = MapOf(feature);
    table.set_value_type(map.id_type());
    std::vector<int64_t> numbers;
    std::vector<std::string> texts;
    std::vector<int64_t> offsets = {0};
    for (size_t r = 0; r < rows; ++r) {
      const size_t ids = feature.kind() == v1::ID ? 1 : Below(rng_, 4);
      for (size_t i = 0; i < ids; ++i) {
        const RawId id = KnownId(rng_, map, model_.tensors);
        numbers.push_back(id.number);
        texts.push_back(id.text);
      }
      offsets.push_back(static_cast<int64_t>(numbers.size()));
    }
    if (map.id_type() == v1::STRING) {
      model_.AddStrings(name + ".values", texts);
    } else {
      model_.AddIntegers(name + ".values", numbers);
    }
    if (feature.kind() == v1::ID_LIST) model_.AddIntegers(name + ".offsets", offsets);
  }

  // --- Slots ----------------------------------------------------------------------------------------------------------

  // A slot of this width over new features or old ones. Returns its name.
  std::string AddSlot(v1::Scope scope, int sequence, size_t width) {
    v1::Slot slot;
    slot.set_name(absl::StrCat("slot", spec().slots_size()));
    const std::vector<int> sent = SentIds(scope, sequence);
    const size_t kind = sent.empty() ? 0 : Below(rng_, 10);  // requests must send something in every scope
    if (kind <= 5) {
      Embed(*slot.mutable_embed(), scope, sequence, width, sent);
    } else if (kind <= 7) {
      Pool(*slot.mutable_pool(), scope, sequence, width);
    } else if (kind == 8) {
      slot.mutable_dense()->set_feature(spec().features(AddFeature(scope, sequence, v1::DENSE, width)).name());
    } else {
      Scaled(*slot.mutable_scaled(), scope, sequence, width, sent);
    }
    *spec().add_slots() = slot;
    if (scope != v1::SEQUENCE) vectors_.push_back({slot.name(), width});
    return slot.name();
  }

  int IdFeature(v1::Scope scope, int sequence, const std::vector<int>& sent) {
    if (!sent.empty() && Chance(rng_, 0.4)) return sent[Below(rng_, sent.size())];
    return AddFeature(scope, sequence, v1::ID);
  }

  void Embed(v1::Slot::Embed& embed, v1::Scope scope, int sequence, size_t width, const std::vector<int>& sent) {
    const int feature = IdFeature(scope, sequence, sent);
    embed.set_feature(spec().features(feature).name());
    embed.set_table(TableFor(MapOf(spec().features(feature)), width));
  }

  void Pool(v1::Slot::Pool& pool, v1::Scope scope, int sequence, size_t width) {
    const v1::Feature& feature = spec().features(AddFeature(scope, sequence, v1::ID_LIST));
    pool.set_feature(feature.name());
    pool.set_table(TableFor(MapOf(feature), width));
    pool.set_kind(Pick(rng_, {v1::Slot::Pool::MEAN, v1::Slot::Pool::SUM, v1::Slot::Pool::MAX}));
    pool.set_skip_padding(feature.has_padding() && !feature.padding().has_zero_vector() && Chance(rng_, 0.7));
    if (pool.kind() == v1::Slot::Pool::MEAN) pool.set_divisor_epsilon(Pick(rng_, {0.0, 1e-8, 0.5}));
    if (pool.kind() != v1::Slot::Pool::SUM) pool.set_empty_value(Pick(rng_, {0.0, -1.5}));
  }

  void Scaled(v1::Slot::Scaled& scaled, v1::Scope scope, int sequence, size_t width, const std::vector<int>& sent) {
    scaled.set_value(spec().features(AddFeature(scope, sequence, v1::DENSE, 1)).name());
    if (Chance(rng_, 0.5)) {
      scaled.set_table(TableOf(1, width));
      return;
    }
    const int feature = IdFeature(scope, sequence, sent);
    scaled.set_feature(spec().features(feature).name());
    scaled.set_table(TableFor(MapOf(spec().features(feature)), width));
  }

  // --- Layers ---------------------------------------------------------------------------------------------------------

  double Epsilon() { return Pick(rng_, {1e-3, 1e-5, 1e-8, 1e-9}); }

  void RandomBatchNorm(v1::BatchNorm& bn) {
    bn.set_eps(Epsilon());
    bn.set_affine(Chance(rng_, 0.6));
  }

  void RandomActivation(v1::Activation& activation) {
    using A = v1::Activation;
    activation.set_kind(Pick(rng_, {A::NONE, A::RELU, A::SIGMOID, A::TANH, A::PRELU, A::LEAKY_RELU, A::SILU, A::DICE,
                                    A::DICE, A::DICE}));
    if (activation.kind() == A::LEAKY_RELU) activation.set_leaky_slope(Uniform(rng_, -0.3, 0.5));
    if (activation.kind() == A::DICE) RandomDice(*activation.mutable_dice());
  }

  void RandomDice(v1::Dice& dice) {
    using D = v1::Dice;
    dice.set_statistics(Pick(rng_, {D::RUNNING, D::RUNNING, D::IDENTITY, D::PER_ROW}));
    if (dice.statistics() == D::RUNNING) {
      dice.set_eps(Epsilon());
      dice.set_affine(Chance(rng_, 0.5));
      dice.set_slope(Chance(rng_, 0.3));
    } else if (dice.statistics() == D::PER_ROW) {
      dice.set_eps(1e-3);
    }
    dice.set_alpha(Chance(rng_, 0.7) ? D::ALPHA_TENSOR : D::ALPHA_CONSTANT);
    if (dice.alpha() == D::ALPHA_CONSTANT) dice.set_alpha_value(Pick(rng_, {0.0, 0.2, -0.4}));
  }

  template <typename Layers>
  void RandomLayers(size_t least, size_t most, Layers* layers) {
    const size_t n = Between(rng_, least, most);
    for (size_t i = 0; i < n; ++i) {
      v1::Layer& layer = *layers->Add();
      layer.set_units(static_cast<uint32_t>(Between(rng_, 1, options_.units)));
      layer.set_bias(Chance(rng_, 0.8));
      if (Chance(rng_, 0.3)) RandomBatchNorm(*layer.mutable_bn());
      RandomActivation(*layer.mutable_activation());
      if (Chance(rng_, 0.15)) RandomBatchNorm(*layer.mutable_out_bn());
    }
  }

  // --- The network ----------------------------------------------------------------------------------------------------

  void Attentions() {
    const size_t attentions = Pick<size_t>(rng_, {0, 1, 1, 1, 1, 2, 3});
    for (size_t g = 0; g < attentions; ++g) Attention(static_cast<int>(g));
  }

  void Attention(int g) {
    using A = v1::Attention;
    v1::Attention attention;
    const int s = static_cast<int>(Below(rng_, spec().sequences_size()));
    attention.set_name(absl::StrCat("attention", g));
    attention.set_sequence(spec().sequences(s).name());
    const size_t width = QueryAndKey(attention, s);
    const size_t pieces = Between(rng_, 1, 5);
    for (size_t i = 0; i < pieces; ++i) {
      attention.add_input(Pick(rng_, {A::Q, A::K, A::Q_MINUS_K, A::K_MINUS_Q, A::Q_TIMES_K}));
    }
    RandomLayers(1, 3, attention.mutable_layers());
    attention.set_out_bias(Chance(rng_, 0.8));
    attention.set_scale(Pick(rng_, {A::SCALE_NONE, A::SCALE_INVERSE_SQRT_WIDTH}));
    attention.set_out_activation(attention.scale() == A::SCALE_NONE && Chance(rng_, 0.3) ? v1::Activation::SIGMOID
                                                                                        : v1::Activation::NONE);
    attention.set_normalise(Pick(rng_, {A::NORMALISE_NONE, A::NORMALISE_SOFTMAX, A::NORMALISE_SIGMOID}));
    const bool may_be_mean = attention.normalise() == A::NORMALISE_SOFTMAX && has_padding_[s];
    attention.set_empty(may_be_mean && Chance(rng_, 0.6) ? A::EMPTY_POSITIONS_MEAN : A::EMPTY_ZERO);
    size_t value_width = width;
    if (Chance(rng_, 0.3)) value_width = Post(*attention.mutable_post(), width);
    AttentionWeights(g, attention, width);
    *spec().add_attentions() = attention;
    vectors_.push_back({attention.name(), value_width});
    attention_vectors_.push_back(vectors_.back());
  }

  // One to three slots of the sequence, and slots of the same widths for the query, perhaps not all of them.
  size_t QueryAndKey(v1::Attention& attention, int sequence) {
    const size_t parts = Between(rng_, 1, 3);
    const bool zero_pad = parts > 1 && Chance(rng_, 0.3);
    attention.set_query_width(zero_pad ? v1::Attention::QUERY_WIDTH_ZERO_PAD : v1::Attention::QUERY_WIDTH_EQUAL);
    size_t width = 0;
    for (size_t i = 0; i < parts; ++i) {
      const size_t w = Width();
      width += w;
      attention.add_key(AddSlot(v1::SEQUENCE, sequence, w));
      if (i == 0 || !zero_pad) {
        attention.add_query(AddSlot(i == 0 || Chance(rng_, 0.8) ? v1::CANDIDATE : v1::USER, kNone, w));
      }
    }
    return width;
  }

  // Returns the width that it leaves.
  size_t Post(v1::Attention::Post& post, size_t width) {
    const bool linear = Chance(rng_, 0.7);
    if (!linear || Chance(rng_, 0.5)) RandomBatchNorm(*post.mutable_bn());
    if (!linear) return width;
    post.set_units(static_cast<uint32_t>(Width()));
    post.set_bias(Chance(rng_, 0.5));
    return post.units();
  }

  void AttentionWeights(int g, const v1::Attention& attention, size_t width) {
    const std::string prefix = absl::StrCat("att", g);
    const std::vector<double> input(attention.input_size() * width, 1);
    const std::vector<double> hidden = layers_.LayerStack(prefix, attention.layers(), input);
    // Without a normalisation as many weights as there are positions add up.
    const double scale = attention.normalise() == v1::Attention::NORMALISE_NONE ? 0.3 : 1.5;
    layers_.Linear(prefix + ".out", hidden, {scale}, attention.out_bias());
    const v1::Attention::Post& post = attention.post();
    std::vector<double> pooled(width, 1);
    if (post.has_bn()) pooled = layers_.BatchNorm(prefix + ".post.bn", post.bn(), pooled);
    if (post.units() > 0) {
      layers_.Linear(prefix + ".post", pooled, std::vector<double>(post.units(), 1), post.bias());
    }
  }

  void SequencePools() {
    if (!Chance(rng_, 0.4)) return;
    const int s = static_cast<int>(Below(rng_, spec().sequences_size()));
    v1::SequencePool pool;
    pool.set_name("pool");
    pool.set_sequence(spec().sequences(s).name());
    pool.set_kind(Pick(rng_, {v1::SequencePool::SUM, v1::SequencePool::MEAN}));
    if (pool.kind() == v1::SequencePool::MEAN) pool.set_divisor_epsilon(Pick(rng_, {0.0, 1e-8, 0.5}));
    size_t width = 0;
    const size_t parts = Between(rng_, 1, 2);
    for (size_t i = 0; i < parts; ++i) {
      const size_t w = Width();
      pool.add_key(AddSlot(v1::SEQUENCE, s, w));
      width += w;
    }
    *spec().add_sequence_pools() = pool;
    vectors_.push_back({pool.name(), width});
  }

  struct NamedVector {
    std::string name;
    size_t width;
  };

  // Refers to `width` elements of the vector, or to all of them.
  void Refer(const NamedVector& vector, size_t width, v1::VectorRef& ref) {
    ref.set_name(vector.name);
    if (width == vector.width) return;
    const size_t begin = Below(rng_, vector.width - width + 1);
    ref.set_begin(static_cast<uint32_t>(begin));
    ref.set_end(static_cast<uint32_t>(begin + width));
  }

  template <typename Terms>
  size_t AddTerm(const NamedVector& a, Terms* terms) {
    v1::Term& term = *terms->Add();
    size_t width = a.width;
    if (Chance(rng_, 0.3)) {
      const NamedVector& b = vectors_[Below(rng_, vectors_.size())];
      width = std::min(width, b.width);
      Refer(b, width, *term.mutable_b());
    } else if (Chance(rng_, 0.2)) {
      width = Between(rng_, 1, width);
    }
    Refer(a, width, *term.mutable_a());
    return width;
  }

  void PreTowers() {
    const size_t towers = Pick<size_t>(rng_, {0, 0, 0, 1, 2});
    std::vector<NamedVector> made;
    for (size_t p = 0; p < towers; ++p) {
      v1::PreTower pre;
      pre.set_name(absl::StrCat("pre", p));
      size_t width = 0;
      const size_t terms = Between(rng_, 1, 3);
      for (size_t i = 0; i < terms; ++i) width += AddTerm(vectors_[Below(rng_, vectors_.size())], pre.mutable_input());
      const bool only_bn = Chance(rng_, 0.15);
      if (only_bn || Chance(rng_, 0.3)) RandomBatchNorm(*pre.mutable_in_bn());
      if (!only_bn) RandomLayers(1, 2, pre.mutable_layers());
      const size_t out = NetworkWeights(pre.name(), pre, width).size();
      made.push_back({pre.name(), out});
      *spec().add_pre_towers() = pre;
    }
    vectors_.insert(vectors_.end(), made.begin(), made.end());
  }

  template <typename Network>
  std::vector<double> NetworkWeights(const std::string& prefix, const Network& network, size_t width) {
    std::vector<double> scale(width, 1);
    if (network.has_in_bn()) scale = layers_.BatchNorm(prefix + ".in_bn", network.in_bn(), scale);
    return layers_.LayerStack(prefix, network.layers(), scale);
  }

  void Tower() {
    v1::Tower& tower = *spec().mutable_tower();
    size_t width = 0;
    for (const NamedVector& attention : attention_vectors_) width += AddTerm(attention, tower.mutable_input());
    const size_t terms = Between(rng_, 1, 5);
    for (size_t i = 0; i < terms; ++i) width += AddTerm(vectors_[Below(rng_, vectors_.size())], tower.mutable_input());
    if (Chance(rng_, 0.4)) RandomBatchNorm(*tower.mutable_in_bn());
    RandomLayers(0, 3, tower.mutable_layers());
    tower.set_head_bias(Chance(rng_, 0.6));
    tower.set_classes(Chance(rng_, 0.7) ? 1 : 2);
    if (tower.classes() == 2) tower.set_positive_class(static_cast<uint32_t>(Below(rng_, 2)));
    tower.set_global_bias(Chance(rng_, 0.3));
    const std::vector<double> hidden = NetworkWeights("tower", tower, width);
    layers_.Linear("head", hidden, std::vector<double>(tower.classes(), 1.5), tower.head_bias());
    if (tower.global_bias()) model_.AddWeights("bias.global", {1}, Normals(rng_, 1, 0.5));
    for (v1::Scope scope : {v1::USER, v1::CANDIDATE}) IdBias(scope, tower);
  }

  void IdBias(v1::Scope scope, v1::Tower& tower) {
    const std::vector<int> sent = SentIds(scope, kNone);
    if (sent.empty() || !Chance(rng_, 0.3)) return;
    const v1::Feature& feature = spec().features(sent[Below(rng_, sent.size())]);
    v1::Tower::IdBias& bias = *tower.add_id_biases();
    bias.set_feature(feature.name());
    bias.set_table(TableFor(MapOf(feature), 1));
  }

  void Labels() {
    if (!Chance(rng_, 0.2)) return;
    const v1::Feature& feature = spec().features(SentIds(v1::CANDIDATE, kNone).front());
    v1::SideTable& table = *spec().add_side_tables();
    table.set_name("titles");
    table.set_kind(v1::ID);
    table.set_value_type(v1::STRING);
    SideKeys(table, feature);
    table.set_missing_key(v1::SideTable::MISSING_KEY_ZERO);
    std::vector<std::string> titles;
    for (int64_t i = 0; i < table.rows(); ++i) titles.push_back(absl::StrCat("Title ", i));
    model_.AddStrings("side.titles.values", titles);
    spec().add_labels()->set_feature(feature.name());
    spec().mutable_labels(0)->set_side_table("titles");
  }

  // Other requests than these must stay within |logit| <= 15, and some are far out.
  void BoundLogits() {
    double largest = 0;
    for (size_t behaviours : {size_t{0}, size_t{3}, options_.positions}) {
      for (double logit : Evaluate(rng_, model_, 4, {4, behaviours, 4}).logits) {
        largest = std::max(largest, std::fabs(logit));
      }
    }
    if (largest <= 3) return;
    for (const char* name : {"head.w", "head.b", "bias.global"}) Scale(model_, name, 3 / largest);
  }

  Rng rng_;
  const RandomModelOptions options_;
  RawModel model_;
  LayerBuilder layers_;
  std::map<std::string, TensorData> table_data_;
  std::vector<bool> has_padding_;  // per sequence: its features say what padding is
  std::vector<NamedVector> vectors_;
  std::vector<NamedVector> attention_vectors_;
};

// ---------------------------------------------------------------------------------------------------------------------
// The shapes of the benchmarks

class BenchBuilder {
 public:
  explicit BenchBuilder(const BenchModelOptions& options)
      : rng_(options.seed), options_(options), layers_(rng_, model_) {
    model_.spec.set_format(1);
    v1::SequenceSpec& sequence = *model_.spec.add_sequences();
    sequence.set_name("hist");
    sequence.set_max_length(1u << 14);
    sequence.set_keep(v1::KEEP_LAST);
    sequence.set_invalid(v1::SequenceSpec::DROP);
  }

  RawModel Paper() {
    model_.spec.set_description("the paper's shape, random weights");
    Field("item", options_.item_rows, 64);
    Field("category", options_.category_rows, 64);
    Attention({80, 40}, false);
    v1::Tower& tower = *model_.spec.mutable_tower();
    tower.add_input()->mutable_a()->set_name("interest");
    for (const char* field : {"item", "category"}) tower.add_input()->mutable_a()->set_name(field);
    for (uint32_t i = 0; i < 2; ++i) {
      v1::Term& product = *tower.add_input();
      product.mutable_a()->set_name("interest");
      product.mutable_a()->set_begin(64 * i);
      product.mutable_a()->set_end(64 * (i + 1));
      product.mutable_b()->set_name(i == 0 ? "item" : "category");
    }
    tower.mutable_in_bn()->set_eps(1e-3);
    tower.mutable_in_bn()->set_affine(true);
    return Finish({80, 40}, 384);
  }

  RawModel Compact() {
    model_.spec.set_description("a compact shape, random weights");
    Field("item", options_.item_rows, 12);
    Field("shop", options_.category_rows, 12);
    Field("category", options_.category_rows, 12);
    Attention({36}, true);
    v1::Tower& tower = *model_.spec.mutable_tower();
    for (const char* name : {"interest", "item", "shop", "category"}) tower.add_input()->mutable_a()->set_name(name);
    for (int i = 0; i < 10; ++i) {
      const std::string name = absl::StrCat("user", i);
      Feature(name, name, options_.category_rows, 12, v1::USER);
      tower.add_input()->mutable_a()->set_name(name);
    }
    return Finish({200, 80}, 192);
  }

 private:
  void Feature(const std::string& name, const std::string& table, int64_t rows, uint32_t dim, v1::Scope scope) {
    v1::ModelSpec& spec = model_.spec;
    if (model_.tensors.count("table." + table) == 0) {
      v1::IdMap& map = *spec.add_id_maps();
      map.set_name(table);
      map.set_id_type(v1::INT64);
      map.mutable_identity()->set_size(rows);
      map.set_out_of_vocabulary(v1::IdMap::ZERO);
      v1::Table& t = *spec.add_tables();
      t.set_name(table);
      t.set_rows(rows);
      t.set_dim(dim);
      model_.AddWeights("table." + table, {rows, dim}, Normals(rng_, rows * dim, 1));
    }
    v1::Feature& feature = *spec.add_features();
    feature.set_name(name);
    feature.set_scope(scope);
    feature.set_kind(v1::ID);
    feature.set_id_map(table);
    if (scope == v1::SEQUENCE) feature.set_sequence("hist");
    v1::Slot& slot = *spec.add_slots();
    slot.set_name(name);
    slot.mutable_embed()->set_feature(name);
    slot.mutable_embed()->set_table(table);
  }

  // Of candidate and behaviours, with one table.
  void Field(const std::string& name, int64_t rows, uint32_t dim) {
    Feature(name, name, rows, dim, v1::CANDIDATE);
    Feature("hist_" + name, name, rows, dim, v1::SEQUENCE);
    query_.push_back(name);
    width_ += dim;
  }

  static void SetDice(v1::Activation& activation) {
    activation.set_kind(v1::Activation::DICE);
    activation.mutable_dice()->set_statistics(v1::Dice::RUNNING);
    activation.mutable_dice()->set_eps(1e-8);
    activation.mutable_dice()->set_alpha(v1::Dice::ALPHA_TENSOR);
  }

  template <typename Layers>
  static void AddLayers(const std::vector<uint32_t>& units, bool dice, Layers* layers) {
    for (uint32_t u : units) {
      v1::Layer& layer = *layers->Add();
      layer.set_units(u);
      layer.set_bias(true);
      layer.mutable_activation()->set_kind(v1::Activation::SIGMOID);
      if (dice) SetDice(*layer.mutable_activation());
    }
  }

  void Attention(const std::vector<uint32_t>& units, bool dice) {
    using A = v1::Attention;
    v1::Attention& attention = *model_.spec.add_attentions();
    attention.set_name("interest");
    attention.set_sequence("hist");
    for (const std::string& field : query_) {
      attention.add_query(field);
      attention.add_key("hist_" + field);
    }
    attention.set_query_width(A::QUERY_WIDTH_EQUAL);
    for (A::Piece piece : {A::Q, A::K, A::Q_MINUS_K, A::Q_TIMES_K}) attention.add_input(piece);
    AddLayers(units, dice, attention.mutable_layers());
    attention.set_out_bias(true);
    attention.set_out_activation(v1::Activation::NONE);
    attention.set_scale(A::SCALE_NONE);
    attention.set_normalise(A::NORMALISE_NONE);
    attention.set_empty(A::EMPTY_ZERO);
    const std::vector<double> hidden =
        layers_.LayerStack("att0", attention.layers(), std::vector<double>(4 * width_, 1));
    layers_.Linear("att0.out", hidden, {1}, true);
  }

  RawModel Finish(const std::vector<uint32_t>& units, size_t width) {
    v1::Tower& tower = *model_.spec.mutable_tower();
    tower.set_head_bias(true);
    tower.set_classes(1);
    AddLayers(units, true, tower.mutable_layers());
    std::vector<double> scale(width, 1);
    if (tower.has_in_bn()) scale = layers_.BatchNorm("tower.in_bn", tower.in_bn(), scale);
    layers_.Linear("head", layers_.LayerStack("tower", tower.layers(), scale), {1}, true);
    Calibrate();
    return std::move(model_);
  }

  // First the pooled vector to magnitude 1 at this many behaviours, then the logits to a mean of 0 and a spread of 1.5.
  void Calibrate() {
    const RequestSize size{2, options_.behaviours, 0};
    constexpr size_t kWeightRequests = 16;
    const std::vector<double> weights = Evaluate(rng_, model_, kWeightRequests, size).weights[0];
    const double squares = std::inner_product(weights.begin(), weights.end(), weights.begin(), 0.0);
    const double length = std::sqrt(squares / static_cast<double>(kWeightRequests * size.candidates));
    for (const char* name : {"att0.out.w", "att0.out.b"}) Scale(model_, name, 1 / length);

    constexpr size_t kLogitRequests = 64;  // logits differ most between users
    const std::vector<double> logits = Evaluate(rng_, model_, kLogitRequests, size).logits;
    const auto n = static_cast<double>(logits.size());
    const double mean = std::accumulate(logits.begin(), logits.end(), 0.0) / n;
    double variance = 0;
    for (double logit : logits) variance += (logit - mean) * (logit - mean) / n;
    model_.Floats("head.b")[0] -= static_cast<float>(mean);
    for (const char* name : {"head.w", "head.b"}) Scale(model_, name, 1.5 / std::sqrt(variance));
  }

  Rng rng_;
  const BenchModelOptions options_;
  RawModel model_;
  LayerBuilder layers_;
  std::vector<std::string> query_;
  size_t width_ = 0;
};

}  // namespace

void RawModel::AddWeights(const std::string& name, std::initializer_list<int64_t> shape,
                          std::span<const double> values, DataType type) {
  Tensor tensor;
  tensor.type = type;
  tensor.shape = shape;
  tensor.bytes = values.size() * SizeOf(type);
  if (static_cast<size_t>(tensor.elements()) != values.size()) Die(name + ": shape and values");
  memory.push_back(std::make_unique<std::byte[]>(tensor.bytes));
  std::byte* out = memory.back().get();
  for (double value : values) {
    const auto number = static_cast<float>(value);
    if (type == DataType::kF32) {
      std::memcpy(out, &number, sizeof number);
    } else {
      const uint16_t half = type == DataType::kF16 ? ToF16(number) : ToBf16(number);
      std::memcpy(out, &half, sizeof half);
    }
    out += SizeOf(type);
  }
  tensor.data = memory.back().get();
  if (!tensors.emplace(name, tensor).second) Die(name + " is there twice");
}

void RawModel::AddIntegers(const std::string& name, std::span<const int64_t> values, DataType type) {
  Tensor tensor;
  tensor.type = type;
  tensor.shape = {static_cast<int64_t>(values.size())};
  tensor.bytes = values.size() * SizeOf(type);
  memory.push_back(std::make_unique<std::byte[]>(tensor.bytes));
  std::byte* out = memory.back().get();
  for (int64_t value : values) {
    std::memcpy(out, &value, SizeOf(type));  // little-endian: an int32 is the lower half
    out += SizeOf(type);
  }
  tensor.data = memory.back().get();
  if (!tensors.emplace(name, tensor).second) Die(name + " is there twice");
}

void RawModel::AddStrings(const std::string& name, std::span<const std::string> values) {
  std::string bytes;
  std::vector<int64_t> offsets = {0};
  for (const std::string& value : values) {
    bytes += value;
    offsets.push_back(static_cast<int64_t>(bytes.size()));
  }
  Tensor tensor;
  tensor.type = DataType::kU8;
  tensor.shape = {static_cast<int64_t>(bytes.size())};
  tensor.bytes = bytes.size();
  memory.push_back(std::make_unique<std::byte[]>(bytes.size()));
  std::memcpy(memory.back().get(), bytes.data(), bytes.size());
  tensor.data = memory.back().get();
  tensors.emplace(name + ".bytes", tensor);
  AddIntegers(name + ".offsets", offsets);
}

std::span<float> RawModel::Floats(std::string_view name) {
  const auto it = tensors.find(name);
  if (it == tensors.end() || it->second.type != DataType::kF32) Die(std::string(name) + ": no such F32 tensor");
  // Tensors are borrowed as const; these bytes are ours.
  auto* data = reinterpret_cast<float*>(const_cast<std::byte*>(it->second.data));
  return {data, it->second.bytes / sizeof(float)};
}

RawModel RandomModel(uint64_t seed, const RandomModelOptions& options) { return ModelBuilder(seed, options).Build(); }

v1::GoldenCase RandomRequest(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size) {
  return RequestBuilder(rng, spec, tensors, size).Build();
}

ScoringInput DecodeOrDie(const InputDecoder& decoder, const v1::GoldenCase& request) {
  ScoringInput input;
  const absl::Status decoded =
      decoder.Decode({request.features(), request.sequences(), request.candidates()}, InputLimits(), input);
  if (!decoded.ok()) Die(decoded.ToString());
  return input;
}

RawModel PaperModel(const BenchModelOptions& options) { return BenchBuilder(options).Paper(); }
RawModel CompactModel(const BenchModelOptions& options) { return BenchBuilder(options).Compact(); }

}  // namespace din::testing
