#include "server/scoring_pool.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <new>
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
    // A second call would throw. A copy of its own: absl counts references where ThreadSanitizer does not see it.
    outcome_.set_value(absl::Status(status.code(), status.message()));
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

// --- Sharing ---------------------------------------------------------------------------------------------------------

class TestWork : public SharedWork {
 public:
  explicit TestWork(std::function<void(size_t begin, size_t end)> work) : work_(std::move(work)) {}
  void Run(size_t begin, size_t end, ScoringMemory& /*memory*/) override { work_(begin, end); }

 private:
  std::function<void(size_t begin, size_t end)> work_;
};

// Share, again until at least one thread was idle and asked: only then does `work` run.
void ShareWithHelp(ScoringPool& pool, size_t units, ScoringMemory& memory,
                   const std::function<void(size_t begin, size_t end)>& work) {
  for (bool alone = true; alone;) {
    alone = false;
    TestWork asked([&](size_t begin, size_t end) { end - begin == units ? void(alone = true) : work(begin, end); });
    pool.Share(asked, units, 1, memory);
    if (alone) std::this_thread::yield();
  }
}

TEST(ScoringPoolTest, IdleThreadHelpsWithSharedWork) {
  ScoringPool pool({.threads = 2, .queue = 4});
  std::mutex mutex;
  std::set<std::thread::id> threads;
  TestJob job([&](ScoringMemory& memory) {
    ShareWithHelp(pool, 100, memory, [&](size_t, size_t) {
      for (size_t here = 0; here < 2; std::this_thread::yield()) {  // without help this never ends
        std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
        here = threads.size();
      }
    });
  });
  ASSERT_TRUE(pool.Submit(&job).ok());
  EXPECT_TRUE(job.Outcome().ok());
}

TEST(ScoringPoolTest, BusyPoolLeavesSharedWorkInOnePieceOnItsThread) {
  ScoringPool pool({.threads = 2, .queue = 4});
  Gate gate;
  ASSERT_TRUE(pool.Submit(&gate.job).ok());
  gate.WaitUntilEntered();
  std::vector<std::pair<size_t, size_t>> pieces;
  TestJob job([&](ScoringMemory& memory) {
    TestWork work([&](size_t begin, size_t end) { pieces.emplace_back(begin, end); });
    pool.Share(work, 100, 1, memory);
  });
  ASSERT_TRUE(pool.Submit(&job).ok());
  EXPECT_TRUE(job.Outcome().ok());
  gate.Open();
  EXPECT_TRUE(gate.job.Outcome().ok());
  EXPECT_THAT(pieces, ::testing::ElementsAre(std::pair<size_t, size_t>(0, 100)));
}

TEST(ScoringPoolTest, SharingThatIsSwitchedOffAsksNobody) {
  ScoringPool pool({.threads = 2, .queue = 4, .share = false});
  int pieces = 0;
  TestJob job([&](ScoringMemory& memory) {
    TestWork work([&](size_t, size_t) { ++pieces; });
    pool.Share(work, 100, 1, memory);
  });
  ASSERT_TRUE(pool.Submit(&job).ok());
  EXPECT_TRUE(job.Outcome().ok());
  EXPECT_EQ(pieces, 1);
}

// The helper gets a job into the queue while it is in its first piece. It must do that job before any further piece,
// and the owner cannot: it is held up in its own piece until the job has run.
TEST(ScoringPoolTest, HelperTurnsToAQueuedJobAfterItsPiece) {
  ScoringPool pool({.threads = 2, .queue = 4});
  std::atomic<bool> submitted = false, small_ran = false;
  std::atomic<int> helped_too_long = 0;
  TestJob small([&](ScoringMemory&) { small_ran = true; });
  TestJob large([&](ScoringMemory& memory) {
    const std::thread::id owner = std::this_thread::get_id();
    ShareWithHelp(pool, 1000, memory, [&](size_t, size_t) {
      if (std::this_thread::get_id() == owner) {
        while (!small_ran) std::this_thread::yield();
      } else if (!submitted.exchange(true)) {
        ASSERT_TRUE(pool.Submit(&small).ok());
      } else if (!small_ran) {
        ++helped_too_long;
      }
    });
  });
  ASSERT_TRUE(pool.Submit(&large).ok());
  EXPECT_TRUE(small.Outcome().ok());
  EXPECT_TRUE(large.Outcome().ok());
  EXPECT_EQ(helped_too_long, 0);
}

