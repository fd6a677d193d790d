#include "trainer/movielens.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/r_writer.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MovieLensTest : public ::testing::Test {
 protected:
  MovieLensTest() : directory_(::testing::TempDir() + "movielens_test_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(directory_);
  }
  ~MovieLensTest() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }
  absl::StatusOr<Dataset> Read() { return ReadMovieLens(directory_, report_, silent_); }

  const std::filesystem::path directory_;
  ReadReport report_;
  Progress silent_{nullptr};
};

std::vector<std::string> TitlesInOrder(const Dataset& data, size_t user) {
  std::vector<std::string> titles;
  for (const Event& event : data.EventsOf(user)) titles.push_back(data.items[event.item].title);
  return titles;
}

std::string CategoryOf(const Dataset& data, int32_t item) { return data.categories[0].values[data.ItemValue(item, 1)]; }

constexpr char kMovies[] =
    "movieId,title,genres\n"
    "1,Toy Story (1995),Adventure|Animation\n"
    "11,\"American President, The (1995)\",Comedy|Drama\r\n"
    "12,\"Say \"\"Hi\"\" (1999)\",(no genres listed)\n";

TEST_F(MovieLensTest, CsvFolderIsReadInOrderOfTime) {
  Write("movies.csv", kMovies);
  Write("ratings.csv", "userId,movieId,rating,timestamp\n7,11,4.0,300\n7,1,2.5,100\n9,12,5.0,50\n7,12,3.0,100\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(report_.events, 4u);
  EXPECT_EQ(report_.bad_lines, 0u);
  EXPECT_THAT(data->user_ids, ElementsAre("7", "9"));
  // Equal times keep the order of the file.
  EXPECT_THAT(TitlesInOrder(*data, 0),
              ElementsAre("Toy Story (1995)", "Say \"Hi\" (1999)", "American President, The (1995)"));
  EXPECT_THAT(TitlesInOrder(*data, 1), ElementsAre("Say \"Hi\" (1999)"));
  EXPECT_EQ(data->EventsOf(0)[0].value, 2.5f);
  const Item& last = data->items[data->EventsOf(0)[2].item];
  EXPECT_EQ(last.id, "11");
  EXPECT_TRUE(data->integer_ids);
  EXPECT_EQ(CategoryOf(*data, data->EventsOf(0)[2].item), "Comedy");
}

TEST_F(MovieLensTest, FewBadLinesAreCountedAndTheFirstShown) {
  Write("movies.csv", kMovies);
  std::string ratings = "userId,movieId,rating,timestamp\n";
  for (int i = 0; i < 3000; ++i) ratings += "1,1,4.0," + std::to_string(i) + "\n";
  Write("ratings.csv", ratings + "1,999,4.0,1\n1,1,x,1\n");
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(report_.bad_lines, 2u);
  EXPECT_THAT(report_.first_bad_line, HasSubstr("ratings.csv:3002: film 999 is not in movies.csv"));
}

TEST_F(MovieLensTest, ManyBadLinesAreAnError) {
  Write("movies.csv", kMovies);
  Write("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4.0,1\n1,1,4.0\n");
  const auto data = Read();
  EXPECT_EQ(data.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(data.status().message()), HasSubstr("ratings.csv:3: 3 fields, expected 4"));
}

TEST_F(MovieLensTest, WrongHeaderEmptyFileAndEmptyFolderAreNamed) {
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kNotFound);
  Write("ratings.csv", "");
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("movies.csv: cannot be opened"));
  Write("movies.csv", kMovies);
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("ratings.csv: empty"));
  Write("ratings.csv", "user,item\n");
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("expected \"userId,movieId,rating,timestamp\""));
  Write("ratings.csv", "userId,movieId,rating,timestamp\n");
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("no events"));
}

