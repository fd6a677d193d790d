// Raw layers with random tensors, well-conditioned whatever their activations and statistics.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/model_spec.pb.h"
#include "tests/model/random.h"
#include "tests/model/raw_model.h"

namespace din::testing {

// Adds the tensors of layers to a model. A `scale` is the magnitude of each element of a vector, 1 for most: Linears
// are drawn so that magnitudes stay there. A few units are drawn at 1/200 together with their statistics, so that
// epsilons count (a Dice scale of at most 1e3), and what follows is drawn to undo it.
class RandomLayers {
 public:
  // Both must outlive this.
  RandomLayers(Rng& rng, RawModel& model) : rng_(rng), model_(model) {}

  // y = W x + b, from `scale` to `out_scale`.
  void Linear(const std::string& prefix, const std::vector<double>& scale, const std::vector<double>& out_scale,
              bool bias);
  // Statistics of values of this scale. Returns the scale of the result.
  std::vector<double> BatchNorm(const std::string& prefix, const v1::BatchNorm& bn, const std::vector<double>& scale);
  // Linear, BatchNorm, activation, BatchNorm as `layer` says. Returns the scale of the result.
  std::vector<double> Layer(const std::string& prefix, const v1::Layer& layer, const std::vector<double>& scale);

  // `<prefix>.l<i>` in a row. Layers: a repeated field of v1::Layer.
  template <typename Layers>
  std::vector<double> Stack(const std::string& prefix, const Layers& layers, std::vector<double> scale) {
    for (int i = 0; i < layers.size(); ++i) scale = Layer(absl::StrCat(prefix, ".l", i), layers[i], scale);
    return scale;
  }

 private:
  void Add(const std::string& name, const std::vector<double>& values);
  void Vector(const std::string& name, std::vector<double> scale, double sigma);
  void Affine(const std::string& prefix, size_t units);
  void Alpha(const std::string& name, size_t units);
  void Dice(const std::string& prefix, const v1::Dice& dice, const std::vector<double>& scale);
  std::vector<double> Activation(const std::string& prefix, const v1::Activation& activation,
                                 const std::vector<double>& scale);

  Rng& rng_;
  RawModel& model_;
};

}  // namespace din::testing
