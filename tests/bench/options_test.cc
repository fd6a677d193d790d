#include "bench/load/options.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din::load {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Refusal(const std::vector<std::string>& arguments) {
  const auto options = ParseOptions(arguments);
  EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(options.status().message());
}

TEST(OptionsTest, BothSpellingsOfAValueAreTaken) {
  const auto options = ParseOptions({"--rate", "250", "--duration=90s", "--deadline=20ms", "--arrivals", "constant"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->rate, 250);
  EXPECT_EQ(options->search.start, 250);
  EXPECT_EQ(options->seconds, 90);
  EXPECT_EQ(options->engine.deadline_ns, 20'000'000);
  EXPECT_EQ(options->arrivals, Arrivals::kConstant);
}

TEST(OptionsTest, RefusalsNameOptionValueAndRange) {
  EXPECT_THAT(Refusal({"--rat", "5"}), HasSubstr("unknown option --rat"));
  EXPECT_THAT(Refusal({"--rate"}), HasSubstr("--rate: needs N"));
  EXPECT_THAT(Refusal({"--rate", "fast"}), HasSubstr("--rate: \"fast\" is not a number within"));
  EXPECT_THAT(Refusal({"--connections", "1.5"}), HasSubstr("--connections: \"1.5\""));
  EXPECT_THAT(Refusal({"--connections", "0"}), HasSubstr("within [1, 1000]"));
  EXPECT_THAT(Refusal({"--duration", "30"}), HasSubstr("a time such as"));
  EXPECT_THAT(Refusal({"--arrivals", "bursty"}), HasSubstr("poisson or constant"));
  EXPECT_THAT(Refusal({"--ids", "items"}), HasSubstr("NAME=VALUE"));
  EXPECT_THAT(Refusal({"--versions", "3,x"}), HasSubstr("versions, such as"));
}

TEST(OptionsTest, OptionsThatContradictEachOtherAreRefused) {
  Refusal({"--find-max", "p99<5ms", "--sweep", "1,2"});
  Refusal({"--find-max", "p99<5ms", "--profile", "10:1s"});
  Refusal({"--key", "client.key"});
}

TEST(OptionsTest, SweepsAreListsOrGeometricRanges) {
  EXPECT_THAT(*ParseRates("100,200,500"), ElementsAre(100, 200, 500));
  EXPECT_THAT(*ParseRates("100..800/4"),
              ElementsAre(DoubleNear(100, 1e-9), DoubleNear(200, 1e-9), DoubleNear(400, 1e-9), DoubleNear(800, 1e-9)));
  for (const char* text : {"", "0", "1,,2", "5..1/3", "1..5/1", "1..5", "1/3", "x..5/3"}) {
    EXPECT_FALSE(ParseRates(text).ok()) << text;
  }
}

TEST(OptionsTest, HelpNamesEveryOptionAndTheExitCodes) {
  const std::string help = HelpText();
  for (const char* part : {"--server ", "--find-max ", "--profile ", "--html ", "--spin ", "Exit code"}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
}

}  // namespace
}  // namespace din::load
