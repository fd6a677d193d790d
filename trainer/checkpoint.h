// Named arrays in one file that is either there and whole, or not there: the state of a training.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace din {

// A raw layer or table, row-major.
struct Weight {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct Checkpoint {
  std::string options;  // how it was trained: JSON, see CheckpointOptions in main.cc
  std::map<std::string, Weight> arrays;
  std::map<std::string, std::vector<int32_t>> counts;
};

// A safetensors file: written under a temporary name, synced, renamed.
absl::Status WriteCheckpoint(const std::string& path, const Checkpoint& checkpoint);

// NOT_FOUND when there is none; DATA_LOSS when it is damaged or not a checkpoint.
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path);

}  // namespace din
