#include "trainer/export.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <random>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model_loader/snapshot_writer.h"

namespace din {
namespace {

constexpr char kTitle[] = "item_title";  // a side table

template <typename T>
Tensor Borrow(DataType type, const std::vector<T>& values, std::vector<int64_t> shape) {
  return {.type = type,
          .shape = std::move(shape),
          .data = reinterpret_cast<const std::byte*>(values.data()),
          .bytes = values.size() * sizeof(T)};
}

// Strings as a snapshot holds them: their bytes end to end, and where each begins.
struct StringColumn {
  std::vector<char> bytes;
  std::vector<int64_t> offsets = {0};

  void Add(std::string_view s) {
    bytes.insert(bytes.end(), s.begin(), s.end());
    offsets.push_back(static_cast<int64_t>(bytes.size()));
  }
  void Publish(const std::string& name, TensorMap& out) const {
    out[name + ".bytes"] = Borrow(DataType::kU8, bytes, {static_cast<int64_t>(bytes.size())});
    out[name + ".offsets"] = Borrow(DataType::kI64, offsets, {static_cast<int64_t>(offsets.size())});
  }
};

// Raw ids of items, as int64 where all of them are.
struct ItemIds {
  std::vector<int64_t> integers;
  StringColumn strings;
  bool are_integers;

  explicit ItemIds(const Dataset& data) : are_integers(data.integer_ids) {}
  void Add(const std::string& id) {
    if (are_integers) {
      std::from_chars(id.data(), id.data() + id.size(), integers.emplace_back());
    } else {
      strings.Add(id);
    }
  }
  void Publish(const std::string& name, TensorMap& out) const {
    if (are_integers) {
      out[name] = Borrow(DataType::kI64, integers, {static_cast<int64_t>(integers.size())});
    } else {
      strings.Publish(name, out);
    }
  }
  static void AddTo(v1::Column& column, const Dataset& data, const std::string& id) {
    if (!data.integer_ids) {
      column.add_keys(id);
      return;
    }
    int64_t value = 0;
    std::from_chars(id.data(), id.data() + id.size(), value);
    column.add_ids(value);
  }
};

// --- Names ----------------------------------------------------------------------------------------------------------

// Role 0: the candidate or the side fields; 1 + s: the s-th behaviour list.
std::string FeatureName(const Dataset& data, size_t field, size_t role) {
  const std::string list = role == 0 ? "" : SequenceName(data, role - 1) + "_";
  return absl::StrCat(list, std::string(data.FieldName(field)));
}
std::string WideSlotName(const Dataset& data, size_t field, size_t role) {
  return absl::StrCat(FeatureName(data, field, role), "_weight");
}
std::string OfSequence(const char* what, const Dataset& data, size_t sequence) {
  return data.streams.empty() ? what : absl::StrCat(what, "_", SequenceName(data, sequence));
}
std::string InterestName(const Dataset& data, size_t s) { return OfSequence("interest", data, s); }
std::string PooledName(const Dataset& data, size_t s) { return OfSequence("pooled", data, s); }
std::string WidePooledName(const Dataset& data, size_t s) { return OfSequence("pooled_weight", data, s); }
std::string CategoryTableName(const Dataset& data, size_t field) {
  return absl::StrCat("item_", std::string(data.FieldName(field)));
}

// --- The pieces of the spec -----------------------------------------------------------------------------------------

class SpecMaker {
 public:
  SpecMaker(const Dataset& data, std::span<const KeptValues> kept, const ModelShape& shape)
      : data_(data), kept_(kept), shape_(shape) {}

  v1::ModelSpec Make(const std::string& description) {
    spec_.set_format(1);
    spec_.set_description(description);
    AddIdMapsAndTables();
    AddSideTables();
    AddSequences();
    AddFeaturesAndSlots();
    if (shape_.model == Model::kDin) {
      for (size_t s = 0; s < data_.sequences(); ++s) AddAttention(s);
    } else {
      AddPools();
    }
    AddInteraction();
    AddTower();
    return std::move(spec_);
  }

 private:
  void AddIdMapsAndTables() {
    for (size_t f = 0; f < data_.fields(); ++f) {
      v1::IdMap& map = *spec_.add_id_maps();
      map.set_name(TableName(data_, f));
      map.set_id_type(f == 0 && data_.integer_ids ? v1::INT64 : v1::STRING);
      map.mutable_vocabulary()->set_first_row(0);
      // An item newer than the model is scored by what else is known of it.
      map.set_out_of_vocabulary(v1::IdMap::ZERO);
      if (shape_.has_embeddings()) AddTable(TableName(data_, f), f, shape_.dim);
      for (int64_t role = 0; role < shape_.roles(f < data_.item_fields()); ++role) {
        AddTable(WideTableName(data_, f, role), f, 1);
      }
    }
  }

