#include "bench/peers/peer_model.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/model/raw_model.h"

namespace din::peers {
namespace {

using Activation = PeerLayer::Activation;

std::span<const float> Floats(const TensorMap& tensors, const std::string& name) {
  const auto tensor = tensors.find(name);
  if (tensor == tensors.end() || tensor->second.type != DataType::kF32) {
    testing::Die(absl::StrCat("peers: no F32 tensor \"", name, "\""));
  }
  return {reinterpret_cast<const float*>(tensor->second.data), tensor->second.bytes / sizeof(float)};
}

std::vector<float> Copy(std::span<const float> values, size_t count) {
  if (values.size() == 1) return std::vector<float>(count, values[0]);  // one for all units
  return {values.begin(), values.end()};
}

PeerLayer Linear(const TensorMap& tensors, const std::string& prefix, int64_t in) {
  PeerLayer layer{.in = in};
  const auto w = Floats(tensors, prefix + ".w");
  layer.out = static_cast<int64_t>(w.size()) / in;
  layer.w.assign(w.begin(), w.end());
  layer.b = Copy(Floats(tensors, prefix + ".b"), layer.out);
  return layer;
}

PeerLayer HiddenLayer(const TensorMap& tensors, const std::string& prefix, int64_t in, const v1::Layer& spec) {
  PeerLayer layer = Linear(tensors, prefix, in);
  layer.activation = Activation::kSigmoid;
  if (spec.activation().kind() != v1::Activation::DICE) return layer;
  layer.activation = Activation::kDice;
  layer.mean = Copy(Floats(tensors, prefix + ".act.mean"), layer.out);
  layer.var = Copy(Floats(tensors, prefix + ".act.var"), layer.out);
  layer.alpha = Copy(Floats(tensors, prefix + ".act.alpha"), layer.out);
  layer.eps = spec.activation().dice().eps();
  return layer;
}

template <typename Layers>
std::vector<PeerLayer> Stack(const TensorMap& tensors, const std::string& prefix, const std::string& head, int64_t in,
                             const Layers& specs) {
  std::vector<PeerLayer> layers;
  for (int l = 0; l < specs.size(); ++l) {
    layers.push_back(HiddenLayer(tensors, absl::StrCat(prefix, ".l", l), in, specs[l]));
    in = layers.back().out;
  }
  layers.push_back(Linear(tensors, head, in));
  return layers;
}

std::vector<std::vector<int64_t>> DrawRows(const std::vector<PeerTable>& tables, size_t count, std::mt19937_64& rng) {
  std::vector<std::vector<int64_t>> out(tables.size());
  for (size_t f = 0; f < tables.size(); ++f) {
    std::uniform_int_distribution<int64_t> row(0, tables[f].rows - 1);
    for (size_t i = 0; i < count; ++i) out[f].push_back(row(rng));
  }
  return out;
}

int64_t Width(const std::vector<PeerTable>& tables) {
  return std::accumulate(tables.begin(), tables.end(), int64_t{0},
                         [](int64_t w, const PeerTable& t) { return w + t.dim; });
}

}  // namespace

PeerModel MakePeerModel(const v1::ModelSpec& spec, const TensorMap& tensors) {
  PeerModel model;
  for (const v1::Feature& feature : spec.features()) {
    if (feature.scope() == v1::SEQUENCE) continue;
    for (const v1::Table& table : spec.tables()) {
      if (table.name() != feature.name()) continue;
      auto& tables = feature.scope() == v1::USER ? model.user : model.fields;
      tables.push_back({table.rows(), table.dim(), Floats(tensors, "table." + table.name())});
    }
  }
  model.width = Width(model.fields);
  model.user_width = Width(model.user);
  model.product = model.user.empty();
  model.attention = Stack(tensors, "att0", "att0.out", 4 * model.width, spec.attentions(0).layers());
  const int64_t inputs = 2 * model.width + (model.product ? model.width : model.user_width);
  if (spec.tower().has_in_bn()) {
    model.bn_gamma = Copy(Floats(tensors, "tower.in_bn.gamma"), inputs);
    model.bn_beta = Copy(Floats(tensors, "tower.in_bn.beta"), inputs);
    model.bn_mean = Copy(Floats(tensors, "tower.in_bn.mean"), inputs);
    model.bn_var = Copy(Floats(tensors, "tower.in_bn.var"), inputs);
    model.bn_eps = spec.tower().in_bn().eps();
  }
  model.tower = Stack(tensors, "tower", "head", inputs, spec.tower().layers());
  return model;
}

PeerRequest DrawRequest(const PeerModel& model, size_t candidates, size_t behaviours, std::mt19937_64& rng) {
  PeerRequest request{.candidates = candidates, .behaviours = behaviours};
  request.candidate_rows = DrawRows(model.fields, candidates, rng);
  request.behaviour_rows = DrawRows(model.fields, behaviours, rng);
  for (const auto& row : DrawRows(model.user, 1, rng)) request.user_rows.push_back(row[0]);
  return request;
}

PeerRequest MakePeerRequest(const v1::ModelSpec& spec, const ScoringInput& input) {
  PeerRequest request;
  request.candidates = input.candidates;
  for (int f = 0; f < spec.features_size(); ++f) {
    const std::vector<uint32_t>& rows = input.columns[f].rows;
    switch (spec.features(f).scope()) {
      case v1::CANDIDATE:
        request.candidate_rows.emplace_back(rows.begin(), rows.end());
        break;
      case v1::SEQUENCE:
        request.behaviour_rows.emplace_back(rows.begin(), rows.end());
        break;
      default:
        request.user_rows.push_back(rows[0]);
        break;
    }
  }
  request.behaviours = request.behaviour_rows.front().size();
  return request;
}

// The id of a row is the row: the reference shapes map ids by identity.
v1::GoldenCase AsColumns(const v1::ModelSpec& spec, const PeerRequest& request) {
  v1::GoldenCase columns;
  v1::Sequence& sequence = *columns.add_sequences();
  sequence.set_name(spec.sequences(0).name());
  size_t candidate = 0, behaviour = 0, user = 0;
  for (const v1::Feature& feature : spec.features()) {
    v1::Column* column = nullptr;
    const int64_t* row = nullptr;
    size_t count = 1;
    if (feature.scope() == v1::CANDIDATE) {
      column = columns.add_candidates(), row = request.candidate_rows[candidate++].data(), count = request.candidates;
    } else if (feature.scope() == v1::SEQUENCE) {
      column = sequence.add_columns(), row = request.behaviour_rows[behaviour++].data(), count = request.behaviours;
    } else {
      column = columns.add_features(), row = &request.user_rows[user++];
    }
    column->set_name(feature.name());
    column->mutable_ids()->Add(row, row + count);
  }
  return columns;
}

}  // namespace din::peers
