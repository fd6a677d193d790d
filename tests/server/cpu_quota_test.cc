#include "server/cpu_quota.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace din {
namespace {

// A cgroup tree in a directory.
class CpuQuotaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "/cpu-quota-XXXXXX";
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  int Cpus() const { return UsableCpus({.process_cgroup = root_ + "/self", .cgroup_root = root_ + "/cgroup"}); }
  // What the affinity mask allows.
  int All() const { return UsableCpus({.process_cgroup = root_ + "/none", .cgroup_root = root_ + "/none"}); }

  std::string root_;
};

TEST_F(CpuQuotaTest, WithoutAQuotaItIsTheAffinityMask) {
  EXPECT_GE(All(), 1);
  EXPECT_LE(All(), static_cast<int>(std::thread::hardware_concurrency()));
  Write("/self", "0::/a\n");
  Write("/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(Cpus(), All());
}

TEST_F(CpuQuotaTest, FractionOfACoreIsRoundedDownButNeverToNone) {
  Write("/self", "0::/\n");
  Write("/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(Cpus(), 1);
  Write("/cgroup/cpu.max", "20000 100000\n");
  EXPECT_EQ(Cpus(), 1);
}

TEST_F(CpuQuotaTest, TightestQuotaOnTheWayUpCounts) {
  if (All() < 2) GTEST_SKIP() << "one core shows no difference";
  Write("/self", "0::/pod/container\n");
  Write("/cgroup/pod/container/cpu.max", "max 100000\n");
  Write("/cgroup/pod/cpu.max", "100000 100000\n");
  Write("/cgroup/cpu.max", "800000 100000\n");
  EXPECT_EQ(Cpus(), 1);
}

TEST_F(CpuQuotaTest, QuotaAboveTheMaskChangesNothing) {
  Write("/self", "0::/\n");
  Write("/cgroup/cpu.max", "100000000 100000\n");
  EXPECT_EQ(Cpus(), All());
}

TEST_F(CpuQuotaTest, Version1QuotaCounts) {
  if (All() < 2) GTEST_SKIP() << "one core shows no difference";
  Write("/self", "5:memory:/x\n4:cpu,cpuacct:/a\n");
  Write("/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n");
  Write("/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cpus(), 1);
  Write("/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Cpus(), All());
}

TEST_F(CpuQuotaTest, NonsenseInTheFilesIsNoQuota) {
  Write("/self", "0::/\nnonsense\n:\n");
  Write("/cgroup/cpu.max", "many\n");
  EXPECT_EQ(Cpus(), All());
}

}  // namespace
}  // namespace din
