#include "server/shared_scoring.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace din {
namespace {

// The attention works on groups of this many candidates.
constexpr size_t kGroup = 8;
// The smallest piece, which is what one thread may have to wait for another in the end.
constexpr double kUnitMicroseconds = 50;

size_t CandidatesPerUnit(double candidate_us) {
  const double candidates = kUnitMicroseconds / candidate_us;
  if (candidates < kGroup) return std::max<size_t>(1, static_cast<size_t>(candidates));
  return static_cast<size_t>(candidates) / kGroup * kGroup;
}

absl::Status Interrupted(const ScoringJob& job) {
  if (job.cancelled.load(std::memory_order_relaxed)) return absl::CancelledError("cancelled while scoring");
  if (std::chrono::steady_clock::now() < job.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("deadline: passed while scoring");
}

class CandidateUnits final : public SharedWork {
 public:
  CandidateUnits(const DinModel& model, const ScoringJob& job, const ScoringInput& input, const Workspace& user,
                 size_t unit, std::span<float> scores)
      : model_(model), job_(job), input_(input), user_(user), unit_(unit), scores_(scores) {}

  size_t units() const { return (scores_.size() + unit_ - 1) / unit_; }

  void Run(size_t begin, size_t end, ScoringMemory& memory) override {
    if (!Interrupted(job_).ok()) return;
    const size_t first = begin * unit_;
    const size_t last = std::min(end * unit_, scores_.size());
    model_.ScoreCandidates(input_, user_, first, memory.workspace, scores_.subspan(first, last - first));
  }

 private:
  const DinModel& model_;
  const ScoringJob& job_;
  const ScoringInput& input_;
  const Workspace& user_;
  const size_t unit_;
  const std::span<float> scores_;
};

}  // namespace

absl::Status ScoreShared(const DinModel& model, const ScoringJob& job, ScoringPool& pool, ScoringMemory& memory,
                         std::span<float> scores) {
  // Decoding has taken its time.
  if (absl::Status status = Interrupted(job); !status.ok()) return status;
  const double candidate_us = model.EstimateCandidate(memory.input);
  const auto threads =
      static_cast<size_t>(candidate_us * static_cast<double>(scores.size()) / kLeastMicrosecondsPerThread);
  if (threads < 2) {
    model.Score(memory.input, memory.workspace, scores);
    return absl::OkStatus();
  }
  model.PrepareUser(memory.input, memory.workspace);
  CandidateUnits work(model, job, memory.input, memory.workspace, CandidatesPerUnit(candidate_us), scores);
  pool.Share(work, work.units(), threads - 1, memory);
  return Interrupted(job);
}

}  // namespace din
