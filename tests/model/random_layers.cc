#include "tests/model/random_layers.h"

#include <cmath>
#include <cstdint>

namespace din::testing {
namespace {

constexpr double kSmall = 5e-3;

bool IsRunningDice(const v1::Activation& activation) {
  return activation.kind() == v1::Activation::DICE && activation.dice().statistics() == v1::Dice::RUNNING;
}

}  // namespace

void RandomLayers::Linear(const std::string& prefix, const std::vector<double>& scale,
                          const std::vector<double>& out_scale, bool bias) {
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

std::vector<double> RandomLayers::BatchNorm(const std::string& prefix, const v1::BatchNorm& bn,
                                            const std::vector<double>& scale) {
  std::vector<double> var(scale.size());
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

std::vector<double> RandomLayers::Layer(const std::string& prefix, const v1::Layer& layer,
                                        const std::vector<double>& scale) {
  const bool may_be_small = layer.has_bn() || IsRunningDice(layer.activation());
  std::vector<double> x(layer.units(), 1);
  for (double& s : x) s = may_be_small && Chance(rng_, 0.2) ? kSmall : 1;
  Linear(prefix, scale, x, layer.bias());
  if (layer.has_bn()) x = BatchNorm(prefix + ".bn", layer.bn(), x);
  x = Activation(prefix + ".act", layer.activation(), x);
  return layer.has_out_bn() ? BatchNorm(prefix + ".out_bn", layer.out_bn(), x) : x;
}

void RandomLayers::Add(const std::string& name, const std::vector<double>& values) {
  model_.AddWeights(name, {static_cast<int64_t>(values.size())}, values);
}

void RandomLayers::Vector(const std::string& name, std::vector<double> scale, double sigma) {
  for (double& v : scale) v *= Normal(rng_, sigma);
  Add(name, scale);
}

void RandomLayers::Affine(const std::string& prefix, size_t units) {
  std::vector<double> gamma(units);
  for (double& v : gamma) v = Uniform(rng_, 0.5, 1.5) * (Chance(rng_, 0.2) ? -1 : 1);
  Add(prefix + ".gamma", gamma);
  Add(prefix + ".beta", Normals(rng_, units, 0.3));
}

// One per unit, or one for all.
void RandomLayers::Alpha(const std::string& name, size_t units) {
  Add(name, Normals(rng_, Chance(rng_, 0.3) ? 1 : units, 0.3));
}

void RandomLayers::Dice(const std::string& prefix, const v1::Dice& dice, const std::vector<double>& scale) {
  if (dice.alpha() == v1::Dice::ALPHA_TENSOR) Alpha(prefix + ".alpha", scale.size());
  if (dice.statistics() != v1::Dice::RUNNING) return;
  v1::BatchNorm bn;
  bn.set_eps(dice.eps());
  bn.set_affine(dice.affine());
  BatchNorm(prefix, bn, scale);
  if (!dice.slope()) return;
  std::vector<double> slope(scale.size());
  for (double& v : slope) v = Uniform(rng_, 0.5, 1.5);
  Add(prefix + ".slope", slope);
}

std::vector<double> RandomLayers::Activation(const std::string& prefix, const v1::Activation& activation,
                                             const std::vector<double>& scale) {
  using A = v1::Activation;
  if (activation.kind() == A::PRELU) Alpha(prefix + ".alpha", scale.size());
  if (activation.kind() == A::DICE) Dice(prefix, activation.dice(), scale);
  if (activation.kind() != A::SIGMOID && activation.kind() != A::TANH) return scale;
  return std::vector<double>(scale.size(), 0.7);
}

}  // namespace din::testing
