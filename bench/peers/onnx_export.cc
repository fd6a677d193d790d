#include "bench/peers/onnx_export.h"

#include <cmath>
#include <initializer_list>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/peers/onnx.pb.h"

namespace din::peers {
namespace {

constexpr int kFloat = 1;
constexpr int kInt64 = 7;

class Exporter {
 public:
  Exporter(const PeerModel& model, Form form, Inputs inputs) : model_(model), form_(form), inputs_(inputs) {}

  std::string Export() {
    out_.set_ir_version(8);
    out_.set_producer_name("dinserve bench/peers");
    out_.add_opset_import()->set_version(17);
    graph().set_name("din");
    const std::string q = Query();
    const std::string k = Keys();
    const std::string interest = Interest(q, k);
    const std::string logits = Tower(q, interest);
    const std::string scores = Op("Sigmoid", {Op("Squeeze", {logits, Axes({1})})});
    onnx::Value& output = *graph().add_output();
    output.set_name(scores);
    Describe(output, kFloat, {"B"});
    return out_.SerializeAsString();
  }

 private:
  onnx::Graph& graph() { return *out_.mutable_graph(); }
  bool tiled() const { return form_ == Form::kTiled; }

  // ---- pieces of a graph; each returns the name of its value

  std::string Op(const std::string& type, const std::vector<std::string>& inputs) {
    onnx::Node& node = *graph().add_node();
    node.set_op_type(type);
    for (const std::string& input : inputs) node.add_input(input);
    return *node.add_output() = absl::StrCat("v", next_++);
  }
  std::string OpOnAxis(const std::string& type, const std::vector<std::string>& inputs, int64_t axis) {
    const std::string value = Op(type, inputs);
    onnx::Attribute& attribute = *graph().mutable_node(graph().node_size() - 1)->add_attribute();
    attribute.set_name("axis");
    attribute.set_type(onnx::Attribute::INT);
    attribute.set_i(axis);
    return value;
  }
  std::string SwapLastTwoOf3(const std::string& input) {
    const std::string value = Op("Transpose", {input});
    onnx::Attribute& attribute = *graph().mutable_node(graph().node_size() - 1)->add_attribute();
    attribute.set_name("perm");
    attribute.set_type(onnx::Attribute::INTS);
    for (const int64_t axis : {0, 2, 1}) attribute.add_ints(axis);
    return value;
  }
  template <typename T>
  std::string Constant(std::initializer_list<int64_t> dims, const T* values, size_t count, int type) {
    onnx::Tensor& tensor = *graph().add_initializer();
    for (const int64_t dim : dims) tensor.add_dims(dim);
    tensor.set_data_type(type);
    tensor.set_raw_data(reinterpret_cast<const char*>(values), count * sizeof(T));
    tensor.set_name(absl::StrCat("c", next_++));
    return tensor.name();
  }
  std::string Floats(std::initializer_list<int64_t> dims, std::span<const float> values) {
    return Constant(dims, values.data(), values.size(), kFloat);
  }
  std::string Axes(const std::vector<int64_t>& axes) {
    return Constant({static_cast<int64_t>(axes.size())}, axes.data(), axes.size(), kInt64);
  }
  static void Describe(onnx::Value& value, int type, std::initializer_list<std::string> dims) {
    auto& tensor = *value.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(type);
    for (const std::string& dim : dims) {
      auto& d = *tensor.mutable_shape()->add_dim();
      int64_t number = 0;
      if (absl::SimpleAtoi(dim, &number)) {
        d.set_value(number);
      } else {
        d.set_name(dim);
      }
    }
  }
  std::string Input(const std::string& name, int type, std::initializer_list<std::string> dims) {
    onnx::Value& value = *graph().add_input();
    value.set_name(name);
    Describe(value, type, dims);
    return name;
  }

  // ---- layers

  // Columns [begin, begin + count) of a layer's weights, transposed to [count, out].
  static std::vector<float> Columns(const PeerLayer& layer, int64_t begin, int64_t count) {
    std::vector<float> columns(count * layer.out);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t o = 0; o < layer.out; ++o) columns[i * layer.out + o] = layer.w[o * layer.in + begin + i];
    }
    return columns;
  }
  std::string Weights(const PeerLayer& layer) { return Floats({layer.in, layer.out}, Columns(layer, 0, layer.in)); }
  std::string Bias(const PeerLayer& layer) { return Floats({layer.out}, layer.b); }

