// Requests drawn at random for whatever model the server has: its metadata say what it wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/scoring.pb.h"

namespace din::load {

// A number that varies from request to request: log-normal with this median, rounded, cut to [1, most]. sigma (of the
// logarithm) 0: always the median. Lengths of user histories are close to that: a few very long ones.
struct Length {
  double median = 1;
  double sigma = 0;
  size_t most = 4096;
};

struct DrawOptions {
  std::string model;
  size_t count = 4096;  // distinct requests
  Length candidates{200, 0, 4096};
  Length behaviours{50, 0, 16384};
  Length list_ids{3, 0.5, 1000};  // of an ID_LIST
  // Popularity of ids: the rank of an id is drawn with a density in proportion to rank^-zipf. 0: uniform. Ranks are
  // scattered over the rows, so that popular rows are not neighbours in memory.
  double zipf = 1.0;
  // Share of the ids that the model does not know, where its spec says what to do with them.
  double out_of_vocabulary = 0;
  uint32_t top_k = 0;
  // Send also what a side table would supply.
  enum class Fields { kRequired, kAll } fields = Fields::kRequired;
  // Known raw ids by id map, most popular first: needed for a vocabulary, whose keys the metadata do not list.
  std::map<std::string, std::vector<std::string>> ids;
  uint64_t seed = 1;

  std::string Describe() const;
};

// INVALID_ARGUMENT names the feature that cannot be drawn, and the option that would help.
absl::StatusOr<std::vector<v1::ScoreRequest>> DrawRequests(const v1::GetModelMetadataResponse& metadata,
                                                           const DrawOptions& options);

}  // namespace din::load
