#include "trainer/export.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tensor.h"
#include "model_loader/snapshot_writer.h"

namespace din {
namespace {

constexpr char kCategory[] = "category";
constexpr char kHistoryCategory[] = "history_category";
constexpr char kItemCategory[] = "item_category";  // side tables
constexpr char kItemTitle[] = "item_title";

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

// --- The pieces of the spec -----------------------------------------------------------------------------------------

void AddIds(const Dataset& data, const DinShape& shape, v1::ModelSpec& spec) {
  const auto add = [&](const char* name, v1::IdType type, size_t rows) {
    v1::IdMap& map = *spec.add_id_maps();
    map.set_name(name);
    map.set_id_type(type);
    map.mutable_vocabulary()->set_first_row(0);
    map.set_out_of_vocabulary(v1::IdMap::ZERO);  // an item newer than the model is scored by what else is known of it
    v1::Table& table = *spec.add_tables();
    table.set_name(name);
    table.set_rows(static_cast<int64_t>(rows));
    table.set_dim(static_cast<uint32_t>(shape.dim));
  };
  add(kItem, v1::INT64, data.items.size());
  add(kCategory, v1::STRING, data.categories.size());
  for (const char* name : {kItemCategory, kItemTitle}) {
    v1::SideTable& side = *spec.add_side_tables();
    side.set_name(name);
    side.set_key_type(v1::INT64);
    side.set_rows(static_cast<int64_t>(data.items.size()));
    side.set_kind(v1::ID);
    side.set_value_type(v1::STRING);
    side.set_missing_key(v1::SideTable::MISSING_KEY_ZERO);
  }
}

// An item and its category, in one scope: two features and the slots that embed them.
void AddItemAndCategory(v1::Scope scope, const char* item, const char* category, v1::ModelSpec& spec) {
  const auto add = [&](const char* name, const char* map) -> v1::Feature& {
    v1::Feature& feature = *spec.add_features();
    feature.set_name(name);
    feature.set_scope(scope);
    if (scope == v1::SEQUENCE) feature.set_sequence(kHistory);
    feature.set_kind(v1::ID);
    feature.set_id_map(map);
    v1::Slot& slot = *spec.add_slots();
    slot.set_name(name);
    slot.mutable_embed()->set_feature(name);
    slot.mutable_embed()->set_table(map);
    return feature;
  };
  add(item, kItem);
  v1::Feature& feature = add(category, kCategory);
  feature.mutable_side()->set_side_table(kItemCategory);
  feature.mutable_side()->set_key(item);
  v1::Label& label = *spec.add_labels();
  label.set_feature(item);
  label.set_side_table(kItemTitle);
}

v1::Layer MakeLayer(int64_t units, Activation activation) {
  v1::Layer layer;
  layer.set_units(static_cast<uint32_t>(units));
  layer.set_bias(true);
  if (activation == Activation::kPRelu) {
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

void AddAttention(const DinShape& shape, v1::ModelSpec& spec) {
  using A = v1::Attention;
  A& attention = *spec.add_attentions();
  attention.set_name("interest");
  attention.set_sequence(kHistory);
  for (const char* name : {kItem, kCategory}) attention.add_query(name);
  for (const char* name : {kHistoryItem, kHistoryCategory}) attention.add_key(name);
  attention.set_query_width(A::QUERY_WIDTH_EQUAL);
  for (A::Piece piece : {A::Q, A::K, A::Q_MINUS_K, A::Q_TIMES_K}) attention.add_input(piece);
  for (int64_t units : shape.attention) *attention.add_layers() = MakeLayer(units, shape.activation);
  attention.set_out_bias(true);
  attention.set_out_activation(v1::Activation::NONE);
  attention.set_scale(A::SCALE_NONE);
  attention.set_normalise(A::NORMALISE_NONE);
  attention.set_empty(A::EMPTY_ZERO);
}

void AddTower(const DinShape& shape, v1::ModelSpec& spec) {
  v1::Tower& tower = *spec.mutable_tower();
  tower.add_input()->mutable_a()->set_name("interest");
  for (const char* name : {kItem, kCategory}) tower.add_input()->mutable_a()->set_name(name);
  if (shape.product) {
    // v_U * v_A, field by field: the interest is as wide as the fields side by side.
    uint32_t begin = 0;
    for (const char* name : {kItem, kCategory}) {
      v1::Term& term = *tower.add_input();
      term.mutable_a()->set_name("interest");
      term.mutable_a()->set_begin(begin);
      term.mutable_a()->set_end(begin += static_cast<uint32_t>(shape.dim));
      term.mutable_b()->set_name(name);
    }
  }
  for (int64_t units : shape.tower) *tower.add_layers() = MakeLayer(units, shape.activation);
  tower.set_head_bias(true);
  tower.set_classes(1);
}

// The test samples of `users` users, each with candidates up to `candidates`: those of the test set, then any item.
std::vector<std::vector<Sample>> DrawRequests(const Dataset& data, std::span<const Sample> test,
                                              const ExportOptions& options) {
  std::map<int32_t, std::vector<Sample>> by_user;
  for (const Sample& sample : test) {
    std::vector<Sample>& request = by_user[sample.user];
    if (request.empty() || request[0].position == sample.position) request.push_back(sample);
  }
  std::vector<std::vector<Sample>> requests;
  for (auto& [user, request] : by_user) requests.push_back(std::move(request));
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

}  // namespace

v1::ModelSpec MakeSpec(const Dataset& data, const DinShape& shape, const std::string& description) {
  v1::ModelSpec spec;
  spec.set_format(1);
  spec.set_description(description);
  AddIds(data, shape, spec);
  v1::SequenceSpec& history = *spec.add_sequences();
  history.set_name(kHistory);
  history.set_max_length(static_cast<uint32_t>(shape.max_history));
  history.set_keep(v1::KEEP_LAST);
  history.set_invalid(v1::SequenceSpec::DROP);
  AddItemAndCategory(v1::CANDIDATE, kItem, kCategory, spec);
  AddItemAndCategory(v1::SEQUENCE, kHistoryItem, kHistoryCategory, spec);
  AddAttention(shape, spec);
  AddTower(shape, spec);
  return spec;
}

v1::GoldenCase MakeCase(const Dataset& data, std::span<const Sample> candidates, int max_history) {
  v1::GoldenCase request;
  const Sample& first = candidates.front();
  request.set_id(absl::StrCat("user ", data.user_ids[first.user]));
  v1::Sequence& sequence = *request.add_sequences();
  sequence.set_name(kHistory);
  v1::Column& history = *sequence.add_columns();
  history.set_name(kHistoryItem);
  for (const Event& event : HistoryOf(data, first, max_history)) history.add_ids(data.items[event.item].id);
  v1::Column& items = *request.add_candidates();
  items.set_name(kItem);
  for (const Sample& sample : candidates) items.add_ids(data.items[sample.item].id);
  return request;
}

absl::Status Export(const Dataset& data, const DinShape& shape, const std::map<std::string, Weight>& weights,
                    std::span<const Sample> test,
                    const std::function<std::vector<float>(std::span<const Sample>)>& score,
                    const ExportOptions& options) {
  SnapshotContents contents;
  contents.spec = MakeSpec(data, shape, options.description);
  for (const auto& [name, weight] : weights) {
    contents.tensors[name] = Borrow(DataType::kF32, weight.values, weight.shape);
  }

  const auto rows = static_cast<int64_t>(data.items.size());
  std::vector<int64_t> ids;
  StringColumn categories, category_of_item, titles;
  for (const std::string& category : data.categories) categories.Add(category);
  for (const Item& item : data.items) {
    ids.push_back(item.id);
    category_of_item.Add(data.categories[item.category]);
    titles.Add(item.title);
  }
  for (const char* name : {"vocab.item.keys", "side.item_category.keys", "side.item_title.keys"}) {
    contents.tensors[name] = Borrow(DataType::kI64, ids, {rows});
  }
  categories.Publish("vocab.category.keys", contents.tensors);
  category_of_item.Publish("side.item_category.values", contents.tensors);
  titles.Publish("side.item_title.values", contents.tensors);

  for (const std::vector<Sample>& request : DrawRequests(data, test, options)) {
    v1::GoldenCase golden = MakeCase(data, request, shape.max_history);
    for (float p : score(request)) golden.add_scores(p);
    golden.set_tolerance(options.tolerance);
    contents.golden.push_back(std::move(golden));
  }
  return WriteSnapshot(options.model_directory, options.version, contents);
}

}  // namespace din
