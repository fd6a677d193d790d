// The machine that a figure belongs to.
#pragma once

#include <cstdint>
#include <string>

namespace din::bench {

struct Machine {
  std::string cpu;
  int cores = 0;  // that this process may use
  int64_t memory_bytes = 0;
  std::string kernel;
};

Machine DescribeMachine();

}  // namespace din::bench
