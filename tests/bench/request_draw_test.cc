#include "bench/load/request_draw.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

// One feature of every kind and scope.
v1::GetModelMetadataResponse Metadata() {
  v1::GetModelMetadataResponse metadata;
  const auto status = google::protobuf::util::JsonStringToMessage(R"json({
    "features": [{"name": "item", "required": true}, {"name": "seen", "required": true}, {"name": "tags", "required": true},
                 {"name": "city", "required": true}, {"name": "price", "required": true}, {"name": "shop"}],
    "spec": {
      "idMaps": [
        {"name": "items", "idType": "INT64", "identity": {"size": 1000, "first": 1}, "outOfVocabulary": "ZERO"},
        {"name": "tags", "idType": "INT64", "modulo": {"size": 50}},
        {"name": "cities", "idType": "STRING", "vocabulary": {}, "outOfVocabulary": "ERROR"}],
      "sequences": [{"name": "clicks"}],
      "features": [
        {"name": "item", "scope": "CANDIDATE", "kind": "ID", "idMap": "items"},
        {"name": "seen", "scope": "SEQUENCE", "sequence": "clicks", "kind": "ID", "idMap": "items", "padding": {"id": 1}},
        {"name": "tags", "scope": "CANDIDATE", "kind": "ID_LIST", "idMap": "tags"},
        {"name": "city", "scope": "USER", "kind": "ID", "idMap": "cities"},
        {"name": "price", "scope": "CANDIDATE", "kind": "DENSE", "width": 2},
        {"name": "shop", "scope": "CANDIDATE", "kind": "ID", "idMap": "items"}]}})json",
                                                                  &metadata);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return metadata;
}

DrawOptions SomeOptions() {
  DrawOptions options;
  options.count = 500;
  options.candidates = {20, 0, 4096};
  options.behaviours = {30, 0.8, 100};
  options.ids["cities"] = {"Paris", "Rome"};
  return options;
}

std::vector<v1::ScoreRequest> Draw(const DrawOptions& options) {
  auto requests = DrawRequests(Metadata(), options);
  EXPECT_TRUE(requests.ok()) << requests.status();
  return *std::move(requests);
}

const v1::Column& Named(const google::protobuf::RepeatedPtrField<v1::Column>& columns, const std::string& name) {
  return *std::ranges::find(columns, name, &v1::Column::name);
}

TEST(RequestDrawTest, EveryRequiredFeatureIsSentInItsForm) {
  for (const v1::ScoreRequest& request : Draw(SomeOptions())) {
    ASSERT_EQ(request.candidates_size(), 3);
    ASSERT_EQ(request.features_size(), 1);
    EXPECT_EQ(Named(request.candidates(), "item").ids_size(), 20);
    EXPECT_EQ(Named(request.candidates(), "price").values_size(), 40);
    const v1::Column& tags = Named(request.candidates(), "tags");
    ASSERT_EQ(tags.offsets_size(), 21);
    EXPECT_EQ(static_cast<int>(tags.offsets(20)), tags.ids_size());
    EXPECT_EQ(request.features(0).keys_size(), 1);
    ASSERT_EQ(request.sequences_size(), 1);
    EXPECT_THAT(Named(request.sequences(0).columns(), "seen").ids(), Each(testing::AllOf(Ge(2), Le(1000))));
  }
}

TEST(RequestDrawTest, WhatASideTableSuppliesIsSentOnlyWhenAskedFor) {
  DrawOptions options = SomeOptions();
  options.fields = DrawOptions::Fields::kAll;
  EXPECT_EQ(Draw(options).front().candidates_size(), 4);
}

TEST(RequestDrawTest, TheSameSeedDrawsTheSameRequests) {
  DrawOptions options = SomeOptions();
  const auto first = Draw(options), again = Draw(options);
  options.seed = 2;
  const auto other = Draw(options);
  EXPECT_EQ(first.back().SerializeAsString(), again.back().SerializeAsString());
  EXPECT_NE(first.back().SerializeAsString(), other.back().SerializeAsString());
}

TEST(RequestDrawTest, LengthsAreLogNormalAndCut) {
  DrawOptions options = SomeOptions();
  options.count = 4000;
  std::vector<double> lengths;
  for (const auto& request : Draw(options)) lengths.push_back(request.sequences(0).columns(0).ids_size());
  std::ranges::sort(lengths);
  EXPECT_NEAR(lengths[2000], 30, 2);
  // One sigma below the median; above, the cut at 100 takes the tail.
  EXPECT_NEAR(lengths[635], 30 * std::exp(-0.8), 1.5);
  EXPECT_EQ(lengths.back(), 100);
  EXPECT_GE(lengths.front(), 1);
}

TEST(RequestDrawTest, PopularityFollowsThePowerLaw) {
  DrawOptions options = SomeOptions();
  options.count = 2000;
  std::map<int64_t, int> seen;
  for (const auto& request : Draw(options)) {
    for (const int64_t id : Named(request.candidates(), "item").ids()) ++seen[id];
  }
  std::vector<int> counts;
  for (const auto& [id, count] : seen) counts.push_back(count);
  std::ranges::sort(counts, std::greater());
  // log(2) / log(1001) of 40,000, and a tenth of that share per rank around rank 14.
  EXPECT_NEAR(counts[0], 40'000 * std::log(2) / std::log(1001), 200);
  EXPECT_NEAR(counts[14], 40'000 * std::log(16.0 / 15) / std::log(1001), 60);
}

TEST(RequestDrawTest, UniformIdsReachEveryRow) {
  DrawOptions options = SomeOptions();
  options.zipf = 0;
  options.count = 1000;
  std::set<int64_t> seen;
  for (const auto& request : Draw(options)) {
    for (const int64_t id : Named(request.candidates(), "item").ids()) seen.insert(id);
  }
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(*seen.begin(), 1);
  EXPECT_EQ(*seen.rbegin(), 1000);
}

TEST(RequestDrawTest, UnknownIdsComeInTheirShareAndOnlyWhereTheyAreAllowed) {
  DrawOptions options = SomeOptions();
  options.out_of_vocabulary = 0.1;
  int unknown = 0;
  for (const auto& request : Draw(options)) {
    for (const int64_t id : Named(request.candidates(), "item").ids()) unknown += id > 1000;
    EXPECT_THAT(request.features(0).keys(0), testing::AnyOf("Paris", "Rome"));  // its rule is ERROR
  }
  EXPECT_NEAR(unknown, 1000, 150);
}

TEST(RequestDrawTest, AVocabularyNeedsItsIds) {
  DrawOptions options = SomeOptions();
  options.ids.clear();
  EXPECT_THAT(std::string(DrawRequests(Metadata(), options).status().message()), HasSubstr("--ids cities=FILE"));
}

}  // namespace
}  // namespace din::load
