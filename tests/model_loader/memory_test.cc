#include "model_loader/memory.h"

#include <cstring>

#include "gtest/gtest.h"

namespace din {
namespace {

TEST(MemoryRegionTest, IsZeroedWritableAndAligned) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{100'000}, (size_t{2} << 20) - 1, (size_t{5} << 20) + 1}) {
    auto region = MemoryRegion::Create(bytes);
    ASSERT_TRUE(region.ok()) << region.status();
    ASSERT_GE(region->size(), bytes);
    EXPECT_LT(region->size(), bytes + 4096);
    const size_t alignment = bytes >= (size_t{2} << 20) ? size_t{2} << 20 : 4096;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(region->data()) % alignment, 0u) << bytes;
    EXPECT_EQ(region->data()[0], std::byte{0});
    EXPECT_EQ(region->data()[bytes - 1], std::byte{0});
    std::memset(region->data(), 0xAB, region->size());
  }
}

TEST(MemoryRegionTest, NothingIsFine) {
  auto region = MemoryRegion::Create(0);
  ASSERT_TRUE(region.ok());
  EXPECT_EQ(region->size(), 0u);
}

TEST(MemoryRegionTest, MovesWithoutCopy) {
  auto created = MemoryRegion::Create(10);
  ASSERT_TRUE(created.ok());
  MemoryRegion a = *std::move(created);
  std::byte* const data = a.data();
  MemoryRegion b = std::move(a);
  EXPECT_EQ(b.data(), data);
  MemoryRegion c;
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  c.data()[9] = std::byte{1};
}

TEST(MemoryRegionTest, MoreThanTheMachineHasIsRefusedWithNeedAndLimit) {
  const absl::Status status = MemoryRegion::Create(uint64_t{1} << 60).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("need 1152921504606846976 bytes of memory > limit "), absl::string_view::npos)
      << status;
  EXPECT_EQ(MemoryRegion::Create(UINT64_MAX).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace din
