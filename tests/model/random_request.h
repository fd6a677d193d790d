// Requests that no user sent: drawn at random for any model, from its spec and its tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model/din_model.h"
#include "model/input.h"
#include "model/reference_model.h"
#include "model/tensor.h"
#include "proto/model_spec.pb.h"
#include "tests/model/random.h"
#include "tests/model/raw_model.h"

namespace din::testing {

struct RequestSize {
  size_t candidates = 4;
  size_t behaviours = 6;  // in every sequence
  size_t list_ids = 4;    // upper bound of an ID_LIST
};

// A valid request, with ids that are known, unknown or padding where the spec allows it, and with some of the values
// that a side table would supply. Has no scores.
v1::GoldenCase RandomRequest(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size);

// The request as the model reads it, under the default limits.
ScoringInput DecodeOrDie(const InputDecoder& decoder, const v1::GoldenCase& request);

std::vector<float> ScoresOf(const DinModel& model, const v1::GoldenCase& request);

// What the definition says in fp64 about this many random requests, one after the other.
reference::Scores<double> ScoreRandomRequests(Rng& rng, const RawModel& model, size_t requests,
                                              const RequestSize& size);

// One or the other, as the map's id_type says.
struct RawId {
  int64_t number = 0;
  std::string text;
  bool operator==(const RawId&) const = default;
};

// An id that the map has a row for.
RawId KnownId(Rng& rng, const v1::IdMap& map, const TensorMap& tensors);

// Rows that a table needs for every id of the map.
int64_t RowsNeeded(const v1::IdMap& map, const TensorMap& tensors);

}  // namespace din::testing
