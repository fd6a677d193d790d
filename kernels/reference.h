// The definition of every kernel: plain loops over the same arguments, in T = double (the truth) or float. Slow.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/activation.h"
#include "kernels/activation_unit.h"
#include "kernels/bf16.h"
#include "kernels/dense.h"
#include "kernels/gather.h"
#include "kernels/interaction.h"

namespace din::reference {

template <typename T>
T Sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

// One row, in place.
template <typename T>
void Activate(const Activation& a, std::span<T> x) {
  T mean = 0;
  T sum = 0;
  for (const T v : x) mean += v / static_cast<T>(x.size());
  for (const T v : x) sum += (v - mean) * (v - mean) + T{a.eps};
  const auto gate = [&](size_t u, T p) { return x[u] * (T{a.alpha[u]} + (T{1} - T{a.alpha[u]}) * p); };
  for (size_t u = 0; u < x.size(); ++u) {
    switch (a.kind) {
      case ActivationKind::kNone:
        break;
      case ActivationKind::kSigmoid:
        x[u] = Sigmoid(x[u]);
        break;
      case ActivationKind::kTanh:
        x[u] = std::tanh(x[u]);
        break;
      case ActivationKind::kSlope:
        x[u] = x[u] > 0 ? x[u] : T{a.alpha[u]} * x[u];
        break;
      case ActivationKind::kDice:
        x[u] = gate(u, Sigmoid(T{a.scale[u]} * x[u] + T{a.shift[u]}));
        break;
      case ActivationKind::kDiceRow:
        x[u] = gate(u, sum > 0 ? Sigmoid((x[u] - mean) / std::sqrt(sum)) : T{0.5});
        break;
    }
  }
}

// act(weight x + bias), weight [out, in].
template <typename T>
std::vector<T> Dense(const std::vector<float>& weight, const std::vector<float>& bias, const Activation& activation,
                     const std::vector<T>& x) {
  std::vector<T> y(bias.begin(), bias.end());
  for (size_t u = 0; u < y.size(); ++u) {
    for (size_t k = 0; k < x.size(); ++k) y[u] += T{weight[u * x.size() + k]} * x[k];
  }
  Activate<T>(activation, y);
  return y;
}

// The score of one pair, before the normalisation.
template <typename T>
T Score(const ActivationUnitWeights& w, const float* query, const float* key) {
  const ActivationUnitWeights::Hidden& first = w.hidden.front();
  std::vector<T> h(first.bias.begin(), first.bias.end());
  for (size_t u = 0; u < h.size(); ++u) {
    for (size_t d = 0; d < w.width; ++d) {
      const size_t i = u * w.width + d;
      h[u] += T{w.query_weight[i]} * T{query[d]} + T{w.key_weight[i]} * T{key[d]} +
              T{w.product_weight[i]} * T{query[d]} * T{key[d]};
    }
  }
  Activate<T>(first.activation, h);
  for (size_t i = 1; i < w.hidden.size(); ++i) {
    h = Dense(w.hidden[i].weight, w.hidden[i].bias, w.hidden[i].activation, h);
  }
  const T score = Dense(w.out_weight, {w.out_bias}, Activation{}, h)[0];
  return w.out_sigmoid ? Sigmoid(score) : score;
}

// The same in precision bf16: what goes into a hidden layer is rounded, the weights of the first (with the query in
// them) as well as the keys, the weights of the others and the outputs between, these less their centre. Sums and the
// last layer are not.
template <typename T>
T ScoreBf16(const ActivationUnitWeights& w, const float* query, const float* key) {
  const auto rounded = [](T x) { return T{FromBf16(ToBf16(static_cast<float>(x)))}; };
  std::vector<T> h(w.hidden.front().bias.begin(), w.hidden.front().bias.end());
  for (size_t u = 0; u < h.size(); ++u) {
    for (size_t d = 0; d < w.width; ++d) {
      const size_t i = u * w.width + d;
      h[u] += T{w.query_weight[i]} * T{query[d]} +
              rounded(T{w.key_weight[i]} + T{w.product_weight[i]} * T{query[d]}) * rounded(T{key[d]});
    }
  }
  Activate<T>(w.hidden.front().activation, h);
  for (size_t l = 1; l < w.hidden.size(); ++l) {
    const T centre{CentreOf(w.hidden[l - 1].activation)};
    std::vector<T> y(w.hidden[l].bias.begin(), w.hidden[l].bias.end());
    for (size_t u = 0; u < y.size(); ++u) {
      for (size_t k = 0; k < h.size(); ++k) {
        const T weight{w.hidden[l].weight[u * h.size() + k]};
        y[u] += weight * centre + rounded(weight) * rounded(h[k] - centre);
      }
    }
    Activate<T>(w.hidden[l].activation, y);
    h = y;
  }
  const T score = Dense(w.out_weight, {w.out_bias}, Activation{}, h)[0];
  return w.out_sigmoid ? Sigmoid(score) : score;
}

template <typename T>
struct Pooled {
  std::vector<T> pooled;   // [D]
  std::vector<T> weights;  // [behaviours]
};

// One candidate. `score` gives the score of a pair.
template <typename T>
Pooled<T> Pool(const ActivationUnitWeights& w, const AttentionArgs& args, size_t candidate,
               T (*score)(const ActivationUnitWeights&, const float*, const float*) = Score<T>) {
  Pooled<T> out{std::vector<T>(w.width), std::vector<T>(args.behaviours)};
  std::vector<T>& weights = out.weights;
  for (size_t j = 0; j < args.behaviours; ++j) {
    weights[j] = args.uniform ? T{1} / static_cast<T>(args.behaviours)
                              : score(w, args.queries + candidate * args.query_stride, args.keys + j * w.width);
  }
  if (!args.uniform && w.normalise == Normalise::kSigmoid) {
    for (T& v : weights) v = Sigmoid(v);
  }
  if (!args.uniform && w.normalise == Normalise::kSoftmax && !weights.empty()) {
    const T highest = *std::max_element(weights.begin(), weights.end());
    T sum = 0;
    for (T& v : weights) sum += v = std::exp(v - highest);
    for (T& v : weights) v /= sum;
  }
  for (size_t j = 0; j < args.behaviours; ++j) {
    for (size_t d = 0; d < w.width; ++d) out.pooled[d] += weights[j] * T{args.keys[j * w.width + d]};
  }
  return out;
}

// IEEE 754 binary16.
inline float FromHalf(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent < 31) return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return mantissa == 0 ? sign * std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
}