  void AddTable(const std::string& name, size_t field, int64_t dim) {
    v1::Table& table = *spec_.add_tables();
    table.set_name(name);
    table.set_rows(static_cast<int64_t>(kept_[field].rows));
    table.set_dim(static_cast<uint32_t>(dim));
  }

  void AddSideTables() {
    std::vector<std::string> names;
    for (size_t f = 1; f < data_.item_fields(); ++f) names.push_back(CategoryTableName(data_, f));
    names.push_back(kTitle);
    for (const std::string& name : names) {
      v1::SideTable& side = *spec_.add_side_tables();
      side.set_name(name);
      side.set_key_type(data_.integer_ids ? v1::INT64 : v1::STRING);
      side.set_rows(static_cast<int64_t>(data_.items.size()));
      side.set_kind(v1::ID);
      side.set_value_type(v1::STRING);
      side.set_missing_key(v1::SideTable::MISSING_KEY_ZERO);
    }
  }

  void AddSequences() {
    for (size_t s = 0; s < data_.sequences(); ++s) {
      v1::SequenceSpec& history = *spec_.add_sequences();
      history.set_name(SequenceName(data_, s));
      history.set_max_length(static_cast<uint32_t>(shape_.max_history));
      history.set_keep(v1::KEEP_LAST);
      history.set_invalid(v1::SequenceSpec::DROP);
    }
  }

  void AddFeaturesAndSlots() {
    for (size_t role = 0; role <= data_.sequences(); ++role) {
      for (size_t f = 0; f < data_.item_fields(); ++f) AddFeature(f, role);
      v1::Label& label = *spec_.add_labels();
      label.set_feature(FeatureName(data_, 0, role));
      label.set_side_table(kTitle);
    }
    for (size_t f = data_.item_fields(); f < data_.fields(); ++f) AddFeature(f, 0);
  }

  void AddFeature(size_t field, size_t role) {
    const std::string name = FeatureName(data_, field, role);
    v1::Feature& feature = *spec_.add_features();
    feature.set_name(name);
    feature.set_scope(role > 0 ? v1::SEQUENCE : field < data_.item_fields() ? v1::CANDIDATE : v1::USER);
    if (role > 0) feature.set_sequence(SequenceName(data_, role - 1));
    feature.set_kind(v1::ID);
    feature.set_id_map(TableName(data_, field));
    if (field > 0 && field < data_.item_fields()) {
      feature.mutable_side()->set_side_table(CategoryTableName(data_, field));
      feature.mutable_side()->set_key(FeatureName(data_, 0, role));
    }
    const auto add_slot = [&](const std::string& slot_name, const std::string& table) {
      v1::Slot& slot = *spec_.add_slots();
      slot.set_name(slot_name);
      slot.mutable_embed()->set_feature(name);
      slot.mutable_embed()->set_table(table);
    };
    if (shape_.has_embeddings()) add_slot(name, TableName(data_, field));
    if (shape_.has_wide()) add_slot(WideSlotName(data_, field, role), WideTableName(data_, field, role));
  }

  v1::Layer MakeLayer(int64_t units) const {
    v1::Layer layer;
    layer.set_units(static_cast<uint32_t>(units));
    layer.set_bias(true);
    if (shape_.activation == Activation::kPRelu) {
      layer.mutable_activation()->set_kind(v1::Activation::PRELU);
      return layer;
    }
    layer.mutable_activation()->set_kind(v1::Activation::DICE);
    v1::Dice& dice = *layer.mutable_activation()->mutable_dice();
    dice.set_statistics(v1::Dice::RUNNING);
    dice.set_eps(kDiceEps);
    dice.set_alpha(v1::Dice::ALPHA_TENSOR);
    return layer;
  }

