#include "model/folding.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace din {
namespace {

using Doubles = std::vector<double>;

// x -> scale * x + shift, per unit.
struct Affine {
  Doubles scale;
  Doubles shift;
};

absl::StatusOr<std::vector<float>> ToFloats(const Doubles& values, const std::string& what) {
  std::vector<float> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    out[i] = static_cast<float>(values[i]);
    if (!std::isfinite(out[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": folded value ", values[i], " at ", i, " does not fit a float"));
    }
  }
  return out;
}

absl::StatusOr<Affine> ReadBatchNorm(const v1::BatchNorm& bn, const std::string& prefix, size_t units,
                                     TensorReader& tensors) {
  const auto n = static_cast<int64_t>(units);
  DIN_ASSIGN_OR_RETURN(const Doubles mean, tensors.Weights(prefix + ".mean", {n}));
  DIN_ASSIGN_OR_RETURN(const Doubles var, tensors.Weights(prefix + ".var", {n}));
  Doubles gamma(units, 1.0);
  Doubles beta(units, 0.0);
  if (bn.affine()) {
    DIN_ASSIGN_OR_RETURN(gamma, tensors.Weights(prefix + ".gamma", {n}));
    DIN_ASSIGN_OR_RETURN(beta, tensors.Weights(prefix + ".beta", {n}));
  }
  Affine affine{Doubles(units), Doubles(units)};
  for (size_t i = 0; i < units; ++i) {
    if (var[i] < 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", prefix, ".var: ", var[i], " at ", i, " is negative"));
    }
    affine.scale[i] = gamma[i] / std::sqrt(var[i] + bn.eps());
    affine.shift[i] = beta[i] - mean[i] * affine.scale[i];
  }
  return affine;
}

// A Linear in fp64: y = W x + b, W [out, in].
struct Linear {
  size_t in = 0;
  size_t out = 0;
  Doubles weight;
  Doubles bias;

  // What came before did `affine` to x.
  void FoldInput(const Affine& affine) {
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) {
        bias[o] += weight[o * in + i] * affine.shift[i];
        weight[o * in + i] *= affine.scale[i];
      }
    }
  }

  // What comes after does `affine` to y.
  void FoldOutput(const Affine& affine) {
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) weight[o * in + i] *= affine.scale[o];
      bias[o] = bias[o] * affine.scale[o] + affine.shift[o];
    }
  }

  void Scale(double factor) {
    for (double& w : weight) w *= factor;
    for (double& b : bias) b *= factor;
  }
};

absl::StatusOr<Linear> ReadLinear(const std::string& prefix, size_t in, size_t out, bool has_bias,
                                  TensorReader& tensors) {
  Linear linear{in, out, {}, Doubles(out, 0.0)};
  const auto rows = static_cast<int64_t>(out);
  DIN_ASSIGN_OR_RETURN(linear.weight, tensors.Weights(prefix + ".w", {rows, static_cast<int64_t>(in)}));
  if (has_bias) {
    DIN_ASSIGN_OR_RETURN(linear.bias, tensors.Weights(prefix + ".b", {rows}));
  }
  return linear;
}

// An affine with no Linear beside it to disappear into.
Linear Diagonal(const Affine& affine) {
  const size_t n = affine.scale.size();
  Linear linear{n, n, Doubles(n * n, 0.0), affine.shift};
  for (size_t i = 0; i < n; ++i) linear.weight[i * n + i] = affine.scale[i];
  return linear;
}

absl::StatusOr<Activation> FoldDice(const v1::Dice& dice, const std::string& prefix, size_t units,
                                    TensorReader& tensors) {
  const auto n = static_cast<int64_t>(units);
  Activation out;
  Doubles alpha(units, dice.alpha_value());
  if (dice.alpha() == v1::Dice::ALPHA_TENSOR) {
    DIN_ASSIGN_OR_RETURN(alpha, tensors.WeightsOrScalar(prefix + ".alpha", n));
  }
  DIN_ASSIGN_OR_RETURN(out.alpha, ToFloats(alpha, prefix + ".alpha"));
  if (dice.statistics() == v1::Dice::PER_ROW) {
    out.kind = ActivationKind::kDiceRow;
    out.eps = static_cast<float>(dice.eps());
    return out;
  }
  out.kind = ActivationKind::kDice;
  Affine z{Doubles(units, 1.0), Doubles(units, 0.0)};
  if (dice.statistics() == v1::Dice::RUNNING) {
    v1::BatchNorm bn;
    bn.set_eps(dice.eps());
    bn.set_affine(dice.affine());
    DIN_ASSIGN_OR_RETURN(z, ReadBatchNorm(bn, prefix, units, tensors));
    if (dice.slope()) {
      DIN_ASSIGN_OR_RETURN(const Doubles slope, tensors.Weights(prefix + ".slope", {n}));
      for (size_t i = 0; i < units; ++i) {
        z.scale[i] *= slope[i];
        z.shift[i] *= slope[i];
      }
    }
  }
  DIN_ASSIGN_OR_RETURN(out.scale, ToFloats(z.scale, prefix));
  DIN_ASSIGN_OR_RETURN(out.shift, ToFloats(z.shift, prefix));
  return out;
}

