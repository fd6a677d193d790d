// Models that no framework made: drawn at random from the whole family that model_spec.proto describes, and the two
// shapes of the benchmarks. For tests and benches; misuse ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/input.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"

namespace din::testing {

using Rng = std::mt19937_64;

// What a snapshot holds, in memory. Moves keep the tensors where they are.
struct RawModel {
  v1::ModelSpec spec;
  TensorMap tensors;  // into `memory`
  std::vector<std::unique_ptr<std::byte[]>> memory;

  // Numbers are rounded to `type`, which is F32, F16 or BF16.
  void AddWeights(const std::string& name, std::initializer_list<int64_t> shape, std::span<const double> values,
                  DataType type = DataType::kF32);
  void AddIntegers(const std::string& name, std::span<const int64_t> values, DataType type = DataType::kI64);
  void AddStrings(const std::string& name, std::span<const std::string> values);
  // Of an F32 tensor, to change.
  std::span<float> Floats(std::string_view name);
};

struct RandomModelOptions {
  // Upper bounds of what is drawn.
  size_t units = 20;      // of a layer
  size_t slot_width = 9;  // several slots make a key
  size_t positions = 12;  // max_length of a sequence
};

// A model that ResolveSpec and DinModel::Create accept; the same for the same seed. Well-conditioned: |logit| <= 15 for
// requests of RandomRequest, Dice scale <= 1e3, although some units live at a scale of 1/200, where epsilons count.
RawModel RandomModel(uint64_t seed, const RandomModelOptions& options = {});

struct RequestSize {
  size_t candidates = 4;
  size_t behaviours = 6;  // in every sequence
  size_t list_ids = 4;    // upper bound of an ID_LIST
};

// A valid request for the model, with ids that are known, unknown or padding where the spec allows it, and with some of
// the values that a side table would supply. Has no scores.
v1::GoldenCase RandomRequest(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size);

// The request as the model reads it, under the default limits.
ScoringInput DecodeOrDie(const InputDecoder& decoder, const v1::GoldenCase& request);

struct BenchModelOptions {
  uint64_t seed = 1;
  int64_t item_rows = 1000;
  int64_t category_rows = 100;  // also of the compact shape's other fields
  size_t behaviours = 50;       // for which the logits spread by 1.5 (standard deviation)
};

// The reference workloads of DIN serving. Paper: item 64 + category 64, attention 512 -> 80 -> 40 -> 1 (sigmoid, no
// softmax), tower [interest, candidate, interest * candidate] 384 -> BatchNorm -> 80 -> 40 -> 1 (Dice).
RawModel PaperModel(const BenchModelOptions& options = {});
// Compact: 3 fields of 12, attention 144 -> 36 -> 1 (Dice), tower [interest, candidate, ten user fields] 192 -> 200 ->
// 80 -> 1 (Dice).
RawModel CompactModel(const BenchModelOptions& options = {});

}  // namespace din::testing
