#include "trainer/samples.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/shop.h"
#include "trainer/batch.h"

namespace din {
namespace {

using ::testing::ElementsAre;

std::vector<Sample> All(const Split& split) {
  std::vector<Sample> all = split.train;
  all.insert(all.end(), split.held_out.begin(), split.held_out.end());
  all.insert(all.end(), split.test.begin(), split.test.end());
  return all;
}

std::set<int32_t> ItemsOf(std::span<const Event> events) {
  std::set<int32_t> items;
  for (const Event& event : events) items.insert(event.item);
  return items;
}

TEST(SamplesTest, NextItemCountsFollowTheProtocol) {
  // n = 5, 3 and 2 events: 3 + 1 + 0 training positives, 2 tests; a user with two events is left out.
  const Dataset data = ShopOf({{0, 1, 2, 3, 4}, {5, 6, 7}, {8, 9}}, 20);
  const Split split = MakeSamples(data, {.negatives = 2, .test_negatives = 5, .held_out_users = 0});
  EXPECT_EQ(split.train.size(), 4u * 3);
  EXPECT_EQ(split.test.size(), 2u * 6);
  EXPECT_TRUE(split.held_out.empty());
}

TEST(SamplesTest, NoTargetIsInItsOwnHistory) {
  // Items that come back: only their first event may be a target.
  const Dataset data = ShopOf({{0, 1, 0, 2, 1, 3, 0}, {4, 4, 4, 5}, {6, 7, 8, 6}}, 12);
  for (Protocol protocol : {Protocol::kNextItem, Protocol::kRatings}) {
    for (const Sample& sample : All(MakeSamples(data, {.protocol = protocol}))) {
      EXPECT_FALSE(ItemsOf(HistoryOf(data, sample, 1000)).contains(sample.item));
      EXPECT_GE(sample.position, 1);
    }
  }
}

TEST(SamplesTest, HistoryIsWhatCameStrictlyBeforeAndAtMostTheLimit) {
  const Dataset data = ShopOf({{0, 1, 2, 3, 4, 5}}, 8);
  const Split split = MakeSamples(data, {.held_out_users = 0});
  const Sample& test = split.test[0];
  EXPECT_EQ(data.items[test.item].id, 5);
  EXPECT_EQ(HistoryOf(data, test, 50).size(), 5u);
  const auto last = HistoryOf(data, test, 2);
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(data.items[last[0].item].id, 3);
  EXPECT_EQ(data.items[last[1].item].id, 4);
}

TEST(SamplesTest, NegativesWereNeverTouchedByTheUser) {
  const Dataset data = LoyalShop(12, 8, 40, 3);
  for (const Sample& sample : All(MakeSamples(data, {.negatives = 3}))) {
    EXPECT_EQ(ItemsOf(data.EventsOf(sample.user)).contains(sample.item), sample.label == 1);
  }
}

TEST(SamplesTest, UserWhoTouchedEverythingGetsNoNegatives) {
  const Dataset data = ShopOf({{0, 1, 2, 3}}, 4);
  const Split split = MakeSamples(data, {.held_out_users = 0});
  EXPECT_EQ(split.train.size(), 2u);
  EXPECT_EQ(split.test.size(), 1u);
}

TEST(SamplesTest, HeldOutUsersDoNotTrain) {
  const Dataset data = LoyalShop(40, 6, 60, 4);
  for (Protocol protocol : {Protocol::kNextItem, Protocol::kRatings}) {
    const Split split = MakeSamples(data, {.protocol = protocol, .held_out_users = 0.25});
    std::set<int32_t> train, held_out, test;
    for (const Sample& s : split.train) train.insert(s.user);
    for (const Sample& s : split.held_out) held_out.insert(s.user);
    for (const Sample& s : split.test) test.insert(s.user);
    for (int32_t user : held_out) EXPECT_FALSE(train.contains(user));
    if (protocol == Protocol::kNextItem) {
      EXPECT_EQ(held_out.size(), 10u);
      EXPECT_EQ(test.size(), 40u);
    } else {
      EXPECT_EQ(test.size(), 8u);
      EXPECT_EQ(held_out.size(), 8u);
      for (int32_t user : test) EXPECT_FALSE(train.contains(user) || held_out.contains(user));
    }
  }
}

TEST(SamplesTest, RatingsOfFourAndMoreArePositive) {
  const Dataset data = ShopOf({{0, 1, 2, 3, 4}}, 5);  // rated 1 … 5
  const Split split = MakeSamples(data, {.protocol = Protocol::kRatings, .held_out_users = 0});
  for (const Sample& s : All(split)) EXPECT_EQ(s.label, data.items[s.item].id >= 3 ? 1 : 0);
  EXPECT_EQ(All(split).size(), 4u);
}

TEST(SamplesTest, SeedDecides) {
  const Dataset data = LoyalShop(20, 8, 60, 5);
  const auto items = [&](uint64_t seed) {
    std::vector<int32_t> out;
    for (const Sample& s : All(MakeSamples(data, {.seed = seed}))) out.push_back(s.item);
    return out;
  };
  EXPECT_EQ(items(1), items(1));
  EXPECT_NE(items(1), items(2));
}

TEST(OccurrencesTest, CountEachSampleOnce) {
  const Dataset data = ShopOf({{0, 3, 1, 0, 2}}, 4);  // categories: 0 and 3 -> c0, 1 -> c1, 2 -> c2
  const std::vector<Sample> samples = {{.user = 0, .position = 4, .item = data.EventsOf(0)[4].item},   // {0 3 1 0} 2
                                       {.user = 0, .position = 1, .item = data.EventsOf(0)[1].item},   // {0} 3
                                       {.user = 0, .position = 0, .item = data.EventsOf(0)[1].item}};  // {} 3
  const Occurrences n = CountOccurrences(data, samples, 50);
  std::vector<uint32_t> by_id(4);
  for (size_t i = 0; i < data.items.size(); ++i) by_id[data.items[i].id] = n.items[i];
  EXPECT_THAT(by_id, ElementsAre(2, 1, 1, 3));
  EXPECT_EQ(n.categories[data.items[data.EventsOf(0)[0].item].category], 3u);
}

TEST(BatchTest, RowsLeadBackToItemsAndCategories) {
  const Dataset data = LoyalShop(10, 9, 30, 6);
  const Split split = MakeSamples(data, {.held_out_users = 0});
  constexpr int kHistory = 4;
  BatchBuilder builder(data, kHistory);
  Batch batch;
  for (size_t begin : {0u, 7u}) {  // the second batch must not see what the first left behind
    const std::span<const Sample> samples = std::span(split.train).subspan(begin, 20);
    builder.Build(samples, batch);
    ASSERT_EQ(batch.samples(), samples.size());
    const auto& items = batch.fields[kItemField];
    const auto& categories = batch.fields[kCategoryField];
    EXPECT_EQ(std::set<int64_t>(items.distinct.begin(), items.distinct.end()).size(), items.distinct.size());
    for (size_t s = 0; s < samples.size(); ++s) {
      EXPECT_EQ(items.distinct[items.candidate[s]], samples[s].item);
      EXPECT_EQ(categories.distinct[categories.candidate[s]], data.items[samples[s].item].category);
      const auto history = HistoryOf(data, samples[s], kHistory);
      ASSERT_EQ(batch.begin[s + 1] - batch.begin[s], static_cast<int64_t>(history.size()));
      for (size_t j = 0; j < history.size(); ++j) {
        const size_t at = batch.begin[s] + j;
        EXPECT_EQ(batch.owner[at], static_cast<int64_t>(s));
        EXPECT_EQ(items.distinct[items.behaviour[at]], history[j].item);
        EXPECT_EQ(categories.distinct[categories.behaviour[at]], data.items[history[j].item].category);
      }
    }
  }
}

}  // namespace
}  // namespace din