  std::string Activate(const PeerLayer& layer, const std::string& x) {
    switch (layer.activation) {
      case PeerLayer::Activation::kNone:
        return x;
      case PeerLayer::Activation::kSigmoid:
        return Op("Sigmoid", {x});
      case PeerLayer::Activation::kDice:
        return tiled() ? DiceAsWritten(layer, x) : DiceFolded(layer, x);
    }
    return x;
  }
  std::string DiceAsWritten(const PeerLayer& layer, const std::string& x) {
    std::vector<float> deviation(layer.out);
    for (int64_t u = 0; u < layer.out; ++u) deviation[u] = static_cast<float>(std::sqrt(layer.var[u] + layer.eps));
    const std::string centred = Op("Sub", {x, Floats({layer.out}, layer.mean)});
    const std::string p = Op("Sigmoid", {Op("Div", {centred, Floats({layer.out}, deviation)})});
    const float one = 1;
    const std::string rest = Op("Sub", {Floats({1}, {&one, 1}), p});
    const std::string negative = Op("Mul", {Op("Mul", {rest, Floats({layer.out}, layer.alpha)}), x});
    return Op("Add", {Op("Mul", {p, x}), negative});
  }
  // x (alpha + (1 - alpha) sigmoid(a x + c)).
  std::string DiceFolded(const PeerLayer& layer, const std::string& x) {
    std::vector<float> a(layer.out), c(layer.out), rest(layer.out);
    for (int64_t u = 0; u < layer.out; ++u) {
      const double scale = 1 / std::sqrt(layer.var[u] + layer.eps);
      a[u] = static_cast<float>(scale);
      c[u] = static_cast<float>(-scale * layer.mean[u]);
      rest[u] = 1 - layer.alpha[u];
    }
    const std::string z = Op("Add", {Op("Mul", {x, Floats({layer.out}, a)}), Floats({layer.out}, c)});
    const std::string part = Op("Mul", {Op("Sigmoid", {z}), Floats({layer.out}, rest)});
    return Op("Mul", {x, Op("Add", {part, Floats({layer.out}, layer.alpha)})});
  }
  std::string Dense(const PeerLayer& layer, const std::string& x) {
    return Activate(layer, Op("Add", {Op("MatMul", {x, Weights(layer)}), Bias(layer)}));
  }

  // ---- inputs

  std::string Embedded(const std::vector<PeerTable>& tables, const std::vector<std::string>& rows) {
    std::vector<std::string> parts;
    for (size_t f = 0; f < tables.size(); ++f) {
      const std::string table = Floats({tables[f].rows, tables[f].dim}, tables[f].values);
      parts.push_back(OpOnAxis("Gather", {table, rows[f]}, 0));
    }
    return parts.size() == 1 ? parts[0] : OpOnAxis("Concat", parts, -1);
  }
  std::string Query() {
    if (inputs_ == Inputs::kDense) return Input("q", kFloat, {"B", absl::StrCat(model_.width)});
    std::vector<std::string> rows;
    for (size_t f = 0; f < model_.fields.size(); ++f) rows.push_back(Input(absl::StrCat("cand", f), kInt64, {"B"}));
    return Embedded(model_.fields, rows);
  }
  std::string Keys() {
    const std::string width = absl::StrCat(model_.width);
    if (inputs_ == Inputs::kDense) {
      return tiled() ? Input("k", kFloat, {"B", "H", width}) : Input("k", kFloat, {"H", width});
    }
    std::vector<std::string> rows;
    for (size_t f = 0; f < model_.fields.size(); ++f) {
      const std::string name = absl::StrCat("hist", f);
      rows.push_back(tiled() ? Input(name, kInt64, {"B", "H"}) : Input(name, kInt64, {"H"}));
    }
    return Embedded(model_.fields, rows);
  }
  std::string User() {
    if (inputs_ == Inputs::kDense) return Input("u", kFloat, {"1", absl::StrCat(model_.user_width)});
    std::vector<std::string> rows;
    for (size_t f = 0; f < model_.user.size(); ++f) rows.push_back(Input(absl::StrCat("user", f), kInt64, {"1"}));
    return Embedded(model_.user, rows);
  }

  // ---- the network

