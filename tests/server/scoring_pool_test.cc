#include "server/scoring_pool.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Remembers what became of it.
class TestJob : public ScoringJob {
 public:
  explicit TestJob(std::function<void(ScoringMemory&)> work = [](ScoringMemory&) {}) : work_(std::move(work)) {}

  void Run(ScoringMemory& memory) override {
    work_(memory);
    End(absl::OkStatus());
  }
  void Refuse(const absl::Status& status) override { End(status); }

  // Waits for the end.
  absl::Status Outcome() { return outcome_.get_future().get(); }

 private:
  void End(const absl::Status& status) {
    ticket.Release();
    outcome_.set_value(status);  // a second call would throw
  }

  std::function<void(ScoringMemory&)> work_;
  std::promise<absl::Status> outcome_;
};

// Keeps one scoring thread busy until it is opened.
class Gate {
 public:
  Gate()
      : job([this](ScoringMemory&) {
          entered_.set_value();
          opened_.get_future().wait();
        }) {}
  void WaitUntilEntered() { entered_.get_future().wait(); }
  void Open() { opened_.set_value(); }

 private:
  std::promise<void> entered_;
  std::promise<void> opened_;

 public:
  TestJob job;
};

TEST(ScoringPoolTest, RunsEveryJobInTheOrderOfSubmission) {
  ScoringPool pool({.threads = 1, .queue = 100});
  Gate gate;
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  std::vector<int> order;
  std::vector<std::unique_ptr<TestJob>> jobs;
  for (int i = 0; i < 100; ++i) {
    jobs.push_back(std::make_unique<TestJob>([&order, i](ScoringMemory&) { order.push_back(i); }));
    ASSERT_TRUE(pool.Submit(jobs.back().get()).ok());
  }
  gate.Open();
  for (const auto& job : jobs) EXPECT_TRUE(job->Outcome().ok());
  ASSERT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(ScoringPoolTest, FullQueueRefusesAndLeavesTheJobAlone) {
  ScoringPool pool({.threads = 1, .queue = 1});
  Gate gate;
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  TestJob waiting, refused;
  EXPECT_TRUE(pool.Submit(&waiting).ok());
  EXPECT_EQ(pool.Submit(&refused), absl::ResourceExhaustedError("queue: 1 requests waiting, limit 1"));
  gate.Open();
  EXPECT_TRUE(waiting.Outcome().ok());
  EXPECT_TRUE(pool.Submit(&refused).ok());  // untouched, so it can be sent again
  EXPECT_TRUE(refused.Outcome().ok());
}

TEST(ScoringPoolTest, JobWhoseDeadlinePassedInTheQueueIsNotRun) {
  ScoringPool pool({.threads = 1, .queue = 4});
  Gate gate;
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  bool ran = false;
  TestJob late([&](ScoringMemory&) { ran = true; }), punctual;
  late.deadline = steady_clock::now() + milliseconds(5);
  punctual.deadline = steady_clock::now() + std::chrono::hours(1);
  ASSERT_TRUE(pool.Submit(&late).ok());
  ASSERT_TRUE(pool.Submit(&punctual).ok());
  std::this_thread::sleep_until(late.deadline);
  gate.Open();
  EXPECT_EQ(late.Outcome(), absl::DeadlineExceededError("deadline: passed in the queue"));
  EXPECT_TRUE(punctual.Outcome().ok());
  EXPECT_FALSE(ran);
}

TEST(ScoringPoolTest, JobCancelledInTheQueueIsNotRun) {
  ScoringPool pool({.threads = 1, .queue = 4});
  Gate gate;
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  bool ran = false;
  TestJob cancelled([&](ScoringMemory&) { ran = true; });
  ASSERT_TRUE(pool.Submit(&cancelled).ok());
  cancelled.cancelled = true;
  gate.Open();
  EXPECT_EQ(cancelled.Outcome().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(ran);
}

TEST(ScoringPoolTest, TicketCountsAsRunningWhileTheJobRuns) {
  AdmissionController admission({.queue = 4});
  ScoringPool pool({.threads = 1, .queue = 4});
  Gate gate;
  gate.job.ticket = *admission.TryAdmit({});
  EXPECT_EQ(admission.waiting(), 1u);
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(admission.running(), 1u);
  gate.Open();
  EXPECT_TRUE(gate.job.Outcome().ok());
  EXPECT_EQ(admission.running(), 0u);
}

TEST(ScoringPoolTest, EveryThreadHasMemoryOfItsOwn) {
  constexpr int kThreads = 3;
  ScoringPool pool({.threads = kThreads, .queue = kThreads});
  std::mutex mutex;
  std::set<ScoringMemory*> memories;
  std::atomic<int> together = 0;
  std::vector<std::unique_ptr<TestJob>> jobs;
  for (int t = 0; t < kThreads; ++t) {
    jobs.push_back(std::make_unique<TestJob>([&](ScoringMemory& memory) {
      ++together;
      while (together < kThreads) std::this_thread::yield();
      std::lock_guard lock(mutex);
      memories.insert(&memory);
    }));
    ASSERT_TRUE(pool.Submit(jobs.back().get()).ok());
  }
  for (const auto& job : jobs) EXPECT_TRUE(job->Outcome().ok());
  EXPECT_EQ(memories.size(), static_cast<size_t>(kThreads));
}

TEST(ScoringPoolTest, EndOfThePoolWaitsForWhatRunsAndRefusesWhatWaits) {
  Gate gate;
  TestJob waiting;
  auto pool = std::make_unique<ScoringPool>(ScoringPool::Options{.threads = 1, .queue = 4});
  ASSERT_TRUE(pool->Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  ASSERT_TRUE(pool->Submit(&waiting).ok());
  std::thread end([&] { pool.reset(); });
  EXPECT_EQ(waiting.Outcome(), absl::UnavailableError("server: stopping"));  // while the other still runs
  gate.Open();
  end.join();
  EXPECT_TRUE(gate.job.Outcome().ok());
}

// Many submitters, with deadlines that pass and cancellations at any moment: each job ends once, and nothing is left.
TEST(ScoringPoolTest, EveryJobEndsExactlyOnceUnderLoad) {
  constexpr int kSubmitters = 4, kJobs = 2000;
  AdmissionController admission({.queue = 16});
  std::atomic<int> ran = 0, refused = 0;
  {
    ScoringPool pool({.threads = 2, .queue = 16});
    std::vector<std::thread> submitters;
    for (int s = 0; s < kSubmitters; ++s) {
      submitters.emplace_back([&, s] {
        for (int i = 0; i < kJobs; ++i) {
          TestJob job;
          if (i % 7 == 0) job.deadline = steady_clock::now() + std::chrono::microseconds(s * 10);
          auto ticket = admission.TryAdmit({.deadline = job.deadline});
          if (!ticket.ok()) {
            ++refused;
            continue;
          }
          job.ticket = *std::move(ticket);
          const absl::Status submitted = pool.Submit(&job);
          ASSERT_TRUE(submitted.ok()) << submitted;
          if (i % 5 == 0) job.cancelled = true;
          ++(job.Outcome().ok() ? ran : refused);
        }
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
  }
  EXPECT_EQ(ran + refused, kSubmitters * kJobs);
  EXPECT_GT(ran, 0);
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(admission.running(), 0u);
}

}  // namespace
}  // namespace din
