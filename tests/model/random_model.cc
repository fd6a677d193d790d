#include "tests/model/random_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/resolved_spec.h"
#include "tests/model/random_layers.h"
#include "tests/model/random_request.h"

namespace din::testing {
namespace {

class ModelBuilder {
 public:
  ModelBuilder(uint64_t seed, const RandomModelOptions& options)
      : rng_(seed), options_(options), layers_(rng_, model_) {
    spec().set_format(1);
    spec().set_description(absl::StrCat("random model, seed ", seed));
    spec().set_precision(static_cast<v1::Precision>(seed % v1::Precision_ARRAYSIZE));
    if (spec().precision() == v1::PRECISION_BF16) spec().set_bf16_tolerance(0.01);
  }

  RawModel Build() {
    IdMaps();
    Sequences();
    const size_t slots = Between(rng_, 1, 4);
    for (size_t i = 0; i < slots; ++i) AddSlot(i == 0 ? v1::CANDIDATE : UserOrCandidate(), kNone, Width());
    Attentions();
    SequencePools();
    LengthsOf();
    Interactions();
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

  // --- Ids -----------------------------------------------------------------------------------------------------------

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

  // --- Tables --------------------------------------------------------------------------------------------------------

  struct TensorData {
    int64_t rows = 0;
    int64_t dim = 0;
  };

  // A table of this width for the ids of `map`; sometimes one that is there already.
  std::string TableFor(const v1::IdMap& map, size_t dim) { return TableOf(RowsNeeded(map, model_.tensors), dim); }

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
      const DataType type =
          Pick(rng_, {DataType::kF32, DataType::kF32, DataType::kF16, DataType::kBF16, DataType::kI8});
      const double sigma = data.dim == 1 ? 0.5 : Pick(rng_, {0.3, 1.0});
      model_.AddWeights(name, {data.rows, data.dim}, Normals(rng_, data.rows * data.dim, sigma), type);
    }
  }

  // --- Sequences and features ----------------------------------------------------------------------------------------

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
    if (feature.scope() == v1::SEQUENCE && feature.kind() == v1::ID && spec().sequences(sequence).length_of().empty() &&
        Chance(rng_, 0.5)) {
      spec().mutable_sequences(sequence)->add_valid_when_not_padding(feature.name());
    }
  }

  // --- Side tables ---------------------------------------------------------------------------------------------------

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

  // --- Slots ---------------------------------------------------------------------------------------------------------

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

  // --- Layers --------------------------------------------------------------------------------------------------------

  double Epsilon() { return Pick(rng_, {1e-3, 1e-5, 1e-8, 1e-9}); }

  void DrawBatchNorm(v1::BatchNorm& bn) {
    bn.set_eps(Epsilon());
    bn.set_affine(Chance(rng_, 0.6));
  }

  void DrawActivation(v1::Activation& activation) {
    using A = v1::Activation;
    activation.set_kind(Pick(
        rng_, {A::NONE, A::RELU, A::SIGMOID, A::TANH, A::PRELU, A::LEAKY_RELU, A::SILU, A::DICE, A::DICE, A::DICE}));
    if (activation.kind() == A::LEAKY_RELU) activation.set_leaky_slope(Uniform(rng_, -0.3, 0.5));
    if (activation.kind() == A::DICE) DrawDice(*activation.mutable_dice());
  }

  void DrawDice(v1::Dice& dice) {
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
  void DrawLayers(size_t least, size_t most, Layers* layers) {
    const size_t n = Between(rng_, least, most);
    for (size_t i = 0; i < n; ++i) {
      v1::Layer& layer = *layers->Add();
      layer.set_units(static_cast<uint32_t>(Between(rng_, 1, options_.units)));
      layer.set_bias(Chance(rng_, 0.8));
      if (Chance(rng_, 0.3)) DrawBatchNorm(*layer.mutable_bn());
      DrawActivation(*layer.mutable_activation());
      if (Chance(rng_, 0.15)) DrawBatchNorm(*layer.mutable_out_bn());
    }
  }

  // --- The network ---------------------------------------------------------------------------------------------------

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
    DrawLayers(1, 3, attention.mutable_layers());
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
    if (!linear || Chance(rng_, 0.5)) DrawBatchNorm(*post.mutable_bn());
    if (!linear) return width;
    post.set_units(static_cast<uint32_t>(Width()));
    post.set_bias(Chance(rng_, 0.5));
    return post.units();
  }