  std::string Interest(const std::string& q, const std::string& k) {
    std::string x = FirstLayer(q, k);
    for (size_t l = 1; l < model_.attention.size(); ++l) x = Dense(model_.attention[l], x);
    if (!tiled()) return Op("MatMul", {Op("Squeeze", {x, Axes({2})}), k});  // [B, H] [H, width]
    return Op("Squeeze", {Op("MatMul", {SwapLastTwoOf3(x), k}), Axes({1})});
  }

  std::string FirstLayer(const std::string& q, const std::string& k) {
    const PeerLayer& layer = model_.attention[0];
    const int64_t d = model_.width;
    const std::string q3 = Op("Unsqueeze", {q, Axes({1})});  // [B, 1, width]
    if (tiled()) {
      const std::string tiles = Op("Expand", {q3, Op("Shape", {k})});
      return Dense(layer, OpOnAxis("Concat", {tiles, k, Op("Sub", {tiles, k}), Op("Mul", {tiles, k})}, -1));
    }
    // W [q, k, q - k, q * k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q * k).
    std::vector<float> wq = Columns(layer, 0, d), wk = Columns(layer, d, d);
    const std::vector<float> wd = Columns(layer, 2 * d, d), wp = Columns(layer, 3 * d, d);
    for (size_t i = 0; i < wd.size(); ++i) wq[i] += wd[i], wk[i] -= wd[i];
    const std::string aq = Op("Add", {Op("MatMul", {q3, Floats({d, layer.out}, wq)}), Bias(layer)});  // [B, 1, out]
    const std::string keys = Floats({d, layer.out}, wk);
    const std::string pairs = Floats({d, layer.out}, wp);
    if (form_ == Form::kSplit) {
      const std::string product = Op("MatMul", {Op("Mul", {q3, k}), pairs});  // [B, H, out]
      return Activate(layer, Op("Add", {Op("Add", {product, aq}), Op("MatMul", {k, keys})}));
    }
    const std::string matrices = Op("Add", {Op("Mul", {Op("Unsqueeze", {q, Axes({2})}), pairs}), keys});  // [B, d, out]
    return Activate(layer, Op("Add", {Op("MatMul", {k, matrices}), aq}));
  }

  std::string Tower(const std::string& q, const std::string& interest) {
    std::string x = OpOnAxis("Concat", {interest, q}, -1);
    size_t l = 0;
    if (model_.product) {
      x = Normalised(OpOnAxis("Concat", {x, Op("Mul", {interest, q})}, -1));
    } else if (tiled()) {
      const std::string rows = Op("Gather", {Op("Shape", {q}), Axes({0})});  // [B]
      const std::string shape = OpOnAxis("Concat", {rows, Axes({model_.user_width})}, 0);
      x = OpOnAxis("Concat", {x, Op("Expand", {User(), shape})}, -1);
    } else {
      // The user's share of the first layer is the same for every candidate.
      const PeerLayer& layer = model_.tower[l++];
      const int64_t both = 2 * model_.width;
      const std::string user =
          Op("MatMul", {User(), Floats({model_.user_width, layer.out}, Columns(layer, both, model_.user_width))});
      const std::string rest = Op("MatMul", {x, Floats({both, layer.out}, Columns(layer, 0, both))});
      x = Activate(layer, Op("Add", {rest, Op("Add", {user, Bias(layer)})}));
    }
    for (; l < model_.tower.size(); ++l) x = Dense(model_.tower[l], x);
    return x;
  }

  std::string Normalised(const std::string& x) {
    if (model_.bn_gamma.empty()) return x;
    const auto n = static_cast<int64_t>(model_.bn_gamma.size());
    const std::string value = Op("BatchNormalization", {x, Floats({n}, model_.bn_gamma), Floats({n}, model_.bn_beta),
                                                        Floats({n}, model_.bn_mean), Floats({n}, model_.bn_var)});
    onnx::Attribute& eps = *graph().mutable_node(graph().node_size() - 1)->add_attribute();
    eps.set_name("epsilon");
    eps.set_type(onnx::Attribute::FLOAT);
    eps.set_f(static_cast<float>(model_.bn_eps));
    return value;
  }

  const PeerModel& model_;
  const Form form_;
  const Inputs inputs_;
  onnx::Model out_;
  int next_ = 0;
};

}  // namespace

std::string ExportOnnx(const PeerModel& model, Form form, Inputs inputs) {
  return Exporter(model, form, inputs).Export();
}

}  // namespace din::peers
