#include "trainer/options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OptionsTest : public ::testing::Test {
 protected:
  OptionsTest() {
    options_.Add("learning-rate", "of Adam", &rate_, 1e-9, 10);
    options_.Add("epochs", "at most", &epochs_, 1, 100);
    options_.Add("out", "directory", &out_);
    options_.Add("tower", "units", &tower_);
    options_.AddChoice("activation", "of hidden layers", {"dice", "prelu"}, &activation_);
  }
  std::string ErrorOf(std::vector<std::string_view> arguments) {
    const absl::Status status = options_.Parse(arguments);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  double rate_ = 0.5;
  int epochs_ = 6;
  std::string out_;
  std::vector<int64_t> tower_ = {80, 40};
  int activation_ = 0;
  Options options_;
};

TEST_F(OptionsTest, BothFormsAreRead) {
  const std::vector<std::string_view> arguments = {"--epochs", "3",     "--learning-rate=1e-3", "--out=a=b",
                                                   "--tower",  "7,8,9", "--activation",         "prelu"};
  ASSERT_TRUE(options_.Parse(arguments).ok());
  EXPECT_EQ(epochs_, 3);
  EXPECT_EQ(rate_, 1e-3);
  EXPECT_EQ(out_, "a=b");
  EXPECT_THAT(tower_, ElementsAre(7, 8, 9));
  EXPECT_EQ(activation_, 1);
}

TEST_F(OptionsTest, UnknownOptionNamesTheNearest) {
  EXPECT_EQ(ErrorOf({"--lerning-rate", "1"}), "unknown option --lerning-rate; did you mean --learning-rate?");
  EXPECT_THAT(ErrorOf({"--epoch=1"}), HasSubstr("did you mean --epochs?"));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("unknown option stray"));
}

TEST_F(OptionsTest, BadValueNamesWhatIsAccepted) {
  EXPECT_EQ(ErrorOf({"--epochs", "0"}), "--epochs: \"0\" is not accepted; accepted: a number from 1 to 100");
  EXPECT_THAT(ErrorOf({"--epochs", "3x"}), HasSubstr("\"3x\" is not accepted"));
  EXPECT_THAT(ErrorOf({"--learning-rate", "nan"}), HasSubstr("\"nan\" is not accepted"));
  EXPECT_THAT(ErrorOf({"--tower", "7,,9"}), HasSubstr("numbers from 1 to 4096"));
  EXPECT_THAT(ErrorOf({"--activation", "relu"}), HasSubstr("accepted: dice, prelu"));
  EXPECT_EQ(ErrorOf({"--epochs"}), "--epochs: a value is missing; accepted: a number from 1 to 100");
  EXPECT_EQ(epochs_, 6);
  EXPECT_THAT(tower_, ElementsAre(80, 40));
}

TEST_F(OptionsTest, HelpShowsEveryOptionWithItsDefault) {
  const std::string help = options_.Help();
  EXPECT_THAT(help, HasSubstr("--learning-rate  of Adam (0.5)"));
  EXPECT_THAT(help, HasSubstr("units (80,40)"));
  EXPECT_THAT(help, HasSubstr("of hidden layers: dice, prelu (dice)"));
}

TEST_F(OptionsTest, ValuesAreTakenBackByParse) {
  const std::vector<std::string_view> arguments = {"--epochs", "3", "--learning-rate=1e-3", "--tower", "7,8,9"};
  ASSERT_TRUE(options_.Parse(arguments).ok());
  const std::vector<std::string> values = options_.Values();
  EXPECT_THAT(values,
              ElementsAre("--learning-rate=0.001", "--epochs=3", "--out=", "--tower=7,8,9", "--activation=dice"));
  epochs_ = 50;
  EXPECT_TRUE(options_.Parse(std::vector<std::string_view>(values.begin(), values.end())).ok());
  EXPECT_EQ(epochs_, 3);
}

TEST(NearestTest, TakesTheFewestEdits) {
  const std::vector<std::string_view> words = {"train", "demo-requests"};
  EXPECT_EQ(Nearest("trian", words), "train");
  EXPECT_EQ(Nearest("requests", words), "demo-requests");
  EXPECT_EQ(Nearest("x", {}), "");
}

}  // namespace
}  // namespace din