absl::StatusOr<Activation> FoldActivation(const v1::Activation& activation, const std::string& prefix, size_t units,
                                          TensorReader& tensors) {
  using A = v1::Activation;
  Activation out;
  switch (activation.kind()) {
    case A::SIGMOID:
      out.kind = ActivationKind::kSigmoid;
      return out;
    case A::TANH:
      out.kind = ActivationKind::kTanh;
      return out;
    case A::RELU:
      out.kind = ActivationKind::kSlope;
      out.alpha.assign(units, 0.0f);
      return out;
    case A::LEAKY_RELU:
      out.kind = ActivationKind::kSlope;
      out.alpha.assign(units, static_cast<float>(activation.leaky_slope()));
      return out;
    case A::PRELU: {
      out.kind = ActivationKind::kSlope;
      DIN_ASSIGN_OR_RETURN(const Doubles alpha,
                           tensors.WeightsOrScalar(prefix + ".alpha", static_cast<int64_t>(units)));
      DIN_ASSIGN_OR_RETURN(out.alpha, ToFloats(alpha, prefix + ".alpha"));
      return out;
    }
    case A::SILU:
      out.kind = ActivationKind::kDice;
      out.scale.assign(units, 1.0f);
      out.shift.assign(units, 0.0f);
      out.alpha.assign(units, 0.0f);
      return out;
    case A::DICE:
      return FoldDice(activation.dice(), prefix, units, tensors);
    default:
      return out;
  }
}

struct FoldedLayer {
  Linear linear;
  Activation activation;
  std::string prefix;
};

// Layers in a row. `pending` is an affine that the input went through already; what the last layer leaves over (a
// BatchNorm after its activation) comes back in it.
absl::StatusOr<std::vector<FoldedLayer>> FoldLayers(const google::protobuf::RepeatedPtrField<v1::Layer>& layers,
                                                    const std::string& prefix, size_t in,
                                                    std::optional<Affine>& pending, TensorReader& tensors) {
  std::vector<FoldedLayer> out;
  for (int i = 0; i < layers.size(); ++i) {
    const v1::Layer& layer = layers[i];
    FoldedLayer folded;
    folded.prefix = absl::StrCat(prefix, ".l", i);
    DIN_ASSIGN_OR_RETURN(folded.linear, ReadLinear(folded.prefix, in, layer.units(), layer.bias(), tensors));
    if (pending.has_value()) folded.linear.FoldInput(*pending);
    pending.reset();
    if (layer.has_bn()) {
      DIN_ASSIGN_OR_RETURN(const Affine bn, ReadBatchNorm(layer.bn(), folded.prefix + ".bn", layer.units(), tensors));
      folded.linear.FoldOutput(bn);
    }
    DIN_ASSIGN_OR_RETURN(folded.activation,
                         FoldActivation(layer.activation(), folded.prefix + ".act", layer.units(), tensors));
    if (layer.has_out_bn()) {
      DIN_ASSIGN_OR_RETURN(pending, ReadBatchNorm(layer.out_bn(), folded.prefix + ".out_bn", layer.units(), tensors));
    }
    in = layer.units();
    out.push_back(std::move(folded));
  }
  return out;
}

absl::StatusOr<DenseLayerWeights> ToDense(const FoldedLayer& layer) {
  DenseLayerWeights out{layer.linear.in, layer.linear.out, {}, {}, layer.activation};
  DIN_ASSIGN_OR_RETURN(out.weight, ToFloats(layer.linear.weight, layer.prefix));
  DIN_ASSIGN_OR_RETURN(out.bias, ToFloats(layer.linear.bias, layer.prefix));
  return out;
}

absl::StatusOr<std::vector<DenseLayerWeights>> ToDense(const std::vector<FoldedLayer>& layers) {
  std::vector<DenseLayerWeights> out;
  for (const FoldedLayer& layer : layers) {
    DIN_ASSIGN_OR_RETURN(DenseLayerWeights dense, ToDense(layer));
    out.push_back(std::move(dense));
  }
  return out;
}

