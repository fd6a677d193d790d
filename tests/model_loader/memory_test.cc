#include "model_loader/memory.h"

#include <cstring>
#include <thread>
#include <vector>

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

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Every page written.
MemoryRegion Filled(SpareMemory& spare, uint64_t bytes) {
  absl::StatusOr<MemoryRegion> region = spare.Take(bytes);
  EXPECT_TRUE(region.ok()) << region.status();
  std::memset(region->data(), 0xAB, bytes);
  return *std::move(region);
}

TEST(SpareMemoryTest, WhatOneLeavesTheNextOneGets) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  const std::byte* left = nullptr;
  {
    const MemoryRegion old = Filled(spare, 16 * kMiB);
    left = old.data();
    EXPECT_EQ(spare.bytes(), 0u);
  }
  EXPECT_EQ(spare.bytes(), 16 * kMiB);
  const MemoryRegion next = *spare.Take(16 * kMiB);
  EXPECT_EQ(next.data(), left);
  EXPECT_EQ(next.data()[kMiB], std::byte{0xAB}) << "its pages are there";
  EXPECT_EQ(spare.bytes(), 0u);
}

TEST(SpareMemoryTest, TheNextOneMayBeSomewhatLargerOrSmaller) {
  for (const uint64_t bytes : {15 * kMiB, 15 * kMiB + 1, 17 * kMiB, 18 * kMiB}) {
    SpareMemory spare;
    const MemoryRegion live = Filled(spare, 16 * kMiB);
    const std::byte* const left = Filled(spare, 16 * kMiB).data();
    MemoryRegion next = *spare.Take(bytes);
    EXPECT_EQ(next.data(), left) << bytes;
    EXPECT_EQ(next.size(), (bytes + 4095) / 4096 * 4096);
    std::memset(next.data(), 0xCD, next.size());
    EXPECT_EQ(spare.bytes(), 0u);
    next = {};
    EXPECT_LE(spare.bytes(), bytes + 2 * kMiB) << "what it did not need went back";
    EXPECT_GE(spare.bytes(), bytes);
  }
}

TEST(SpareMemoryTest, NewMemoryTakesTheSpareOnesPlace) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  const std::byte* const left = Filled(spare, 16 * kMiB).data();
  const MemoryRegion small = Filled(spare, 4 * kMiB);
  EXPECT_EQ(spare.bytes(), 12 * kMiB);
  const MemoryRegion next = *spare.Take(16 * kMiB);
  EXPECT_EQ(next.data(), left);
  EXPECT_EQ(next.data()[12 * kMiB - 1], std::byte{0xAB});
  EXPECT_EQ(next.data()[12 * kMiB], std::byte{0}) << "a new page";
}

TEST(SpareMemoryTest, KeepsOneOfEachSize) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  { const MemoryRegion a = Filled(spare, 16 * kMiB), b = Filled(spare, 8 * kMiB), c = Filled(spare, 4 * kMiB); }
  EXPECT_EQ(spare.bytes(), 28 * kMiB);
  const MemoryRegion c = *spare.Take(4 * kMiB), b = *spare.Take(8 * kMiB), a = *spare.Take(16 * kMiB);
  for (const MemoryRegion* region : {&a, &b, &c}) EXPECT_EQ(region->data()[kMiB], std::byte{0xAB});
}

TEST(SpareMemoryTest, KeepsNoMoreThanTwiceTheLargestInUse) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 4 * kMiB);
  {
    std::vector<MemoryRegion> many;
    for (int i = 0; i < 10; ++i) many.push_back(Filled(spare, 4 * kMiB));
  }
  EXPECT_EQ(spare.bytes(), 2 * 4 * kMiB);
}

// However often and however oddly it is cut, nothing stays that is not counted.
TEST(SpareMemoryTest, WhatIsCutOffIsGone) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 32 * kMiB);
  for (const uint64_t bytes : {19 * kMiB, 17 * kMiB, 15 * kMiB + 500000, 15 * kMiB}) Filled(spare, bytes);
  const uint64_t before = spare.bytes();
  EXPECT_GE(before, 15 * kMiB);
  EXPECT_LE(before, 16 * kMiB);
  MemoryRegion grown = *spare.Take(16 * kMiB + 4096);  // its addresses are there still
  for (uint64_t at = 16 * kMiB; at < grown.size(); ++at) ASSERT_EQ(grown.data()[at], std::byte{0}) << at;
  grown = {};
  spare.KeepOnlyFor(7 * kMiB + 1);
  EXPECT_LE(spare.bytes(), 8 * kMiB);
  EXPECT_GT(spare.bytes(), 4 * kMiB);
}

TEST(SpareMemoryTest, KeepsNothingWhenNothingIsInUse) {
  SpareMemory spare;
  { const MemoryRegion a = Filled(spare, 16 * kMiB), b = Filled(spare, 16 * kMiB); }
  EXPECT_EQ(spare.bytes(), 0u);
}

TEST(SpareMemoryTest, CountsPagesThatAreThere) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  {
    const MemoryRegion given_up = *spare.Take(16 * kMiB);
    std::memset(given_up.data(), 0xAB, 6 * kMiB);
  }
  EXPECT_EQ(spare.bytes(), 6 * kMiB);
}

TEST(SpareMemoryTest, GivesBackWhatALoadDoesNotNeed) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  { const MemoryRegion a = Filled(spare, 16 * kMiB), b = Filled(spare, 4 * kMiB); }
  spare.KeepOnlyFor(17 * kMiB);
  EXPECT_EQ(spare.bytes(), 16 * kMiB);
  spare.KeepOnlyFor(10 * kMiB);
  EXPECT_EQ(spare.bytes(), 10 * kMiB);
  spare.KeepOnlyFor(0);
  EXPECT_EQ(spare.bytes(), 0u);
}

TEST(SpareMemoryTest, SmallRegionsComeFromTheSystem) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 16 * kMiB);
  { const MemoryRegion small = Filled(spare, kMiB); }
  EXPECT_EQ(spare.bytes(), 0u);
  EXPECT_EQ(spare.Take(uint64_t{1} << 60).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(SpareMemoryTest, FromManyThreads) {
  SpareMemory spare;
  const MemoryRegion live = Filled(spare, 4 * kMiB);
  std::vector<std::jthread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&spare, t] {
      for (uint64_t i = 0; i < 50; ++i) {
        const MemoryRegion mine = *spare.Take((2 + (t + i) % 4) * kMiB);
        std::memset(mine.data(), static_cast<int>(t), mine.size());
        for (size_t at = 0; at < mine.size(); at += 4096) ASSERT_EQ(mine.data()[at], std::byte(t));
        if (i % 10 == 0) spare.KeepOnlyFor(2 * kMiB);
      }
    });
  }
  threads.clear();
  EXPECT_LE(spare.bytes(), 4 * 6 * kMiB) << "each may have had one in its hands";
}

}  // namespace
}  // namespace din