  void AttentionWeights(int g, const v1::Attention& attention, size_t width) {
    const std::string prefix = absl::StrCat("att", g);
    const std::vector<double> input(attention.input_size() * width, 1);
    const std::vector<double> hidden = layers_.Stack(prefix, attention.layers(), input);
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

  // Some sequences whose features say what padding is take their length from a list of the user's.
  void LengthsOf() {
    for (int s = 0; s < spec().sequences_size(); ++s) {
      if (!has_padding_[s] || spec().sequences(s).invalid() != v1::SequenceSpec::DROP || !Chance(rng_, 0.3)) continue;
      const int list = UserList();
      v1::SequenceSpec& sequence = *spec().mutable_sequences(s);
      sequence.clear_valid_when_not_padding();
      if (sequence.padded_length() == 0) sequence.set_padded_length(sequence.max_length() + Below(rng_, 4));
      sequence.set_length_of(spec().features(list).name());
    }
  }

  // One that is there already, or a new one.
  int UserList() {
    for (int f = 0; f < spec().features_size(); ++f) {
      if (spec().features(f).scope() == v1::USER && spec().features(f).kind() == v1::ID_LIST) return f;
    }
    return AddFeature(v1::USER, kNone, v1::ID_LIST);
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

  void Interactions() {
    using I = v1::Interaction;
    const size_t interactions = Pick<size_t>(rng_, {0, 0, 1, 2});
    std::vector<NamedVector> made;
    for (size_t i = 0; i < interactions; ++i) {
      I& interaction = *spec().add_interactions();
      interaction.set_name(absl::StrCat("interaction", i));
      interaction.set_kind(Pick(rng_, {I::INNER_PRODUCTS, I::BI_INTERACTION}));
      const size_t n = Between(rng_, 2, 5);
      std::vector<NamedVector> members;
      for (size_t m = 0; m < n; ++m) members.push_back(vectors_[Below(rng_, vectors_.size())]);
      size_t width = members[0].width;
      for (const NamedVector& member : members) width = std::min(width, member.width);
      for (const NamedVector& member : members) Refer(member, width, *interaction.add_vectors());
      made.push_back({interaction.name(), interaction.kind() == I::INNER_PRODUCTS ? n * (n - 1) / 2 : width});
    }
    vectors_.insert(vectors_.end(), made.begin(), made.end());
    interactions_ = made;
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
      if (only_bn || Chance(rng_, 0.3)) DrawBatchNorm(*pre.mutable_in_bn());
      if (!only_bn) DrawLayers(1, 2, pre.mutable_layers());
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
    return layers_.Stack(prefix, network.layers(), scale);
  }

  void Tower() {
    v1::Tower& tower = *spec().mutable_tower();
    if (Chance(rng_, 0.4)) Wide(tower);
    if (!tower.wide().empty() && Chance(rng_, 0.3)) {  // LR, FM
      tower.set_classes(1);
      tower.set_global_bias(Chance(rng_, 0.7));
      LogitBiases(tower);
      return;
    }
    size_t width = 0;
    for (const NamedVector& attention : attention_vectors_) width += AddTerm(attention, tower.mutable_input());
    const size_t terms = Between(rng_, 1, 5);
    for (size_t i = 0; i < terms; ++i) width += AddTerm(vectors_[Below(rng_, vectors_.size())], tower.mutable_input());
    if (Chance(rng_, 0.4)) DrawBatchNorm(*tower.mutable_in_bn());
    DrawLayers(0, 3, tower.mutable_layers());
    tower.set_head_bias(Chance(rng_, 0.6));
    tower.set_classes(Chance(rng_, 0.7) ? 1 : 2);
    if (tower.classes() == 2) tower.set_positive_class(static_cast<uint32_t>(Below(rng_, 2)));
    tower.set_global_bias(Chance(rng_, 0.3));
    const std::vector<double> hidden = NetworkWeights("tower", tower, width);
    layers_.Linear("head", hidden, std::vector<double>(tower.classes(), 1.5), tower.head_bias());
    LogitBiases(tower);
  }

  // Weights per id, of one, of a list and of the behaviours, and whatever else there is. The first is always small.
  void Wide(v1::Tower& tower) {
    tower.add_wide()->set_name(AddSlot(UserOrCandidate(), kNone, 1));
    if (Chance(rng_, 0.5)) {
      v1::SequencePool& pool = *spec().add_sequence_pools();
      pool.set_name("wide pool");
      pool.set_sequence(spec().sequences(0).name());
      pool.set_kind(v1::SequencePool::SUM);
      pool.add_key(AddSlot(v1::SEQUENCE, 0, 1));
      tower.add_wide()->set_name(pool.name());
    }
    const size_t more = Below(rng_, 3);
    for (size_t i = 0; i < more; ++i) tower.add_wide()->set_name(AddSlot(UserOrCandidate(), kNone, 1));
    for (const NamedVector& vector : interactions_) {
      if (Chance(rng_, 0.6)) tower.add_wide()->set_name(vector.name);
    }
    if (Chance(rng_, 0.3)) {
      const NamedVector& vector = vectors_[Below(rng_, vectors_.size())];
      Refer(vector, Between(rng_, 1, vector.width), *tower.add_wide());
    }
  }

  void LogitBiases(v1::Tower& tower) {
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

  void Scale(std::string_view name, double factor) {
    if (model_.tensors.find(name) == model_.tensors.end()) return;
    for (float& v : model_.Floats(name)) v = static_cast<float>(v * factor);
  }

  double LargestLogit() {
    double largest = 0;
    for (size_t behaviours : {size_t{0}, size_t{3}, options_.positions}) {
      for (double logit : ScoreRandomRequests(rng_, model_, 4, {4, behaviours, 4}).logits) {
        largest = std::max(largest, std::fabs(logit));
      }
    }
    return largest;
  }

  // Other requests than these must stay within |logit| <= 15, and some are far out.
  void BoundLogits() {
    double largest = LargestLogit();
    if (largest <= 3) return;
    for (const char* name : {"head.w", "head.b", "bias.global"}) Scale(name, 3 / largest);
    // No weight scales the wide part.
    v1::Tower& tower = *spec().mutable_tower();
    while (tower.wide_size() > 1 && (largest = LargestLogit()) > 4) tower.mutable_wide()->RemoveLast();
  }

  Rng rng_;
  const RandomModelOptions options_;
  RawModel model_;
  RandomLayers layers_;
  std::map<std::string, TensorData> table_data_;
  std::vector<bool> has_padding_;  // per sequence: its features say what padding is
  std::vector<NamedVector> vectors_;
  std::vector<NamedVector> attention_vectors_;
  std::vector<NamedVector> interactions_;
};

}  // namespace

RawModel RandomModel(uint64_t seed, const RandomModelOptions& options) { return ModelBuilder(seed, options).Build(); }

}  // namespace din::testing