// The layout of 1M: "::" between fields, Latin-1, and users of whom something is known.
TEST_F(MovieLensTest, DatFolderIsReadWithItsUsers) {
  Write("movies.dat", "1::Toy Story (1995)::Animation|Comedy\n73::Mis\xe9rables, Les (1995)::Drama\n");
  Write("users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n");
  Write("ratings.dat", "2::1::5::978300760\n1::73::3::978302109\n1::1::4::978302110\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(data->user_ids, ElementsAre("1", "2"));
  EXPECT_THAT(TitlesInOrder(*data, 0), ElementsAre("Mis\u00e9rables, Les (1995)", "Toy Story (1995)"));
  ASSERT_EQ(data->user_fields.size(), 3u);
  EXPECT_EQ(data->user_fields[0].name, "gender");
  EXPECT_EQ(data->user_fields[1].values[data->SideValue(1, 0, 1)], "56");
  EXPECT_EQ(data->actions[data->EventsOf(0)[1].action], "liked");
  EXPECT_EQ(data->actions[data->EventsOf(0)[0].action], "disliked");
}

// The layout of 10M: the same without users, half stars, and titles in UTF-8.
TEST_F(MovieLensTest, DatFolderOf10MIsInUtf8) {
  Write("movies.dat",
        "6::Heat (1995)::Action|Crime|Thriller\n73::Mis\u00e9rables, Les (1995)::Drama|Musical\n"
        "8197::Hiroshima mon amour::(no genres listed)\n");
  Write("ratings.dat", "1::73::4.5::838985046\n1::6::0.5::838983525\n2::8197::5::868245777\n");
  Write("tags.dat", "15::73::excellent!::1215184630\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(report_.bad_lines, 0u);
  EXPECT_TRUE(data->user_fields.empty());
  EXPECT_THAT(TitlesInOrder(*data, 0), ElementsAre("Heat (1995)", "Mis\u00e9rables, Les (1995)"));
  EXPECT_EQ(data->EventsOf(0)[1].value, 4.5f);
  EXPECT_EQ(CategoryOf(*data, data->EventsOf(0)[0].item), "Action");
  EXPECT_EQ(CategoryOf(*data, data->EventsOf(1)[0].item), "(no genres listed)");
}

// The layout of 20M and 25M: CSV in UTF-8, some releases with CR LF, with further files beside it.
TEST_F(MovieLensTest, CsvFolderOf20MWithCarriageReturnsAndAccents) {
  Write("movies.csv",
        "movieId,title,genres\r\n1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\r\n"
        "73,\"Mis\u00e9rables, Les (1995)\",Drama|War\r\n131162,\"\"\"Quoted\"\" Film, A\",(no genres listed)\r\n");
  Write("ratings.csv",
        "userId,movieId,rating,timestamp\r\n1,73,3.5,1112486027\r\n1,1,4,1112484676\r\n2,131162,0.5,1427404801\r\n");
  Write("links.csv", "movieId,imdbId,tmdbId\r\n1,0114709,862\r\n");
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(report_.bad_lines, 0u);
  EXPECT_THAT(TitlesInOrder(*data, 0), ElementsAre("Toy Story (1995)", "Mis\u00e9rables, Les (1995)"));
  EXPECT_THAT(TitlesInOrder(*data, 1), ElementsAre("\"Quoted\" Film, A"));
}

TEST_F(MovieLensTest, CsvTitleThatIsNotUtf8IsABadLine) {
  Write("movies.csv", "movieId,title,genres\n1,Mis\xe9rables (1995),Drama\n");
  Write("ratings.csv", "userId,movieId,rating,timestamp\n1,1,3.5,1\n");
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("movies.csv:2: the title is not UTF-8"));
}

RMembers Frame() {
  return {{"movieId", RInts({31, 1029, 31})},
          {"title", RStrings({"Dangerous Minds", "Dumbo", "Dangerous Minds"})},
          {"year", RInts({1995, INT32_MIN, 1995})},
          {"genres", RFactor({2, 1, 2}, {"Animation|Children", "Drama"})},
          {"userId", RInts({1, 1, 2})},
          {"rating", RReals({2.5, 3, 4})},
          {"timestamp", RInts({200, 100, 300})}};
}

TEST_F(MovieLensTest, DataFrameOfDslabsIsRead) {
  const RLazyLoad db = MakeLazyLoad("movielens", RNamedList(Frame()));
  Write("Rdata.rdx", db.index);
  Write("Rdata.rdb", db.data);
  const auto data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(TitlesInOrder(*data, 0), ElementsAre("Dumbo", "Dangerous Minds (1995)"));
  EXPECT_THAT(TitlesInOrder(*data, 1), ElementsAre("Dangerous Minds (1995)"));
  EXPECT_EQ(CategoryOf(*data, data->EventsOf(0)[0].item), "Animation");
}

TEST_F(MovieLensTest, DataFrameWithAColumnMissingShortOrOfAnotherTypeIsDataLoss) {
  for (size_t column = 0; column < Frame().size(); ++column) {
    for (const std::string& value : {std::string(), RInts({1}), RStrings({"a", "b"})}) {
      RMembers frame = Frame();
      if (value.empty()) {
        frame.erase(frame.begin() + static_cast<long>(column));
      } else {
        frame[column].second = value;
      }
      const RLazyLoad db = MakeLazyLoad("movielens", RNamedList(frame));
      Write("Rdata.rdx", db.index);
      Write("Rdata.rdb", db.data);
      EXPECT_EQ(Read().status().code(), absl::StatusCode::kDataLoss) << Frame()[column].first;
    }
  }
}

TEST_F(MovieLensTest, FactorLevelOutOfRangeIsDataLoss) {
  RMembers frame = Frame();
  frame[3].second = RFactor({2, 3, 2}, {"Animation|Children", "Drama"});
  const RLazyLoad db = MakeLazyLoad("movielens", RNamedList(frame));
  Write("Rdata.rdx", db.index);
  Write("Rdata.rdb", db.data);
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("level 3 of 2"));
}

}  // namespace
}  // namespace din
