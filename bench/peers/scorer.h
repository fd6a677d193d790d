// A contestant: something that turns a request of rows into scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bench/peers/onnx_export.h"
#include "bench/peers/peer_model.h"
#include "model/din_model.h"

namespace din::peers {

// Not thread-safe: one per thread.
class Scorer {
 public:
  virtual ~Scorer() = default;
  // Keeps the request as a client would send it (tiled, embedded): not what is timed. Requests count from 0.
  virtual void Add(const PeerRequest& request) = 0;
  virtual void Clear() = 0;  // forgets the requests
  // One score per candidate of the request.
  virtual void Score(size_t request, std::span<float> scores) = 0;
};

struct ScorerOptions {
  Inputs inputs = Inputs::kDense;
  int threads = 1;  // that one request may use
};

std::unique_ptr<Scorer> MakeOrtScorer(const PeerModel& model, Form form, const ScorerOptions& options);
// TorchScript, frozen; the tiled form, which is what torch users export.
std::unique_ptr<Scorer> MakeTorchScorer(const PeerModel& model, const ScorerOptions& options);
// Ours; `model` must outlive it. Always looks its rows up. Several threads share a request as in the server.
std::unique_ptr<Scorer> MakeDinScorer(const DinModel& model, int threads);

// The embeddings of rows, field after field: [rows, width].
std::vector<float> Embed(const std::vector<PeerTable>& tables, const std::vector<std::vector<int64_t>>& rows);

}  // namespace din::peers
