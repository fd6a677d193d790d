#include "model_loader/load_control.h"

#include <thread>

#include "gtest/gtest.h"

namespace din {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kRate = 100'000'000;
constexpr uint64_t kPiece = 1'000'000;  // 10 ms

TEST(ThrottleTest, WhatReadingTakesIsNotPaidTwice) {
  Throttle throttle(kRate);
  const Throttle::Clock::time_point begin{1h};
  Throttle::Clock::time_point now = begin;
  for (int piece = 0; piece < 100; ++piece) {
    now += 8ms;
    now = std::max(now, throttle.Pay(kPiece, now));
  }
  // A second's worth; what came before the first piece is credit, too.
  EXPECT_EQ(now - begin, 1000ms + 8ms - Throttle::kCredit);
}

TEST(ThrottleTest, AReaderThatStoodStillCatchesUpALittle) {
  Throttle throttle(kRate);
  Throttle::Clock::time_point now{1h};
  while (throttle.Pay(kPiece, now) < now + 1s) {
  }
  const Throttle::Clock::time_point paid = throttle.Pay(0, now);
  now = paid + 40ms;
  EXPECT_EQ(throttle.Pay(kPiece, now), paid + 10ms) << "40 ms are all credit";
  now = paid + 10s;
  EXPECT_EQ(throttle.Pay(kPiece, now), now - Throttle::kCredit + 10ms) << "10 s are not";
}

TEST(LoadControlTest, CountsWhatWasRead) {
  LoadControl control;
  EXPECT_EQ(control.total(), 0u);
  control.AddTotal(30);
  EXPECT_TRUE(control.Advance(10).ok());
  EXPECT_TRUE(control.Advance(5).ok());
  EXPECT_EQ(control.bytes(), 15u);
  EXPECT_EQ(control.total(), 30u);
  control.AddTotal(3);
  EXPECT_EQ(control.total(), 33u) << "a delta comes with its chain";
}

TEST(LoadControlTest, ALoadWaitsForItsRate) {
  LoadControl control({.bytes_per_second = kRate});
  const auto begin = std::chrono::steady_clock::now();
  for (int piece = 0; piece < 10; ++piece) EXPECT_TRUE(control.Advance(kPiece).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 100ms - Throttle::kCredit);
}

TEST(LoadControlTest, ACancelledLoadDoesNotWait) {
  LoadControl control({.bytes_per_second = 1});
  std::jthread canceller([&] {
    std::this_thread::sleep_for(20ms);
    control.Cancel();
  });
  EXPECT_EQ(control.Advance(kPiece).code(), absl::StatusCode::kCancelled) << "else it would have been eleven days";
  EXPECT_EQ(control.Check().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace din