// The columns of the first attention layer, gathered into the three matrices that remain.
struct SplitInput {
  Doubles query, key, product;  // [units, width]
};

SplitInput SplitByPiece(const Linear& linear, const v1::Attention& attention, size_t width) {
  using A = v1::Attention;
  SplitInput out{Doubles(linear.out * width), Doubles(linear.out * width), Doubles(linear.out * width)};
  for (size_t unit = 0; unit < linear.out; ++unit) {
    for (int piece = 0; piece < attention.input_size(); ++piece) {
      const double* w = &linear.weight[unit * linear.in + static_cast<size_t>(piece) * width];
      for (size_t d = 0; d < width; ++d) {
        double& query = out.query[unit * width + d];
        double& key = out.key[unit * width + d];
        switch (attention.input(piece)) {
          case A::Q:
            query += w[d];
            break;
          case A::K:
            key += w[d];
            break;
          case A::Q_MINUS_K:
            query += w[d];
            key -= w[d];
            break;
          case A::K_MINUS_Q:
            query -= w[d];
            key += w[d];
            break;
          default:
            out.product[unit * width + d] += w[d];
            break;
        }
      }
    }
  }
  return out;
}

Normalise ToNormalise(v1::Attention::Normalise normalise) {
  switch (normalise) {
    case v1::Attention::NORMALISE_SOFTMAX:
      return Normalise::kSoftmax;
    case v1::Attention::NORMALISE_SIGMOID:
      return Normalise::kSigmoid;
    default:
      return Normalise::kNone;
  }
}

}  // namespace

absl::StatusOr<ActivationUnitWeights> FoldActivationUnit(const ResolvedSpec& spec, int g, TensorReader& tensors) {
  const v1::Attention& attention = spec.spec.attentions(g);
  const std::string prefix = absl::StrCat("att", g);
  ActivationUnitWeights out;
  out.width = spec.attentions[g].key.width;

  std::optional<Affine> pending;
  const size_t in = out.width * static_cast<size_t>(attention.input_size());
  DIN_ASSIGN_OR_RETURN(const std::vector<FoldedLayer> layers,
                       FoldLayers(attention.layers(), prefix, in, pending, tensors));
  const SplitInput split = SplitByPiece(layers.front().linear, attention, out.width);
  DIN_ASSIGN_OR_RETURN(out.query_weight, ToFloats(split.query, prefix));
  DIN_ASSIGN_OR_RETURN(out.key_weight, ToFloats(split.key, prefix));
  DIN_ASSIGN_OR_RETURN(out.product_weight, ToFloats(split.product, prefix));
  for (const FoldedLayer& layer : layers) {
    ActivationUnitWeights::Hidden hidden;
    hidden.units = layer.linear.out;
    if (&layer != &layers.front()) {
      DIN_ASSIGN_OR_RETURN(hidden.weight, ToFloats(layer.linear.weight, layer.prefix));
    }
    DIN_ASSIGN_OR_RETURN(hidden.bias, ToFloats(layer.linear.bias, layer.prefix));
    hidden.activation = layer.activation;
    out.hidden.push_back(std::move(hidden));
  }

  DIN_ASSIGN_OR_RETURN(Linear last,
                       ReadLinear(prefix + ".out", layers.back().linear.out, 1, attention.out_bias(), tensors));
  if (pending.has_value()) last.FoldInput(*pending);
  if (attention.scale() == v1::Attention::SCALE_INVERSE_SQRT_WIDTH) {
    last.Scale(1.0 / std::sqrt(static_cast<double>(out.width)));
  }
  DIN_ASSIGN_OR_RETURN(out.out_weight, ToFloats(last.weight, prefix + ".out"));
  DIN_ASSIGN_OR_RETURN(const std::vector<float> bias, ToFloats(last.bias, prefix + ".out"));
  out.out_bias = bias[0];
  out.out_sigmoid = attention.out_activation() == v1::Activation::SIGMOID;
  out.normalise = ToNormalise(attention.normalise());
  return out;
}

absl::StatusOr<std::vector<DenseLayerWeights>> FoldPost(const ResolvedSpec& spec, int g, TensorReader& tensors) {
  const v1::Attention& attention = spec.spec.attentions(g);
  if (!attention.has_post()) return std::vector<DenseLayerWeights>{};
  const v1::Attention::Post& post = attention.post();
  const std::string prefix = absl::StrCat("att", g, ".post");
  const size_t width = spec.attentions[g].key.width;
  std::optional<Affine> bn;
  if (post.has_bn()) {
    DIN_ASSIGN_OR_RETURN(bn, ReadBatchNorm(post.bn(), prefix + ".bn", width, tensors));
  }
  FoldedLayer layer{{}, {}, prefix};
  if (post.units() == 0) {
    layer.linear = Diagonal(*bn);
  } else {
    DIN_ASSIGN_OR_RETURN(layer.linear, ReadLinear(prefix, width, post.units(), post.bias(), tensors));
    if (bn.has_value()) layer.linear.FoldInput(*bn);
  }
  return ToDense(std::vector<FoldedLayer>{std::move(layer)});
}

