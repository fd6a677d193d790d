#include "trainer/demo_requests.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/model_spec.pb.h"
#include "tests/trainer/shop.h"
#include "trainer/export.h"

namespace din {
namespace {

using ::testing::HasSubstr;

std::string Read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// What scoring.proto's ScoreRequest shares with GoldenCase, which needs no gRPC to parse; the rest is ignored.
v1::GoldenCase Parse(const std::string& json) {
  v1::GoldenCase request;
  google::protobuf::util::JsonParseOptions lenient;
  lenient.ignore_unknown_fields = true;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &request, lenient).ok()) << json;
  return request;
}

class DemoRequestsTest : public ::testing::Test {
 protected:
  DemoRequestsTest() : out_(::testing::TempDir() + "demo_requests_test_" + std::to_string(::getpid())) {}
  ~DemoRequestsTest() override { std::filesystem::remove_all(out_); }
  const std::filesystem::path out_;
};

TEST_F(DemoRequestsTest, HoldTheHistoryAndTheNextItemAmongItemsNeverTouched) {
  const Dataset data = LoyalShop(9, 30, 120, 1);
  ASSERT_TRUE(
      WriteDemoRequests(data, {.out = out_, .model = "shop", .users = 3, .candidates = 12, .max_history = 10}).ok());
  std::ifstream next(out_ / "next.tsv");
  std::string line;
  int requests = 0;
  while (std::getline(next, line)) {
    ++requests;
    const std::string file = line.substr(0, line.find('\t'));
    const std::string user_id = file.substr(5, file.find('.') - 5);
    const size_t user = std::find(data.user_ids.begin(), data.user_ids.end(), user_id) - data.user_ids.begin();
    ASSERT_LT(user, data.users());
    std::vector<int64_t> ids;
    for (const Event& event : data.EventsOf(user)) ids.push_back(std::stoll(data.items[event.item].id));

    const std::string json = Read(out_ / file);
    EXPECT_THAT(json, HasSubstr("\"model\": \"shop\""));
    const v1::GoldenCase request = Parse(json);
    ASSERT_EQ(request.sequences_size(), 1);
    EXPECT_EQ(request.sequences(0).name(), "history");
    const auto& history = request.sequences(0).columns(0);
    EXPECT_EQ(history.name(), "history_item");
    EXPECT_EQ(std::vector<int64_t>(history.ids().begin(), history.ids().end()),
              std::vector<int64_t>(ids.end() - 11, ids.end() - 1));
    const auto& candidates = request.candidates(0);
    EXPECT_EQ(candidates.name(), kItem);
    const std::set<int64_t> distinct(candidates.ids().begin(), candidates.ids().end());
    EXPECT_EQ(distinct.size(), 12u);
    EXPECT_TRUE(distinct.contains(ids.back()));
    EXPECT_EQ(std::count_if(ids.begin(), ids.end(), [&](int64_t id) { return distinct.contains(id); }), 1);
    EXPECT_EQ(line, file + "\t" + std::to_string(ids.back()) + "\titem " + std::to_string(ids.back()));
  }
  EXPECT_EQ(requests, 3);
}

TEST_F(DemoRequestsTest, DataWithoutALongHistoryIsRefused) {
  EXPECT_EQ(WriteDemoRequests(LoyalShop(5, 10, 60, 1), {.out = out_}).code(), absl::StatusCode::kInvalidArgument);
}

// What a model with side features and a list for each action wants in a request.
TEST_F(DemoRequestsTest, CarryTheUsersFeaturesTheMomentAndEveryList) {
  DatasetBuilder builder({.categories = {"category"}, .user_fields = {"city"}});
  for (int i = 0; i < 60; ++i) builder.AddItem("sku-" + std::to_string(i), "", "x");
  const std::string_view rome[] = {"rome"};
  builder.AddUser("ann", rome);
  for (int k = 0; k < 30; ++k) {
    builder.AddEvent(
        {.user = "ann", .item = "sku-" + std::to_string(k), .time = 3600 * k, .action = k % 3 == 0 ? "buy" : "view"});
  }
  for (int k = 30; k < 60; ++k) {  // what ann never touched
    builder.AddEvent({.user = "bob", .item = "sku-" + std::to_string(k), .time = k, .action = "view"});
  }
  Dataset data = std::move(builder).Build().value();
  ASSERT_TRUE(SplitByAction(data).ok());
  AddTimeContext(data);
  ASSERT_TRUE(WriteDemoRequests(data, {.out = out_, .users = 2, .candidates = 5}).ok());
  const v1::GoldenCase request = Parse(Read(out_ / "user-ann.json"));
  ASSERT_EQ(request.features_size(), 3);
  EXPECT_EQ(request.features(0).name(), "city");
  EXPECT_EQ(request.features(0).keys(0), "rome");
  EXPECT_EQ(request.features(1).name(), "hour");
  EXPECT_EQ(request.features(1).keys(0), "5");  // of the last event, which the candidates compete for
  ASSERT_EQ(request.sequences_size(), 2);
  EXPECT_EQ(request.sequences(0).name(), "history_buy");
  EXPECT_EQ(request.sequences(0).columns(0).keys_size(), 10);
  EXPECT_EQ(request.sequences(1).columns(0).keys_size(), 19);
  EXPECT_EQ(request.candidates(0).keys_size(), 5);
}

}  // namespace
}  // namespace din