  void AddAttention(size_t s) {
    using A = v1::Attention;
    A& attention = *spec_.add_attentions();
    attention.set_name(InterestName(data_, s));
    attention.set_sequence(SequenceName(data_, s));
    for (size_t f = 0; f < data_.item_fields(); ++f) {
      attention.add_query(FeatureName(data_, f, 0));
      attention.add_key(FeatureName(data_, f, 1 + s));
    }
    attention.set_query_width(A::QUERY_WIDTH_EQUAL);
    attention.add_input(A::Q);
    attention.add_input(A::K);
    if (shape_.attention_input == AttentionInput::kWithDifference) attention.add_input(A::Q_MINUS_K);
    attention.add_input(A::Q_TIMES_K);
    for (const int64_t units : shape_.attention) *attention.add_layers() = MakeLayer(units);
    attention.set_out_bias(true);
    attention.set_out_activation(v1::Activation::NONE);
    attention.set_scale(A::SCALE_NONE);
    attention.set_normalise(A::NORMALISE_NONE);
    attention.set_empty(A::EMPTY_ZERO);
  }

  // The behaviours whatever the candidate: their embeddings, and their weights in the wide part.
  void AddPools() {
    for (size_t s = 0; s < data_.sequences(); ++s) {
      const auto add = [&](const std::string& name, const auto& slot_name) {
        v1::SequencePool& pool = *spec_.add_sequence_pools();
        pool.set_name(name);
        pool.set_sequence(SequenceName(data_, s));
        for (size_t f = 0; f < data_.item_fields(); ++f) pool.add_key(slot_name(data_, f, 1 + s));
        pool.set_kind(shape_.pooling == Pooling::kSum ? v1::SequencePool::SUM : v1::SequencePool::MEAN);
      };
      if (shape_.has_embeddings()) add(PooledName(data_, s), FeatureName);
      if (shape_.has_wide()) add(WidePooledName(data_, s), WideSlotName);
    }
  }

  // Part of a vector that has all fields of an item side by side.
  v1::VectorRef FieldOf(const std::string& vector, size_t field) const {
    v1::VectorRef ref;
    ref.set_name(vector);
    ref.set_begin(static_cast<uint32_t>(field * shape_.dim));
    ref.set_end(static_cast<uint32_t>((field + 1) * shape_.dim));
    return ref;
  }
  v1::VectorRef Whole(const std::string& vector) const {
    v1::VectorRef ref;
    ref.set_name(vector);
    return ref;
  }

  // The vectors that PNN and DeepFM take in pairs, in the order of the networks' input.
  void AddInteraction() {
    if (shape_.model != Model::kPnn && shape_.model != Model::kDeepFm) return;
    v1::Interaction& pairs = *spec_.add_interactions();
    pairs.set_name("pairs");
    pairs.set_kind(shape_.model == Model::kPnn ? v1::Interaction::INNER_PRODUCTS : v1::Interaction::BI_INTERACTION);
    for (size_t f = 0; f < data_.item_fields(); ++f) *pairs.add_vectors() = Whole(FeatureName(data_, f, 0));
    for (size_t s = 0; s < data_.sequences(); ++s) {
      for (size_t f = 0; f < data_.item_fields(); ++f) *pairs.add_vectors() = FieldOf(PooledName(data_, s), f);
    }
    for (size_t f = data_.item_fields(); f < data_.fields(); ++f) {
      *pairs.add_vectors() = Whole(FeatureName(data_, f, 0));
    }
  }

  void AddTower() {
    v1::Tower& tower = *spec_.mutable_tower();
    tower.set_classes(1);
    if (shape_.has_wide()) {
      for (size_t f = 0; f < data_.fields(); ++f) *tower.add_wide() = Whole(WideSlotName(data_, f, 0));
      for (size_t s = 0; s < data_.sequences(); ++s) *tower.add_wide() = Whole(WidePooledName(data_, s));
    }
    if (shape_.model == Model::kDeepFm) *tower.add_wide() = Whole("pairs");
    if (shape_.model == Model::kLr) {
      tower.set_global_bias(true);
      return;
    }
    const auto add = [&](v1::VectorRef ref) { *tower.add_input()->mutable_a() = std::move(ref); };
    if (shape_.model == Model::kDin) {
      for (size_t s = 0; s < data_.sequences(); ++s) add(Whole(InterestName(data_, s)));
    }
    for (size_t f = 0; f < data_.item_fields(); ++f) add(Whole(FeatureName(data_, f, 0)));
    for (size_t s = 0; s < data_.sequences(); ++s) {
      if (shape_.model != Model::kDin) {
        add(Whole(PooledName(data_, s)));
        continue;
      }
      // v_U * v_A, field by field.
      for (size_t f = 0; shape_.product && f < data_.item_fields(); ++f) {
        v1::Term& term = *tower.add_input();
        *term.mutable_a() = FieldOf(InterestName(data_, s), f);
        *term.mutable_b() = Whole(FeatureName(data_, f, 0));
      }
    }
    for (size_t f = data_.item_fields(); f < data_.fields(); ++f) add(Whole(FeatureName(data_, f, 0)));
    if (shape_.model == Model::kPnn) add(Whole("pairs"));
    for (const int64_t units : shape_.tower) *tower.add_layers() = MakeLayer(units);
    tower.set_head_bias(true);
  }

