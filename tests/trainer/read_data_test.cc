// Event logs of one's own, Amazon reviews, and how they are told apart.
#include "trainer/read_data.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trainer/amazon.h"
#include "trainer/table.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ReadDataTest : public ::testing::Test {
 protected:
  ReadDataTest() : directory_(::testing::TempDir() + "read_data_test_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(directory_);
  }
  ~ReadDataTest() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }
  absl::StatusOr<Dataset> Read() { return ReadData(directory_, report_, silent_); }
  std::string Error() { return std::string(Read().status().message()); }

  const std::filesystem::path directory_;
  ReadReport report_;
  Progress silent_{nullptr};
};

std::vector<std::string> ItemsOf(const Dataset& data, size_t user) {
  std::vector<std::string> ids;
  for (const Event& event : data.EventsOf(user)) ids.push_back(data.items[event.item].id);
  return ids;
}

TEST_F(ReadDataTest, LogWithItemsAndUsersBesideIt) {
  Write("events.tsv", "user\titem\tts\nann\tb\t20\nann\ta\t10\nbob\tb\t5\n");
  Write("items.tsv", "item\tcategory\tn_events\tname\na\tx\t3\tApple\nb\ty\t1\tBanana\nunsold\tz\t0\tNothing\n");
  Write("users.tsv", "user\tcity\nbob\tRome\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  const auto user = [&](const char* id) { return std::ranges::find(data->user_ids, id) - data->user_ids.begin(); };
  EXPECT_THAT(ItemsOf(*data, user("ann")), ElementsAre("a", "b"));
  EXPECT_EQ(data->items.size(), 2u);
  EXPECT_FALSE(data->integer_ids);
  EXPECT_EQ(data->items[data->EventsOf(user("ann"))[0].item].title, "Apple");
  ASSERT_EQ(data->user_fields.size(), 1u);
  const auto city = [&](const char* id) {
    return data->user_fields[0].values[data->SideValue(static_cast<int32_t>(user(id)), 0, 0)];
  };
  EXPECT_EQ(city("bob"), "Rome");
  EXPECT_EQ(city("ann"), "unknown");
}

TEST_F(ReadDataTest, CsvLogOfImpressionsWithEverythingInIt) {
  Write("events.csv",
        "timestamp,user,item,category,category_brand,label,user_age,context_page,action\n"
        "1,u,7,x,\"b,1\",0,30,home,view\n2,u,8,y,b2,1,30,search,view\n3,u,7,x,\"b,1\",1,30,home,buy\n");
  Dataset data = Read().value();
  EXPECT_EQ(data.impressions.size(), 3u);
  EXPECT_THAT(ItemsOf(data, 0), ElementsAre("8", "7"));  // only what was clicked is behaviour
  EXPECT_TRUE(data.integer_ids);
  EXPECT_EQ(data.item_fields(), 3u);
  EXPECT_EQ(data.side_fields(), 2u);
  EXPECT_EQ(data.categories[1].values[data.ItemValue(data.EventsOf(0)[1].item, 2)], "b,1");
  EXPECT_EQ(data.context_fields[0].values[data.SideValue(0, data.impressions[1].row, 1)], "search");
  EXPECT_TRUE(SplitByAction(data).ok());
}

TEST_F(ReadDataTest, HeaderThatDoesNotFitIsNamed) {
  Write("events.tsv", "user\titem\tcolour\tts\n");
  EXPECT_THAT(Error(), HasSubstr("column \"colour\" has no meaning here; accepted: user, item, ts"));
  Write("events.tsv", "user\titem\n");
  EXPECT_THAT(Error(), HasSubstr("no column \"ts\" in the header: user, item"));
  Write("events.tsv", "");
  EXPECT_THAT(Error(), HasSubstr("events.tsv: empty"));
  Write("events.tsv", "user\titem\tts\n");
  EXPECT_THAT(Error(), HasSubstr("events.tsv: data: no events"));
}

TEST_F(ReadDataTest, BadLinesAreCountedAndManyAreAnError) {
  std::string log = "user\titem\tts\tlabel\n";
  for (int i = 0; i < 2500; ++i) log += "u\ta\t" + std::to_string(i) + "\t1\n";
  Write("events.tsv", log + "u\ta\tnoon\t1\nu\ta\t3\tmaybe\n");
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(report_.bad_lines, 2u);
  EXPECT_THAT(report_.first_bad_line, HasSubstr("events.tsv:2502: ts \"noon\" is not an integer"));
  Write("events.tsv", "user\titem\tts\tlabel\nu\ta\t1\t1\nu\ta\t3\tmaybe\nu\ta\n");
  const auto data = Read();
  EXPECT_EQ(data.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(data.status().message()), HasSubstr("events.tsv:3: label \"maybe\" is neither 0 nor 1"));
}

TEST_F(ReadDataTest, NothingThereSaysWhatIsLookedFor) {
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Error(), HasSubstr("events.tsv"));
}

