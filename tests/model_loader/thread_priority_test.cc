// Loads make way for requests, and come to an end on a machine that never rests.
#include "model_loader/thread_priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace din {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// Of the calling thread.
std::string Priority() {
  if (sched_getscheduler(0) == SCHED_IDLE) return "idle";
  return "nice " + std::to_string(getpriority(PRIO_PROCESS, 0));
}

std::string WaitFor(const std::string& priority) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (Priority() != priority && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
  return Priority();
}

void RunInBackground(const std::function<void()>& work, const BackgroundOptions& options) {
  BackgroundThread().Run(work, options);
}

// As root, or where the limit allows it; else these threads have the one priority that they begin with.
bool MayRise() {
  bool may = false;
  RunInBackground([&] { may = Priority() == "idle"; }, {});
  return may;
}

TEST(ThreadPriorityTest, StarvesWhoGetsLessThanATenthOfACore) {
  EXPECT_EQ(StarvedAfter(0s, {}), 0s);
  EXPECT_EQ(StarvedAfter(0s, {.ran = 60s, .waited = 0s}), 0s) << "a good start is no credit for later";
  EXPECT_EQ(StarvedAfter(0s, {.ran = 1s, .waited = 9s}), 0s);
  EXPECT_EQ(StarvedAfter(0s, {.ran = 1s, .waited = 12s}), 3s);
  EXPECT_EQ(StarvedAfter(3s, {.ran = 0s, .waited = 12s}), 15s);
  EXPECT_EQ(StarvedAfter(15s, {.ran = 1s, .waited = 1s}), 7s);
}

TEST(ThreadPriorityTest, RisesWithTheTimeThatItStarved) {
  const auto after = [](nanoseconds starved) { return std::string(Name(PriorityAfter(starved, 5s))); };
  EXPECT_EQ(after(0s), "idle");
  EXPECT_EQ(after(5s - 1ns), "idle");
  EXPECT_EQ(after(5s), "nice 19");
  EXPECT_EQ(after(10s - 1ns), "nice 19");
  EXPECT_EQ(after(10s), "nice 10");
  EXPECT_EQ(after(24h), "nice 10");
  EXPECT_EQ(std::string(Name(PriorityAfter(0s, 0s))), "nice 10");
}

TEST(ThreadPriorityTest, TheCallerKeepsItsPriorityAndTheWorkIsDoneOnReturn) {
  const std::string before = Priority();
  std::string inside;
  std::thread::id thread;
  RunInBackground([&] { inside = Priority(), thread = std::this_thread::get_id(); }, {});
  EXPECT_TRUE(inside == "idle" || inside == "nice 19") << inside;
  EXPECT_NE(thread, std::this_thread::get_id());
  EXPECT_EQ(Priority(), before);
}

TEST(ThreadPriorityTest, StarvedWorkRisesStepByStepAndSaysSo) {
  if (!MayRise()) GTEST_SKIP() << "neither CAP_SYS_NICE nor RLIMIT_NICE 10";
  std::atomic<int64_t> waited_seconds = 9;  // and ran for one
  std::vector<std::string> raised;
  BackgroundOptions options;
  options.core_time = [&](pid_t) { return CoreTime{.ran = 1s, .waited = std::chrono::seconds(waited_seconds)}; };
  options.look_every = 1ms;
  options.on_raise = [&](BackgroundPriority priority, nanoseconds starved) {
    raised.push_back(std::string(Name(priority)) + " after " + std::to_string(starved / 1s));
  };
  std::string helper;
  BackgroundThread thread;
  thread.Run(
      [&] {
        EXPECT_EQ(Priority(), "idle");
        waited_seconds = 13;
        std::this_thread::sleep_for(20ms);
        EXPECT_EQ(Priority(), "idle");
        waited_seconds = 14;
        EXPECT_EQ(WaitFor("nice 19"), "nice 19");
        std::jthread([&] { helper = Priority(); }).join();
        waited_seconds = 19;
        EXPECT_EQ(WaitFor("nice 10"), "nice 10");
      },
      options);
  EXPECT_EQ(helper, "nice 19") << "threads of the work";
  EXPECT_EQ(raised, (std::vector<std::string>{"nice 19 after 5", "nice 10 after 10"}));
  // Its first work does not count for the next.
  thread.Run(
      [&] {
        EXPECT_EQ(Priority(), "idle");
        std::this_thread::sleep_for(20ms);
        EXPECT_EQ(Priority(), "idle");
        waited_seconds = 24;
        EXPECT_EQ(WaitFor("nice 19"), "nice 19");
      },
      options);
}

TEST(ThreadPriorityTest, WhatTheKernelDoesNotCountIsTimeThatHasPassed) {
  if (!MayRise()) GTEST_SKIP() << "neither CAP_SYS_NICE nor RLIMIT_NICE 10";
  BackgroundOptions options;
  options.patience = 10ms;
  options.look_every = 1ms;
  options.core_time = [](pid_t) { return std::nullopt; };
  RunInBackground([] { EXPECT_EQ(WaitFor("nice 10"), "nice 10"); }, options);
}

// Who waits for it to stop does not want to wait for a core as well.
TEST(ThreadPriorityTest, CancelledWorkHurriesAndIsNotCalledStarved) {
  if (!MayRise()) GTEST_SKIP() << "neither CAP_SYS_NICE nor RLIMIT_NICE 10";
  std::atomic<bool> cancelled = false;
  BackgroundOptions options;
  options.look_every = 1ms;
  options.hurry = [&] { return cancelled.load(); };
  options.on_raise = [](BackgroundPriority, nanoseconds) { ADD_FAILURE(); };
  RunInBackground(
      [&] {
        cancelled = true;
        EXPECT_EQ(WaitFor("nice 10"), "nice 10");
      },
      options);
}

// It would have no way out of the idle priority.
TEST(ThreadPriorityTest, WithoutThePrivilegeToRiseItIsNeverIdle) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_NICE, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0)) _exit(2);
    std::string inside;
    RunInBackground([&] { inside = Priority(); }, {.patience = 0ms});
    _exit(inside == "nice 19" ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ThreadPriorityTest, TheKernelCountsWhatAThreadRanAndWaited) {
  const auto time = ReadCoreTime(gettid());
  if (!time) GTEST_SKIP() << "this kernel does not count";
  EXPECT_GT(time->ran, 0ns);
  EXPECT_GE(time->waited, 0ns);
  EXPECT_LT(time->ran + time->waited, 24h);
  EXPECT_FALSE(ReadCoreTime(-1).has_value());
}

}  // namespace
}  // namespace din
