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
  const Split split = MakeSamples(data, {.negatives = 2, .test_negatives = 5, .held_out_users = 0}).value();
  EXPECT_EQ(split.train.size(), 4u * 3);
  EXPECT_EQ(split.test.size(), 2u * 6);
  EXPECT_TRUE(split.held_out.empty());
}

TEST(SamplesTest, NoTargetIsInItsOwnHistory) {
  // Items that come back: only their first event may be a target.
  const Dataset data = ShopOf({{0, 1, 0, 2, 1, 3, 0}, {4, 4, 4, 5}, {6, 7, 8, 6}}, 12);
  for (Protocol protocol : {Protocol::kNextItem, Protocol::kRatings}) {
    for (const Sample& sample : All(MakeSamples(data, {.protocol = protocol}).value())) {
      EXPECT_FALSE(ItemsOf(HistoryOf(data, sample, 1000)).contains(sample.item));
      EXPECT_GE(sample.position, 1);
    }
  }
}

TEST(SamplesTest, HistoryIsWhatCameStrictlyBeforeAndAtMostTheLimit) {
  const Dataset data = ShopOf({{0, 1, 2, 3, 4, 5}}, 8);
  const Split split = MakeSamples(data, {.held_out_users = 0}).value();
  const Sample& test = split.test[0];
  EXPECT_EQ(data.items[test.item].id, "5");
  EXPECT_EQ(HistoryOf(data, test, 50).size(), 5u);
  const auto last = HistoryOf(data, test, 2);
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(data.items[last[0].item].id, "3");
  EXPECT_EQ(data.items[last[1].item].id, "4");
}

TEST(SamplesTest, NegativesWereNeverTouchedByTheUser) {
  const Dataset data = LoyalShop(12, 8, 40, 3);
  for (const Sample& sample : All(MakeSamples(data, {.negatives = 3}).value())) {
    EXPECT_EQ(ItemsOf(data.EventsOf(sample.user)).contains(sample.item), sample.label == 1);
  }
}

TEST(SamplesTest, UserWhoTouchedEverythingGetsNoNegatives) {
  const Dataset data = ShopOf({{0, 1, 2, 3}}, 4);
  const Split split = MakeSamples(data, {.held_out_users = 0}).value();
  EXPECT_EQ(split.train.size(), 2u);
  EXPECT_EQ(split.test.size(), 1u);
}