inline std::vector<float> Row(const EmbeddingTable& table, uint32_t row) {
  std::vector<float> out(table.dim);
  if (row == kZeroRow) return out;
  for (size_t d = 0; d < table.dim; ++d) {
    const size_t i = row * table.dim + d;
    switch (table.type) {
      case RowType::kF32:
        out[d] = static_cast<const float*>(table.data)[i];
        break;
      case RowType::kF16:
        out[d] = FromHalf(static_cast<const uint16_t*>(table.data)[i]);
        break;
      case RowType::kBF16:
        out[d] = FromBf16(static_cast<const uint16_t*>(table.data)[i]);
        break;
      case RowType::kI8:
        out[d] = static_cast<float>(static_cast<const int8_t*>(table.data)[i]) * table.scales[row];
        break;
    }
  }
  return out;
}

template <typename T>
std::vector<T> GatherPool(const EmbeddingTable& table, std::span<const uint32_t> rows, PoolKind kind,
                          float divisor_epsilon, float empty_value) {
  if (rows.empty()) return std::vector<T>(table.dim, kind == PoolKind::kSum ? T{0} : T{empty_value});
  const std::vector<float> first = Row(table, rows[0]);
  std::vector<T> out(first.begin(), first.end());
  for (const uint32_t row : rows.subspan(1)) {
    const std::vector<float> values = Row(table, row);
    for (size_t d = 0; d < out.size(); ++d) {
      out[d] = kind == PoolKind::kMax ? std::max(out[d], T{values[d]}) : out[d] + T{values[d]};
    }
  }
  if (kind == PoolKind::kMean) {
    for (T& v : out) v /= static_cast<T>(rows.size()) + T{divisor_epsilon};
  }
  return out;
}

// One row of either interaction.
template <typename T>
std::vector<T> InnerProducts(const InteractionArgs& args, size_t row) {
  std::vector<T> out;
  for (size_t i = 0; i < args.vectors.size(); ++i) {
    for (size_t j = i + 1; j < args.vectors.size(); ++j) {
      const RowVectors &a = args.vectors[i], &b = args.vectors[j];
      out.push_back(0);
      for (size_t d = 0; d < args.width; ++d)
        out.back() += T{a.data[row * a.stride + d]} * T{b.data[row * b.stride + d]};
    }
  }
  return out;
}

template <typename T>
std::vector<T> BiInteraction(const InteractionArgs& args, size_t row) {
  std::vector<T> out(args.width);
  for (size_t i = 0; i < args.vectors.size(); ++i) {
    for (size_t j = i + 1; j < args.vectors.size(); ++j) {
      const RowVectors &a = args.vectors[i], &b = args.vectors[j];
      for (size_t d = 0; d < args.width; ++d) out[d] += T{a.data[row * a.stride + d]} * T{b.data[row * b.stride + d]};
    }
  }
  return out;
}

}  // namespace din::reference