  const Dataset& data_;
  const std::span<const KeptValues> kept_;
  const ModelShape& shape_;
  v1::ModelSpec spec_;
};

// --- Golden requests ------------------------------------------------------------------------------------------------

// The test samples of each request: those of `options.golden_cases` users, one request each, filled up with any items;
// or all.
std::vector<std::vector<Sample>> DrawRequests(const Dataset& data, std::span<const Sample> test,
                                              const ExportOptions& options) {
  std::vector<Sample> in_order(test.begin(), test.end());
  std::ranges::stable_sort(in_order, {}, [](const Sample& s) { return std::pair(s.user, s.position); });
  std::vector<std::vector<Sample>> requests;
  for (const Sample& sample : in_order) {
    if (requests.empty() || !SameRequest(data, requests.back()[0], sample)) requests.emplace_back();
    requests.back().push_back(sample);
  }
  if (options.golden_cases == 0) return requests;
  const auto same_user = [](const auto& a, const auto& b) { return a[0].user == b[0].user; };
  requests.erase(std::unique(requests.begin(), requests.end(), same_user), requests.end());
  std::mt19937_64 random(options.seed);
  std::shuffle(requests.begin(), requests.end(), random);
  if (requests.size() > static_cast<size_t>(options.golden_cases)) requests.resize(options.golden_cases);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(data.items.size()) - 1);
  for (std::vector<Sample>& request : requests) {
    while (request.size() < static_cast<size_t>(options.golden_candidates)) {
      request.push_back(request[0]);
      request.back().item = any(random);
    }
  }
  return requests;
}

// --- 16-bit numbers -------------------------------------------------------------------------------------------------

uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
float FromBf16(uint16_t half) { return std::bit_cast<float>(static_cast<uint32_t>(half) << 16); }

// Round to nearest, ties to even; what is too large becomes infinite, and then no snapshot.
uint16_t ToF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const float magnitude = std::abs(value);
  constexpr float kLeastNormal = 0x1p-14f;
  constexpr float kTooLarge = 65520;  // rounds beyond the largest, 65504
  if (!(magnitude < kTooLarge)) return static_cast<uint16_t>(sign | (std::isnan(value) ? 0x7E00 : 0x7C00));
  if (magnitude < kLeastNormal) {  // units of 2^-24, to which the addition rounds
    constexpr float kRound = 0x1p-1f;
    return static_cast<uint16_t>(sign |
                                 (std::bit_cast<uint32_t>(magnitude + kRound) - std::bit_cast<uint32_t>(kRound)));
  }
  const uint32_t m = bits & 0x7FFFFFFF;
  constexpr uint32_t kBias = (127 - 15) << 23;
  return static_cast<uint16_t>(sign | (m - kBias + 0xFFF + (m >> 13 & 1)) >> 13);
}

float FromF16(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const float fraction = static_cast<float>(half & 1023);
  const float magnitude = exponent == 31  ? INFINITY
                          : exponent == 0 ? std::ldexp(fraction, -24)
                                          : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

bool IsEmbeddingTable(const std::string& name, const Weight& weight) {
  return absl::StartsWith(name, "table.") && weight.shape[1] > 1;
}

}  // namespace

std::string SequenceName(const Dataset& data, size_t sequence) {
  return data.streams.empty() ? "history" : data.streams[sequence].name;
}

std::string TableName(const Dataset& data, size_t field) { return std::string(data.FieldName(field)); }

std::string WideTableName(const Dataset& data, size_t field, size_t role) { return WideSlotName(data, field, role); }

v1::ModelSpec MakeSpec(const Dataset& data, std::span<const KeptValues> kept, const ModelShape& shape,
                       const std::string& description) {
  return SpecMaker(data, kept, shape).Make(description);
}

bool SameRequest(const Dataset& data, const Sample& a, const Sample& b) {
  if (a.user != b.user || a.position != b.position) return false;
  for (size_t f = 0; f < data.side_fields(); ++f) {
    if (data.SideValue(a.user, a.row, f) != data.SideValue(b.user, b.row, f)) return false;
  }
  return true;
}

