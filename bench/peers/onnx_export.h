// A PeerModel as an ONNX graph, in the forms in which people serve it.
#pragma once

#include <string>

#include "bench/peers/peer_model.h"

namespace din::peers {

enum class Form {
  // What every framework exports: behaviours tiled per candidate, [q, k, q - k, q * k] through dense layers.
  kTiled,
  // The first layer split by hand: (q * k) Wp + aq + ak, behaviours once.
  kSplit,
  // The first layer split into one small matrix per candidate: k (Wk + diag(q) Wp) + aq, behaviours once.
  kPerCandidate,
};

// What the graph is given. Dense: q [B, width], k ([B, H, width] when tiled, else [H, width]), u [1, user_width].
// Rows: for each field cand<i> [B] and hist<i> ([B, H] when tiled, else [H]), for each user field user<i> [1], all
// int64.
enum class Inputs { kDense, kRows };

// Serialised; opset 17. One output, scores [B].
std::string ExportOnnx(const PeerModel& model, Form form, Inputs inputs);

}  // namespace din::peers
