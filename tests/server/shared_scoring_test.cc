#include "server/shared_scoring.h"

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din {
namespace {

using testing::DecodeOrDie;
using testing::OrDie;
using testing::RawModel;

class Job final : public ScoringJob {
 public:
  Job(const DinModel& model, ScoringPool& pool, const ScoringInput& input)
      : scores(input.candidates), model_(model), pool_(pool), input_(input) {}

  absl::Status Outcome() { return outcome_.get_future().get(); }

  std::vector<float> scores;
  // Set on the scoring thread, where the queue no longer looks.
  bool cancel_when_running = false;
  SteadyTime deadline_when_running = SteadyTime::max();

 private:
  void Run(ScoringMemory& memory) override {
    memory.input = input_;
    if (cancel_when_running) cancelled = true;
    deadline = deadline_when_running;
    outcome_.set_value(ScoreShared(model_, *this, pool_, memory, scores));
  }
  void Refuse(const absl::Status& status) override { outcome_.set_value(status); }

  const DinModel& model_;
  ScoringPool& pool_;
  const ScoringInput& input_;
  std::promise<absl::Status> outcome_;
};

struct Bed {
  explicit Bed(RawModel model) : raw(std::move(model)) {}

  RawModel raw;
  // The slowest: the most pieces for the fewest candidates.
  std::unique_ptr<const DinModel> model = OrDie(DinModel::Create(raw.spec, raw.tensors, InstructionSet::kBaseline));
};

class SharedScoringTest : public ::testing::TestWithParam<const char*> {
 protected:
  static const Bed& BedOf(const std::string& name) {
    static const Bed paper(testing::PaperModel()), compact(testing::CompactModel());
    return name == "paper" ? paper : compact;
  }

  const RawModel& raw_ = BedOf(GetParam()).raw;
  const std::unique_ptr<const DinModel>& model_ = BedOf(GetParam()).model;

  ScoringInput Draw(size_t candidates, size_t behaviours) const {
    testing::Rng rng(candidates + behaviours);
    return DecodeOrDie(model_->decoder(), testing::RandomRequest(rng, raw_.spec, raw_.tensors,
                                                                 {.candidates = candidates, .behaviours = behaviours}));
  }
};

TEST_P(SharedScoringTest, ScoresAreThoseOfOneThreadBitForBit) {
  ScoringPool pool({.threads = 3, .queue = 4});
  for (const size_t candidates : {1, 2, 9, 67, 150}) {
    const ScoringInput input = Draw(candidates, 30);
    Workspace workspace;
    std::vector<float> expected(candidates);
    model_->Score(input, workspace, expected);
    for (int time = 0; time < 10; ++time) {
      Job job(*model_, pool, input);
      ASSERT_TRUE(pool.Submit(&job).ok());
      ASSERT_TRUE(job.Outcome().ok());
      ASSERT_EQ(job.scores, expected) << candidates << " candidates, time " << time;
    }
  }
}

TEST_P(SharedScoringTest, RequestsShareThreadsWithoutMixingScores) {
  ScoringPool pool({.threads = 3, .queue = 4});
  std::vector<std::thread> clients;
  for (const size_t candidates : {40, 60}) {
    clients.emplace_back([&, candidates] {
      const ScoringInput input = Draw(candidates, 30);
      Workspace workspace;
      std::vector<float> expected(candidates);
      model_->Score(input, workspace, expected);
      for (int time = 0; time < 20; ++time) {
        Job job(*model_, pool, input);
        ASSERT_TRUE(pool.Submit(&job).ok());
        ASSERT_TRUE(job.Outcome().ok());
        ASSERT_EQ(job.scores, expected) << candidates << " candidates, time " << time;
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_P(SharedScoringTest, CancelledOrLateIsSeenWhileScoring) {
  ScoringPool pool({.threads = 2, .queue = 4});
  for (const size_t candidates : {1, 150}) {  // too small to share; shared
    const ScoringInput input = Draw(candidates, 30);
    Job cancelled(*model_, pool, input), late(*model_, pool, input);
    cancelled.cancel_when_running = true;
    late.deadline_when_running = std::chrono::steady_clock::now();
    ASSERT_TRUE(pool.Submit(&cancelled).ok());
    EXPECT_EQ(cancelled.Outcome(), absl::CancelledError("cancelled while scoring"));
    ASSERT_TRUE(pool.Submit(&late).ok());
    EXPECT_EQ(late.Outcome(), absl::DeadlineExceededError("deadline: passed while scoring"));
    EXPECT_THAT(late.scores, ::testing::Each(0.0f));  // nothing was computed
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SharedScoringTest, ::testing::Values("paper", "compact"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace din