v1::GoldenCase MakeCase(const Dataset& data, std::span<const Sample> candidates, int max_history) {
  v1::GoldenCase request;
  const Sample& first = candidates.front();
  request.set_id(absl::StrCat("user ", data.user_ids[first.user]));
  for (size_t f = 0; f < data.side_fields(); ++f) {
    v1::Column& column = *request.add_features();
    const size_t field = data.item_fields() + f;
    column.set_name(TableName(data, field));
    column.add_keys(data.FieldValue(field, data.SideValue(first.user, first.row, f)));
  }
  for (size_t s = 0; s < data.sequences(); ++s) {
    v1::Sequence& sequence = *request.add_sequences();
    sequence.set_name(SequenceName(data, s));
    v1::Column& history = *sequence.add_columns();
    history.set_name(FeatureName(data, 0, 1 + s));
    for (const Event& event : HistoryOf(data, first, max_history, s)) {
      ItemIds::AddTo(history, data, data.items[event.item].id);
    }
  }
  v1::Column& items = *request.add_candidates();
  items.set_name(kItem);
  for (const Sample& sample : candidates) ItemIds::AddTo(items, data, data.items[sample.item].id);
  return request;
}

float Rounded(DataType type, float value) {
  if (type == DataType::kF16) return FromF16(ToF16(value));
  if (type == DataType::kBF16) return FromBf16(ToBf16(value));
  return value;
}

absl::Status Export(const TrainedModel& model, std::span<const Sample> test, const ExportOptions& options) {
  const Dataset& data = model.data;
  SnapshotContents contents;
  contents.spec = MakeSpec(data, model.kept, model.shape, options.description);
  std::map<std::string, std::vector<uint16_t>> halves;
  for (const auto& [name, weight] : model.weights) {
    if (options.embeddings == DataType::kF32 || !IsEmbeddingTable(name, weight)) {
      contents.tensors[name] = Borrow(DataType::kF32, weight.values, weight.shape);
      continue;
    }
    std::vector<uint16_t>& half = halves[name];
    half.resize(weight.values.size());
    std::ranges::transform(weight.values, half.begin(), options.embeddings == DataType::kF16 ? ToF16 : ToBf16);
    contents.tensors[name] = Borrow(options.embeddings, half, weight.shape);
  }

  ItemIds all(data), kept(data);
  StringColumn titles;
  std::vector<StringColumn> category_of_item(data.categories.size());
  for (size_t i = 0; i < data.items.size(); ++i) {
    const Item& item = data.items[i];
    all.Add(item.id);
    if (model.kept[0].Row(static_cast<int32_t>(i)) < model.kept[0].rows) kept.Add(item.id);
    titles.Add(item.title);
    for (size_t f = 1; f < data.item_fields(); ++f) {
      category_of_item[f - 1].Add(data.FieldValue(f, data.ItemValue(static_cast<int32_t>(i), f)));
    }
  }
  kept.Publish("vocab.item.keys", contents.tensors);
  all.Publish(absl::StrCat("side.", kTitle, ".keys"), contents.tensors);
  titles.Publish(absl::StrCat("side.", kTitle, ".values"), contents.tensors);
  for (size_t f = 1; f < data.item_fields(); ++f) {
    all.Publish(absl::StrCat("side.", CategoryTableName(data, f), ".keys"), contents.tensors);
    category_of_item[f - 1].Publish(absl::StrCat("side.", CategoryTableName(data, f), ".values"), contents.tensors);
  }
  std::vector<StringColumn> vocabularies(data.fields());
  for (size_t f = 1; f < data.fields(); ++f) {
    for (size_t value = 0; value < data.FieldRows(f); ++value) {
      if (model.kept[f].Row(static_cast<int32_t>(value)) == model.kept[f].rows) continue;
      vocabularies[f].Add(data.FieldValue(f, static_cast<int32_t>(value)));
    }
    vocabularies[f].Publish(absl::StrCat("vocab.", TableName(data, f), ".keys"), contents.tensors);
  }

  for (const std::vector<Sample>& request : DrawRequests(data, test, options)) {
    v1::GoldenCase golden = MakeCase(data, request, model.shape.max_history);
    for (const float p : model.score(request)) golden.add_scores(p);
    golden.set_tolerance(options.tolerance);
    contents.golden.push_back(std::move(golden));
  }
  return WriteSnapshot(options.model_directory, options.version, contents);
}

}  // namespace din
