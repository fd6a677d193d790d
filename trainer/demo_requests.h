// Requests of real users for a demonstration: what they did, and candidates among which is what they did next.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "trainer/dataset.h"

namespace din {

struct DemoRequestOptions {
  std::string out;  // directory, made when missing
  std::string model = "movielens";
  int users = 5;
  int candidates = 20;
  int max_history = 50;
  uint64_t seed = 1;
};

// Writes <out>/user-<id>.json, a din.v1.ScoreRequest in proto3 JSON each, and <out>/next.tsv: file, raw id and title of
// the item that the user really touched next. The history ends before the user's last event, which is the test event
// of Protocol::kNextItem; the other candidates are items that the user never touched, drawn by how often they occur, so
// that people know them.
absl::Status WriteDemoRequests(const Dataset& data, const DemoRequestOptions& options);

}  // namespace din