TEST_F(ReadDataTest, AmazonReviewsWithMetadataInPythonOrJson) {
  Write("meta_Toys.json",
        "{'asin': 'B01', 'title': 'It\\'s a \"toy\" caf\\xe9', 'categories': [['Toys', 'Games'], ['x', 'y']]}\n"
        "{\"asin\": \"B02\", \"categories\": [[\"Toys\", \"Puzzles\"]], \"price\": 3.5}\n");
  Write("reviews_Toys_5.json",
        "{\"reviewerID\": \"A1\", \"asin\": \"B02\", \"overall\": 5.0, \"unixReviewTime\": 200}\n"
        "{\"reviewerID\": \"A1\", \"asin\": \"B01\", \"overall\": 3.0, \"unixReviewTime\": 100}\n"
        "{\"reviewerID\": \"A2\", \"asin\": \"B99\", \"overall\": 1.0, \"unixReviewTime\": 50}\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(ItemsOf(*data, 0), ElementsAre("B01", "B02"));
  const auto category = [&](const Event& e) { return data->categories[0].values[data->ItemValue(e.item, 1)]; };
  EXPECT_EQ(category(data->EventsOf(0)[0]), "y");
  EXPECT_EQ(category(data->EventsOf(0)[1]), "Puzzles");
  EXPECT_EQ(category(data->EventsOf(1)[0]), "unknown");
  EXPECT_EQ(data->items[data->EventsOf(0)[0].item].title, "It's a \"toy\" caf\u00e9");
  EXPECT_EQ(data->EventsOf(0)[0].value, 3.0f);
}

// Every field that the files of 2014 have, in their order; the names and texts are made up.
TEST_F(ReadDataTest, AmazonFilesOf2014AsTheyShip) {
  Write("meta_Beauty.json",
        "{'asin': '0000031852', 'title': 'Tutu \"Zebra\"', 'price': 3.17, 'imUrl': 'http://x/I/51f._SY300_.jpg', "
        "'related': {'also_bought': ['B00JHONN1S', 'B002BZX8Z6'], 'bought_together': ['B002BZX8Z6']}, "
        "'salesRank': {'Toys & Games': 211836}, 'brand': 'Cox', 'categories': [['Beauty', 'Hair'], ['Beauty', "
        "'Nails & Tools']]}\n"
        "{'asin': 'B0002', 'description': \"It's new.\\n\\tTrue\\x07 \\\\ 'None': {'categories': [['no']]}\", "
        "'title': \"Women's Caf\\xc3\\xa9 \\xe2\\x84\\xa2\", 'categories': [['Beauty']], 'salesRank': {}}\n"
        "{'categories': [['Beauty', 'Bath']], 'asin': 'B0003', 'title': u'Soap \\xe9\\u2019s', 'related': {}}\n"
        "{'asin': 'B0004', 'imUrl': 'http://x/no.gif'}\n");
  Write(
      "reviews_Beauty_5.json",
      "{\"reviewerID\": \"A1\", \"asin\": \"0000031852\", \"reviewerName\": \"J. \\\"Mc\\\" A\", \"helpful\": [2, 3], "
      "\"reviewText\": \"It's {good}: 'asin'\\n\", \"overall\": 5.0, \"summary\": \"\\u2605\", \"unixReviewTime\": "
      "1252800000, "
      "\"reviewTime\": \"09 13, 2009\"}\n"
      "{\"reviewerID\": \"A1\", \"asin\": \"B0002\", \"helpful\": [0, 0], \"reviewText\": \"\", \"overall\": 1.0, "
      "\"summary\": \"\", \"unixReviewTime\": 1252713600, \"reviewTime\": \"09 12, 2009\"}\n"
      "{\"reviewerID\": \"A1\", \"asin\": \"B0003\", \"overall\": 4.0, \"unixReviewTime\": 1252800000}\n"
      "{'reviewerID': 'A2', 'asin': 'B0004', 'overall': 2.0, 'unixReviewTime': 1252800001}\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(report_.bad_lines, 0u);
  ASSERT_THAT(ItemsOf(*data, 0), ElementsAre("B0002", "0000031852", "B0003"));  // equal times as in the file
  std::vector<std::string> titles, categories;
  for (const Event& e : data->events) {
    titles.push_back(data->items[e.item].title);
    categories.push_back(data->categories[0].values[data->ItemValue(e.item, 1)]);
  }
  EXPECT_THAT(titles, ElementsAre("Women's Caf\u00e9 \u2122", "Tutu \"Zebra\"", "Soap \u00e9\u2019s", ""));
  EXPECT_THAT(categories, ElementsAre("Beauty", "Nails & Tools", "Bath", "unknown"));
}

TEST_F(ReadDataTest, LineThatIsNotUtf8IsBad) {
  Write("events.tsv", "user\titem\tts\nu\tcaf\xe9\t1\n");
  EXPECT_THAT(Error(), HasSubstr("events.tsv:2: not UTF-8"));
}

TEST_F(ReadDataTest, AmazonWithoutMetadataOrWithBadRecordsIsNamed) {
  Write("reviews_Toys.json", "{\"reviewerID\": \"A1\"}\n");
  EXPECT_THAT(Error(), HasSubstr("0 files meta_*.json"));
  Write("meta_Toys.json", "{'asin': 'B01'}\n");
  EXPECT_THAT(Error(), HasSubstr("reviews_Toys.json:1: no asin"));
  Write("meta_Toys.json", "{'asin': }\n");
  EXPECT_THAT(Error(), HasSubstr("meta_Toys.json:1: neither JSON nor a Python dict"));
}

TEST(PythonLiteralTest, BecomesJson) {
  EXPECT_EQ(PythonLiteralToJson("{'a': True, u'b': None, \"c\": ['x\\'y', \"z'\"]}"),
            "{\"a\": true, \"b\": null, \"c\": [\"x'y\", \"z'\"]}");
}

}  // namespace
}  // namespace din
