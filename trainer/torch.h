// The part of libtorch that the trainer uses. It takes ten seconds to compile (torch/torch.h takes thirty), so it is
// included by as few files as possible. Precompiling it does not pay: that takes 30 s of CPU and half a gigabyte, and
// train.cc then 11 s instead of 21, network.cc 8 instead of 14.
#pragma once

#include <torch/nn/module.h>