TEST(SamplesTest, HeldOutUsersDoNotTrain) {
  const Dataset data = LoyalShop(40, 6, 60, 4);
  for (Protocol protocol : {Protocol::kNextItem, Protocol::kRatings}) {
    const Split split = MakeSamples(data, {.protocol = protocol, .held_out_users = 0.25}).value();
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
  const Dataset data = ShopOf({{0, 1, 2, 3, 4}, {4, 3}, {1, 0}, {2, 3}, {0, 4}}, 5);  // item i is rated i + 1
  const Split split = MakeSamples(data, {.protocol = Protocol::kRatings, .held_out_users = 0}).value();
  for (const Sample& s : All(split)) EXPECT_EQ(s.label, std::stoi(data.items[s.item].id) >= 3 ? 1 : 0);
  EXPECT_EQ(All(split).size(), 8u);
}

TEST(SamplesTest, SeedDecides) {
  const Dataset data = LoyalShop(20, 8, 60, 5);
  const auto items = [&](uint64_t seed) {
    std::vector<int32_t> out;
    for (const Sample& s : All(MakeSamples(data, {.seed = seed}).value())) out.push_back(s.item);
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
  for (size_t i = 0; i < data.items.size(); ++i) by_id[std::stoi(data.items[i].id)] = n[0][i];
  EXPECT_THAT(by_id, ElementsAre(2, 1, 1, 3));
  EXPECT_EQ(n[1][data.ItemValue(data.EventsOf(0)[0].item, 1)], 3u);
}

TEST(BatchTest, RowsLeadBackToItemsAndCategories) {
  const Dataset data = LoyalShop(10, 9, 30, 6);
  const Split split = MakeSamples(data, {.held_out_users = 0}).value();
  constexpr int kHistory = 4;
  const std::vector<KeptValues> kept = KeepValues(data, CountOccurrences(data, split.train, kHistory), 0);
  BatchBuilder builder(data, kept, kHistory);
  Batch batch;
  for (size_t begin : {0u, 7u}) {  // the second batch must not see what the first left behind
    const std::span<const Sample> samples = std::span(split.train).subspan(begin, 20);
    builder.Build(samples, batch);
    ASSERT_EQ(batch.samples(), samples.size());
    const auto& items = batch.fields[0];
    const auto& categories = batch.fields[1];
    const Batch::Owners& owners = batch.sequences[0];
    EXPECT_EQ(std::set<int64_t>(items.distinct.begin(), items.distinct.end()).size(), items.distinct.size());
    for (size_t s = 0; s < samples.size(); ++s) {
      EXPECT_EQ(items.distinct[items.sample[s]], samples[s].item);
      EXPECT_EQ(categories.distinct[categories.sample[s]], data.ItemValue(samples[s].item, 1));
      const auto history = HistoryOf(data, samples[s], kHistory);
      ASSERT_EQ(owners.begin[s + 1] - owners.begin[s], static_cast<int64_t>(history.size()));
      for (size_t j = 0; j < history.size(); ++j) {
        const size_t at = owners.begin[s] + j;
        EXPECT_EQ(owners.owner[at], static_cast<int64_t>(s));
        EXPECT_EQ(items.distinct[items.behaviours[0][at]], history[j].item);
        EXPECT_EQ(categories.distinct[categories.behaviours[0][at]], data.ItemValue(history[j].item, 1));
      }
    }
  }
}

TEST(BatchTest, RareValuesShareTheRowThatIsNone) {
  const Dataset data = ShopOf({{0, 1, 2, 3}, {0, 1, 2, 4}, {0, 1, 5, 6}}, 7);
  const Split split = MakeSamples(data, {.held_out_users = 0}).value();
  const Occurrences occurrences = CountOccurrences(data, split.train, 50);
  const std::vector<KeptValues> kept = KeepValues(data, occurrences, 2);
  EXPECT_EQ(kept[0].rows, 2u);
  for (size_t i = 0; i < data.items.size(); ++i) {
    const bool is_frequent = data.items[i].id == "0" || data.items[i].id == "1";
    EXPECT_EQ(kept[0].Row(static_cast<int32_t>(i)) < 2, is_frequent) << data.items[i].id;
  }
  BatchBuilder builder(data, kept, 50);
  Batch batch;
  builder.Build(split.test, batch);  // targets 3, 4 and 6, of which none is frequent
  for (size_t s = 0; s < batch.samples(); s += 6) {
    EXPECT_EQ(batch.fields[0].distinct[batch.fields[0].sample[s]], 2);
  }
}

// --- Impression logs, behaviour lists by action, user and context features ------------------------------------------

Dataset Log() {
  DatasetBuilder builder({.categories = {"category"}, .user_fields = {"city"}, .context_fields = {"page"}});
  for (const char* id : {"a", "b", "c", "d"}) builder.AddItem(id, "", "x");
  const std::string_view rome[] = {"rome"};
  builder.AddUser("ann", rome);
  const std::string_view first[] = {"1"}, second[] = {"2"};
  const auto add = [&](const char* item, int64_t time, EventRow::Kind kind, std::span<const std::string_view> page) {
    EXPECT_TRUE(builder.AddEvent({.user = "ann",
                                  .item = item,
                                  .time = time,
                                  .action = time < 20 ? "view" : "buy",
                                  .context = page,
                                  .kind = kind}));
  };
  add("a", 10, EventRow::kClicked, first);
  add("b", 10, EventRow::kNotClicked, second);
  add("b", 20, EventRow::kClicked, first);
  add("c", 30, EventRow::kClicked, first);
  add("d", 30, EventRow::kNotClicked, second);
  add("a", 90, EventRow::kClicked, second);
  return std::move(builder).Build().value();
}

TEST(ImpressionsTest, HistoryHoldsEarlierClicksAndNothingOfTheSamePage) {
  const Dataset data = Log();
  const Split split = MakeSamples(data, {.protocol = Protocol::kImpressions, .held_out_users = 0}).value();
  ASSERT_EQ(split.train.size(), 5u);
  ASSERT_EQ(split.test.size(), 1u);  // the latest fifth
  const auto history = [&](const Sample& s) {
    std::string ids;
    for (const Event& e : HistoryOf(data, s, 50)) ids += data.items[e.item].id;
    return ids;
  };
  std::vector<std::string> seen;
  for (const Sample& s : All(split)) {
    seen.push_back(history(s) + ">" + data.items[s.item].id + (s.label > 0 ? "+" : "-"));
  }
  EXPECT_THAT(seen, ElementsAre(">a+", ">b-", "a>b+", "ab>c+", "ab>d-", "abc>a+"));
}

TEST(ImpressionsTest, SideValuesAreTheUsersAndTheMoments) {
  const Dataset data = Log();
  const Split split = MakeSamples(data, {.protocol = Protocol::kImpressions, .held_out_users = 0}).value();
  ASSERT_EQ(data.side_fields(), 2u);
  const auto value = [&](const Sample& s, size_t field) {
    const Field& f = field == 0 ? data.user_fields[0] : data.context_fields[0];
    return f.values[data.SideValue(s.user, s.row, field)];
  };
  EXPECT_EQ(value(split.train[0], 0), "rome");
  EXPECT_EQ(value(split.train[0], 1), "1");
  EXPECT_EQ(value(split.train[1], 1), "2");
  EXPECT_EQ(value(split.test[0], 1), "2");
}

TEST(ImpressionsTest, DataWithoutLabelsIsRefused) {
  const Dataset data = ShopOf({{0, 1, 2}}, 4);
  EXPECT_EQ(MakeSamples(data, {.protocol = Protocol::kImpressions}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(StreamsTest, EachActionIsAListOfItsOwnInOrderOfTime) {
  Dataset data = Log();
  ASSERT_TRUE(SplitByAction(data).ok());
  ASSERT_EQ(data.sequences(), 2u);
  EXPECT_EQ(data.streams[0].name, "history_view");
  const Sample last{.user = 0, .position = 3};
  EXPECT_EQ(HistoryOf(data, last, 50, 0).size(), 1u);
  ASSERT_EQ(HistoryOf(data, last, 50, 1).size(), 2u);
  EXPECT_EQ(data.items[HistoryOf(data, last, 1, 1)[0].item].id, "c");
  EXPECT_EQ(HistoryOf(data, {.user = 0, .position = 1}, 50, 1).size(), 0u);
  Dataset one = ShopOf({{0, 1, 2}}, 4);
  EXPECT_EQ(SplitByAction(one).code(), absl::StatusCode::kInvalidArgument);
}

TEST(TimeContextTest, HourAndWeekdayAreOfUtc) {
  DatasetBuilder builder;
  builder.AddItem("a", "", "x");
  // 25 November 2026 was a Wednesday; 1 January 1969, before the epoch, too.
  for (const int64_t time : {1795640340LL, -31532400LL}) builder.AddEvent({.user = "u", .item = "a", .time = time});
  Dataset data = std::move(builder).Build().value();
  AddTimeContext(data);
  ASSERT_EQ(data.context_fields.size(), 2u);
  const auto at = [&](size_t event, size_t field) {
    return data.context_fields[field].values[data.SideValue(0, data.events[event].row, field)];
  };
  EXPECT_EQ(at(1, 0), "20");
  EXPECT_EQ(at(1, 1), "3");
  EXPECT_EQ(at(0, 0), "1");
  EXPECT_EQ(at(0, 1), "3");
}

TEST(SamplesTest, TrainingPartOfAGivenSizeIsDrawnAtRandom) {
  const Dataset data = LoyalShop(40, 8, 60, 5);
  const Split all = MakeSamples(data, {}).value();
  const Split part = MakeSamples(data, {.most_training = 50}).value();
  EXPECT_GT(all.train.size(), 50u);
  EXPECT_EQ(part.train.size(), 50u);
  EXPECT_EQ(part.test.size(), all.test.size());
  std::set<int32_t> users;
  for (const Sample& s : part.train) users.insert(s.user);
  EXPECT_GT(users.size(), 15u);
}

}  // namespace
}  // namespace din
