// The latency line with swap marks, and the memory under it, as one SVG file.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bench/swap/phases.h"

namespace din::swap {

struct Picture {
  std::string title;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  std::vector<Request> requests;
  std::vector<ModelEvent> events;
  std::string model;                                  // whose requests these are
  std::vector<std::pair<int64_t, int64_t>> resident;  // time, bytes
  std::vector<Window> stolen;                         // FindStolen
};

std::string ToSvg(const Picture& picture);

}  // namespace din::swap
