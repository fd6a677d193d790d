#include "tests/model/bench_model.h"

#include <cmath>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/model/random_layers.h"
#include "tests/model/random_request.h"

namespace din::testing {
namespace {

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
    const std::vector<double> hidden = layers_.Stack("att0", attention.layers(), std::vector<double>(4 * width_, 1));
    layers_.Linear("att0.out", hidden, {1}, true);
  }

  RawModel Finish(const std::vector<uint32_t>& units, size_t width) {
    v1::Tower& tower = *model_.spec.mutable_tower();
    tower.set_head_bias(true);
    tower.set_classes(1);
    AddLayers(units, true, tower.mutable_layers());
    std::vector<double> scale(width, 1);
    if (tower.has_in_bn()) scale = layers_.BatchNorm("tower.in_bn", tower.in_bn(), scale);
    layers_.Linear("head", layers_.Stack("tower", tower.layers(), scale), {1}, true);
    Calibrate();
    return std::move(model_);
  }

  void Scale(std::string_view name, double factor) {
    for (float& v : model_.Floats(name)) v = static_cast<float>(v * factor);
  }

  // First the pooled vector to magnitude 1 at this many behaviours, then the logits to a mean of 0 and a spread of 1.5.
  void Calibrate() {
    const RequestSize size{2, options_.behaviours, 0};
    constexpr size_t kWeightRequests = 16;
    const std::vector<double> weights = ScoreRandomRequests(rng_, model_, kWeightRequests, size).weights[0];
    const double squares = std::inner_product(weights.begin(), weights.end(), weights.begin(), 0.0);
    const double length = std::sqrt(squares / static_cast<double>(kWeightRequests * size.candidates));
    for (const char* name : {"att0.out.w", "att0.out.b"}) Scale(name, 1 / length);

    constexpr size_t kLogitRequests = 64;  // logits differ most between users
    const std::vector<double> logits = ScoreRandomRequests(rng_, model_, kLogitRequests, size).logits;
    const auto n = static_cast<double>(logits.size());
    const double mean = std::accumulate(logits.begin(), logits.end(), 0.0) / n;
    double variance = 0;
    for (double logit : logits) variance += (logit - mean) * (logit - mean) / n;
    model_.Floats("head.b")[0] -= static_cast<float>(mean);
    for (const char* name : {"head.w", "head.b"}) Scale(name, 1.5 / std::sqrt(variance));
  }

  Rng rng_;
  const BenchModelOptions options_;
  RawModel model_;
  RandomLayers layers_;
  std::vector<std::string> query_;
  size_t width_ = 0;
};

}  // namespace

RawModel PaperModel(const BenchModelOptions& options) { return BenchBuilder(options).Paper(); }
RawModel CompactModel(const BenchModelOptions& options) { return BenchBuilder(options).Compact(); }

}  // namespace din::testing
