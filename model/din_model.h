// The forward pass: ModelSpec and raw layers in, folded and packed once, then Score.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/instruction_set.h"
#include "kernels/precision.h"
#include "model/input.h"
#include "model/resolved_spec.h"
#include "model/tensor.h"

namespace din {

// The memory one scoring thread works in. Grows to the largest request seen, then stays. One thread at a time.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  struct Buffers;  // known to din_model.cc alone

 private:
  friend class DinModel;
  std::unique_ptr<Buffers> buffers_;
};

// How much the behaviours counted for one candidate, per attention of the spec.
struct AttentionWeights {
  std::vector<float>
      weights;  // parallel to ScoringInput::Sequence::positions; empty when the sequence counted as empty
};

// Immutable: every method is const and safe from any number of threads, each with a Workspace of its own.
// A candidate's score is the same, bit for bit, whatever other candidates came with it.
class DinModel {
 public:
  // Embedding tables, id maps and side tables stay where `tensors` has them: that memory must outlive the model. All
  // else is folded in fp64 and packed. INVALID_ARGUMENT names what is missing, misshapen, not finite or not used.
  // Without a precision, it is the fastest exact one.
  static absl::StatusOr<std::unique_ptr<const DinModel>> Create(v1::ModelSpec spec, const TensorMap& tensors,
                                                                InstructionSet isa,
                                                                std::optional<Precision> precision = Precision::kFp32);
  ~DinModel();

  const v1::ModelSpec& spec() const;
  const ResolvedSpec& resolved() const;
  const InputDecoder& decoder() const;
  InstructionSet instruction_set() const;
  Precision precision() const;  // of the activation units: the nearest to Create's that this CPU and `isa` support

  // scores[c] in [0, 1] for each candidate. `input` comes from decoder().Decode. Cannot fail; does not allocate once
  // the workspace has seen a request of this size.
  void Score(const ScoringInput& input, Workspace& workspace, std::span<float> scores) const;

  // The same in two steps, so that several threads can share one request: first, once, what the user brings, then
  // candidates [first, first + scores.size()). While ScoreCandidates runs, nobody may write `user`, except that it is
  // also the `workspace` of one of the threads. However the candidates are split, the scores are the same, bit for bit.
  void PrepareUser(const ScoringInput& input, Workspace& user) const;
  void ScoreCandidates(const ScoringInput& input, const Workspace& user, size_t first, Workspace& workspace,
                       std::span<float> scores) const;

  // What ScoreCandidates takes for one candidate of this request, in microseconds: within a factor of two or three,
  // good enough to decide whether it is worth sharing.
  double EstimateCandidate(const ScoringInput& input) const;

  // One entry per attention of the spec, for one candidate. Allocates: for people, not for the hot path.
  std::vector<AttentionWeights> Explain(const ScoringInput& input, size_t candidate, Workspace& workspace) const;

 private:
  struct Impl;
  explicit DinModel(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace din
