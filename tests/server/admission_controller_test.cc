#include "server/admission_controller.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(AdmissionControllerTest, RefusesAtOnceWhenAsManyWaitAsMay) {
  AdmissionController admission({.queue = 2});
  const auto first = admission.TryAdmit({});
  const auto second = admission.TryAdmit({});
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok());
  const auto third = admission.TryAdmit({});
  EXPECT_EQ(third.status(), absl::ResourceExhaustedError("queue: 2 requests waiting, limit 2"));
  EXPECT_EQ(admission.waiting(), 2u);
}

TEST(AdmissionControllerTest, LateRequestTakesNoPlace) {
  AdmissionController admission({.queue = 1});
  const auto now = steady_clock::now();
  const auto late = admission.TryAdmit({.deadline = now - milliseconds(3)}, now);
  EXPECT_EQ(late.status(), absl::DeadlineExceededError("deadline: passed 3000 us before admission"));
  EXPECT_EQ(admission.TryAdmit({.deadline = now}, now).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_TRUE(admission.TryAdmit({.deadline = now + milliseconds(1)}, now).ok());
}

TEST(AdmissionControllerTest, StartedRequestLeavesItsPlaceInTheQueue) {
  AdmissionController admission({.queue = 1});
  auto running = admission.TryAdmit({});
  ASSERT_TRUE(running.ok());
  running->Start();
  running->Start();  // only once
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(admission.running(), 1u);
  EXPECT_TRUE(admission.TryAdmit({}).ok());
}

TEST(AdmissionControllerTest, TicketGivesItsPlaceBackWhereverItEnds) {
  AdmissionController admission({.queue = 8});
  {
    Ticket kept;
    {
      auto ticket = admission.TryAdmit({});
      ASSERT_TRUE(ticket.ok());
      kept = *std::move(ticket);
    }
    EXPECT_EQ(admission.waiting(), 1u);
    Ticket moved(std::move(kept));
    moved.Start();
    EXPECT_EQ(admission.running(), 1u);
    moved.Release();
    moved.Release();  // only once
    EXPECT_EQ(admission.running(), 0u);
  }
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(admission.running(), 0u);
}

TEST(AdmissionControllerTest, ManyThreadsNeverExceedTheLimitAndLeaveNothingBehind) {
  constexpr size_t kLimit = 3;
  AdmissionController admission({.queue = kLimit});
  std::atomic<size_t> inside = 0, most = 0, admitted = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        auto ticket = admission.TryAdmit({});
        if (!ticket.ok()) continue;
        ++admitted;
        const size_t now = ++inside;
        for (size_t seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        --inside;
        if (i % 2 == 0) ticket->Start();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(admitted, 0u);
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(admission.waiting(), 0u);
  EXPECT_EQ(admission.running(), 0u);
}

}  // namespace
}  // namespace din