absl::StatusOr<std::vector<DenseLayerWeights>> FoldPreTower(const ResolvedSpec& spec, int p, TensorReader& tensors) {
  const v1::PreTower& pre = spec.spec.pre_towers(p);
  const std::string prefix = absl::StrCat("pre", p);
  std::optional<Affine> pending;
  if (pre.has_in_bn()) {
    DIN_ASSIGN_OR_RETURN(pending, ReadBatchNorm(pre.in_bn(), prefix + ".in_bn", spec.pre_towers[p].in_width, tensors));
  }
  DIN_ASSIGN_OR_RETURN(std::vector<FoldedLayer> layers,
                       FoldLayers(pre.layers(), prefix, spec.pre_towers[p].in_width, pending, tensors));
  if (pending.has_value()) layers.push_back({Diagonal(*pending), {}, prefix});
  return ToDense(layers);
}

absl::StatusOr<std::vector<DenseLayerWeights>> FoldTower(const ResolvedSpec& spec, TensorReader& tensors) {
  const v1::Tower& tower = spec.spec.tower();
  if (spec.tower.in_width == 0) return std::vector<DenseLayerWeights>{};
  std::optional<Affine> pending;
  if (tower.has_in_bn()) {
    DIN_ASSIGN_OR_RETURN(pending, ReadBatchNorm(tower.in_bn(), "tower.in_bn", spec.tower.in_width, tensors));
  }
  DIN_ASSIGN_OR_RETURN(std::vector<FoldedLayer> layers,
                       FoldLayers(tower.layers(), "tower", spec.tower.in_width, pending, tensors));

  const size_t in = spec.tower.out_width;
  DIN_ASSIGN_OR_RETURN(Linear head, ReadLinear("head", in, tower.classes(), tower.head_bias(), tensors));
  if (pending.has_value()) head.FoldInput(*pending);
  if (tower.classes() == 2) {
    // softmax([a, b]) of the positive class is sigmoid(positive - other).
    const size_t positive = tower.positive_class();
    Linear logit{in, 1, Doubles(in), {head.bias[positive] - head.bias[1 - positive]}};
    for (size_t i = 0; i < in; ++i) {
      logit.weight[i] = head.weight[positive * in + i] - head.weight[(1 - positive) * in + i];
    }
    head = std::move(logit);
  }
  if (tower.global_bias()) {
    DIN_ASSIGN_OR_RETURN(const Doubles bias, tensors.Weights("bias.global", {1}));
    head.bias[0] += bias[0];
  }
  layers.push_back({std::move(head), {}, "head"});
  return ToDense(layers);
}

absl::StatusOr<float> FoldLogitBias(const ResolvedSpec& spec, TensorReader& tensors) {
  if (spec.tower.in_width > 0 || !spec.spec.tower().global_bias()) return 0.0f;
  DIN_ASSIGN_OR_RETURN(const Doubles bias, tensors.Weights("bias.global", {1}));
  DIN_ASSIGN_OR_RETURN(const std::vector<float> folded, ToFloats(bias, "bias.global"));
  return folded[0];
}

bool IsMixed(const ResolvedSpec::Network& network) {
  const auto of_candidate = std::ranges::count_if(network.input, &ResolvedSpec::Term::per_candidate);
  return of_candidate > 0 && of_candidate < std::ranges::ssize(network.input);
}

DenseLayerWeights SplitOffUser(const ResolvedSpec::Network& network, DenseLayerWeights& layer) {
  DenseLayerWeights user{.out = layer.out, .bias = layer.bias};
  std::vector<float> rest;
  for (size_t u = 0; u < layer.out; ++u) {
    auto column = layer.weight.begin() + static_cast<std::ptrdiff_t>(u * layer.in);
    for (const ResolvedSpec::Term& term : network.input) {
      std::vector<float>& to = term.per_candidate() ? rest : user.weight;
      to.insert(to.end(), column, column + static_cast<std::ptrdiff_t>(term.width()));
      column += static_cast<std::ptrdiff_t>(term.width());
    }
  }
  user.in = user.weight.size() / layer.out;
  layer.in -= user.in;
  layer.weight = std::move(rest);
  return user;
}

}  // namespace din
