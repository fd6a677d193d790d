// One request on several scoring threads.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "model/din_model.h"
#include "model/input.h"
#include "server/scoring_pool.h"

namespace din {

// Below this much work a second thread is not asked: waking it takes 20 to 25 us, it starts with cold caches, and every
// piece prepares the behaviours again. Each further one must have as much to do.
inline constexpr double kLeastMicrosecondsPerThread = 100;

// model.Score for the job that runs on this scoring thread, with memory.input, into `scores` [memory.input.candidates].
// A request large enough is shared with threads of `pool` that are idle; the scores are the same, bit for bit.
// CANCELLED and DEADLINE_EXCEEDED as soon as it is seen to be so: before it begins, and between the pieces of a shared
// one.
absl::Status ScoreShared(const DinModel& model, const ScoringJob& job, ScoringPool& pool, ScoringMemory& memory,
                         std::span<float> scores);

}  // namespace din
