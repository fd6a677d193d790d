#include "model_loader/parallel.h"

#include <atomic>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace din {
namespace {

TEST(ParallelForTest, EveryTaskRunsOnceOnAnyNumberOfThreads) {
  for (const int threads : {-1, 0, 1, 2, 7}) {
    for (const size_t count : {0u, 1u, 2u, 100u}) {
      std::vector<std::atomic<int>> runs(count);
      const absl::Status status = ParallelFor(count, threads, [&](size_t i) {
        ++runs[i];
        return absl::OkStatus();
      });
      EXPECT_TRUE(status.ok());
      for (const auto& n : runs) EXPECT_EQ(n, 1);
    }
  }
}

TEST(ParallelForTest, TheErrorIsThatOfTheLowestTask) {
  for (int round = 0; round < 200; ++round) {
    const absl::Status status = ParallelFor(
        64, 4, [&](size_t i) { return i % 7 == 5 ? absl::InvalidArgumentError(std::to_string(i)) : absl::OkStatus(); });
    ASSERT_EQ(status, absl::InvalidArgumentError("5"));
  }
}

TEST(ParallelForTest, NothingStartsAfterAnError) {
  std::atomic<size_t> runs = 0;
  const absl::Status status = ParallelFor(1000, 1, [&](size_t i) {
    ++runs;
    return i == 3 ? absl::DataLossError("three") : absl::OkStatus();
  });
  EXPECT_EQ(status, absl::DataLossError("three"));
  EXPECT_EQ(runs, 4u);
}

}  // namespace
}  // namespace din
