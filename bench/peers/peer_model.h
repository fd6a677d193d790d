// A model of a reference shape (tests/model/bench_model.h) as other runtimes are given it: layers in plain floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "model/input.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"

namespace din::peers {

// w x + b, then the activation.
struct PeerLayer {
  enum class Activation { kNone, kSigmoid, kDice };
  int64_t in = 0;
  int64_t out = 0;
  std::vector<float> w;  // [out, in]
  std::vector<float> b;  // [out]
  Activation activation = Activation::kNone;
  // Dice: x (p + alpha (1 - p)), p = sigmoid((x - mean) / sqrt(var + eps)); each [out].
  std::vector<float> mean, var, alpha;
  double eps = 0;
};

struct PeerTable {
  int64_t rows = 0;
  int64_t dim = 0;
  std::span<const float> values;  // borrowed from the tensors
};

// Attention over [q, k, q - k, q * k], the weights not normalised; then the tower over [interest, q], followed by
// interest * q (`product`) or the user's fields.
struct PeerModel {
  std::vector<PeerTable> fields;  // of candidates and behaviours, which share tables
  std::vector<PeerTable> user;
  int64_t width = 0;  // of q and k
  int64_t user_width = 0;
  std::vector<PeerLayer> attention;  // the last has one output
  bool product = false;
  // BatchNorm in front of the tower; empty: none.
  std::vector<float> bn_gamma, bn_beta, bn_mean, bn_var;
  double bn_eps = 0;
  std::vector<PeerLayer> tower;  // the last has one output; the score is its sigmoid
};

// Of PaperModel() or CompactModel(), whose tensors must outlive the result. Ends the program for anything else.
PeerModel MakePeerModel(const v1::ModelSpec& spec, const TensorMap& tensors);

// Rows of the tables: what is left of a request when its ids have been looked up.
struct PeerRequest {
  size_t candidates = 0;
  size_t behaviours = 0;
  std::vector<std::vector<int64_t>> candidate_rows;  // [field][candidate]
  std::vector<std::vector<int64_t>> behaviour_rows;  // [field][behaviour]
  std::vector<int64_t> user_rows;                    // [user field]
};

PeerRequest DrawRequest(const PeerModel& model, size_t candidates, size_t behaviours, std::mt19937_64& rng);

// `input` is decoded for a model of that spec; every id in it is known.
PeerRequest MakePeerRequest(const v1::ModelSpec& spec, const ScoringInput& input);

// As a client would send it, without scores.
v1::GoldenCase AsColumns(const v1::ModelSpec& spec, const PeerRequest& request);

}  // namespace din::peers
