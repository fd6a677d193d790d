#include "model_loader/memory_budget.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace din {
namespace {

// A machine of 1000 KiB of which 900 are available, with cgroups in a directory.
class MemoryBudgetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "/memory-budget-XXXXXX";
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
    Write("/machine", "MemTotal:       1000 kB\nMemFree:        10 kB\nMemAvailable:   900 kB\n");
    Write("/status", "Name:\tdin\nVmRSS:\t  70 kB\nRssAnon:\t     50 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  MemoryBudget Budget(uint64_t limit = 0) const {
    return TightestMemoryBudget(limit,
                                {.cgroups = {.process_cgroup = root_ + "/self", .cgroup_root = root_ + "/cgroup"},
                                 .process_status = root_ + "/status",
                                 .machine = root_ + "/machine"});
  }

  std::string root_;
};

TEST_F(MemoryBudgetTest, WithoutALimitItIsTheMachine) {
  EXPECT_EQ(Budget().limit, 1000u << 10);
  EXPECT_EQ(Budget().used, 100u << 10);
  EXPECT_EQ(Budget().of, "this machine");
}

TEST_F(MemoryBudgetTest, TheFlagIsForThisProcess) {
  EXPECT_EQ(Budget(200 << 10).limit, 200u << 10);
  EXPECT_EQ(Budget(200 << 10).used, 50u << 10);
  EXPECT_EQ(Budget(200 << 10).of, "memory-limit");
  EXPECT_EQ(Budget(uint64_t{1} << 40).limit, 1000u << 10) << "a limit that leaves more than the machine has";
}

TEST_F(MemoryBudgetTest, CgroupVersion2CountsWithoutPageCacheAndAllTheWayUp) {
  Write("/self", "0::/pod/main\n");
  Write("/cgroup/pod/main/memory.max", "max\n");
  Write("/cgroup/pod/memory.max", "409600\n");
  Write("/cgroup/pod/memory.stat", "anon 102400\nfile 300000\nkernel 1024\n");
  EXPECT_EQ(Budget().limit, 409600u);
  EXPECT_EQ(Budget().used, 103424u);
  EXPECT_TRUE(Budget().of.ends_with("/pod/memory.max")) << Budget().of;
  Write("/cgroup/pod/main/memory.max", "200000\n");
  Write("/cgroup/pod/main/memory.stat", "anon 1000\n");
  EXPECT_EQ(Budget().limit, 200000u);
}

TEST_F(MemoryBudgetTest, CgroupVersion1) {
  Write("/self", "9:cpu,cpuacct:/other\n7:memory:/pod\n");
  Write("/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/cgroup/memory/pod/memory.limit_in_bytes", "300000\n");
  Write("/cgroup/memory/pod/memory.stat", "cache 5000\ntotal_cache 9000\ntotal_rss 20000\n");
  EXPECT_EQ(Budget().limit, 300000u);
  EXPECT_EQ(Budget().used, 20000u);
  EXPECT_TRUE(Budget().of.ends_with("/pod/memory.limit_in_bytes")) << Budget().of;
}

TEST_F(MemoryBudgetTest, ThisMachineHasSome) {
  const MemoryBudget budget = TightestMemoryBudget(0);
  EXPECT_GT(budget.limit, budget.used);
  EXPECT_LT(budget.limit, UINT64_MAX);
}

}  // namespace
}  // namespace din
