#include "bench/load/objective.h"

#include "gtest/gtest.h"

namespace din::load {
namespace {

TEST(ObjectiveTest, ReadsPercentileAndLimit) {
  const auto objective = ParseObjective("p99.9<1.5ms");
  ASSERT_TRUE(objective.ok()) << objective.status();
  EXPECT_NEAR(objective->quantile, 0.999, 1e-12);
  EXPECT_EQ(objective->limit_ns, 1'500'000);
}

TEST(ObjectiveTest, AnythingElseIsRefused) {
  for (const char* text : {"", "p99", "99<5ms", "p0<5ms", "p100<5ms", "p99<5", "p99<0s", "p99>5ms", "p<5ms"}) {
    EXPECT_EQ(ParseObjective(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace din::load