TEST(ScoringPoolTest, WhatAHelperCannotAllocateFailsTheOwner) {
  ScoringPool pool({.threads = 2, .queue = 4});
  bool caught = false;
  TestJob job([&](ScoringMemory& memory) {
    const std::thread::id owner = std::this_thread::get_id();
    std::atomic<bool> thrown = false;
    try {
      ShareWithHelp(pool, 100, memory, [&](size_t, size_t) {
        if (std::this_thread::get_id() != owner) {
          thrown = true;
          throw std::bad_alloc();
        }
        while (!thrown) std::this_thread::yield();
      });
    } catch (const std::bad_alloc&) {
      caught = true;
    }
  });
  ASSERT_TRUE(pool.Submit(&job).ok());
  EXPECT_TRUE(job.Outcome().ok());
  EXPECT_TRUE(caught);
}

// Owners and helpers in all roles at once: every unit is done exactly once before its owner goes on.
TEST(ScoringPoolTest, EveryUnitIsDoneOnceUnderLoad) {
  constexpr int kSubmitters = 3, kJobs = 1500;
  constexpr size_t kUnits = 17;
  ScoringPool pool({.threads = 4, .queue = kSubmitters});
  std::atomic<int> wrong = 0;
  std::vector<std::thread> submitters;
  for (int s = 0; s < kSubmitters; ++s) {
    submitters.emplace_back([&, s] {
      for (int i = 0; i < kJobs; ++i) {
        TestJob job([&](ScoringMemory& memory) {
          int done[kUnits] = {};  // not atomic: ThreadSanitizer sees whether two threads meet
          TestWork work([&](size_t begin, size_t end) {
            for (; begin < end; ++begin) ++done[begin];
          });
          pool.Share(work, kUnits, static_cast<size_t>(i % 4), memory);
          for (const int times : done) wrong += times != 1;
        });
        ASSERT_TRUE(pool.Submit(&job).ok());
        ASSERT_TRUE(job.Outcome().ok());
        if (i % 8 == s) std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
  }
  for (std::thread& submitter : submitters) submitter.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ScoringPoolTest, EndOfThePoolLetsSharedWorkFinish) {
  auto pool = std::make_unique<ScoringPool>(ScoringPool::Options{.threads = 3, .queue = 4});
  ScoringPool& alive = *pool;
  std::promise<void> entered;
  std::atomic<size_t> units = 0;
  TestJob job([&](ScoringMemory& memory) {
    TestWork work([&](size_t begin, size_t end) {
      if (begin == 0) entered.set_value();
      std::this_thread::sleep_for(milliseconds(1));
      units += end - begin;
    });
    alive.Share(work, 50, 2, memory);
  });
  ASSERT_TRUE(pool->Submit(&job).ok());
  entered.get_future().wait();
  pool.reset();
  EXPECT_TRUE(job.Outcome().ok());
  EXPECT_EQ(units, 50u);
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

// Says on which cores it may run.
struct WhereJob final : ScoringJob {
  void Run(ScoringMemory&) override {
    cpu_set_t cores;
    sched_getaffinity(0, sizeof(cores), &cores);
    result.set_value(CPU_COUNT(&cores));
  }
  void Refuse(const absl::Status&) override { result.set_value(-1); }
  std::promise<int> result;
};

TEST(ScoringPoolTest, PinnedThreadHasOneCoreAndOthersHaveThemAll) {
  cpu_set_t cores;
  ASSERT_EQ(sched_getaffinity(0, sizeof(cores), &cores), 0);
  for (const bool pin : {false, true}) {
    WhereJob job;
    ScoringPool pool({.threads = 3, .queue = 4, .pin = pin});
    ASSERT_TRUE(pool.Submit(&job).ok());
    EXPECT_EQ(job.result.get_future().get(), pin ? 1 : CPU_COUNT(&cores));
  }
}

}  // namespace
}  // namespace din
