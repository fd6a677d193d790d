// The part of libtorch that the trainer uses. It takes ten seconds to compile (torch/torch.h takes thirty, a
// precompiled header of either half a gigabyte), so it is included by as few files as possible.
#pragma once

#include <torch/nn/module.h>
