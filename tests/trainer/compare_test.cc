#include "trainer/compare.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RunResult RunOf(const std::string& variant, uint64_t seed, double auc) {
  return {.variant = variant,
          .seed = seed,
          .epochs = {{0.6, auc - 0.02, 0.5}, {0.5, auc, 0.5}},
          .best_epoch = 2,
          .test = {.samples = 10, .user_auc = auc, .users = 3, .auc = auc},
          .seconds = 2,
          .cpu_seconds = 2};
}

// "wins" is .01 ahead in every seed, although seeds differ by more; "draws" is now ahead, now behind.
std::vector<RunResult> Runs() {
  std::vector<RunResult> runs;
  const double base[] = {0.70, 0.73, 0.76};
  const double draw[] = {0.01, -0.012, 0.004};
  for (uint64_t seed = 0; seed < 3; ++seed) {
    runs.push_back(RunOf("base", seed, base[seed]));
    runs.push_back(RunOf("wins", seed, base[seed] + 0.01 + 0.0001 * static_cast<double>(seed)));
    runs.push_back(RunOf("draws", seed, base[seed] + draw[seed]));
    runs.push_back(RunOf("loses", seed, base[seed] - 0.02));
  }
  return runs;
}

TEST(CompareTest, PairedDifferencesDecideAndWhatIsNotToldApartIsATie) {
  const std::vector<Comparison> rows = Compare(Runs());
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].verdict, Comparison::kBase);
  EXPECT_EQ(rows[1].verdict, Comparison::kAhead);
  EXPECT_EQ(rows[2].verdict, Comparison::kTie);
  EXPECT_EQ(rows[3].verdict, Comparison::kBehind);
  EXPECT_NEAR(rows[1].over_base.mean, 0.0101, 1e-9);
  EXPECT_NEAR(rows[1].rela_impr, (0.2401 / 0.23 - 1) * 100, 1e-6);
  EXPECT_TRUE(rows[1].ties_with_best);
  EXPECT_FALSE(rows[3].ties_with_best);
}

TEST(CompareTest, OneSeedTellsNothingApart) {
  const std::vector<Comparison> rows = Compare({RunOf("base", 1, 0.7), RunOf("din", 1, 0.9)});
  EXPECT_EQ(rows[1].verdict, Comparison::kTie);
  EXPECT_TRUE(std::isnan(rows[1].over_base.half));
  EXPECT_THAT(FormatTable(rows, TableStyle::kTerminal), Not(HasSubstr("nan")));
}

TEST(CompareTest, IntervalIsStudents) {
  const Estimate e = Mean95({1, 2, 3});  // standard deviation 1, t(2) = 4.303
  EXPECT_DOUBLE_EQ(e.mean, 2);
  EXPECT_NEAR(e.half, 4.303 / std::sqrt(3), 1e-9);
  const Estimate many = Mean95(std::vector<double>(50, 1.0));
  EXPECT_EQ(many.half, 0);
}

TEST(CompareTest, RunsComeBackFromJson) {
  RunResult run = RunOf("din+dice", 7, 0.75);
  run.test.calibration = std::nan("");
  const auto back = ParseRun(FormatRun(run));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(FormatRun(*back), FormatRun(run));
  EXPECT_EQ(back->epochs.size(), 2u);
  EXPECT_FALSE(ParseRun("{}").ok());
  EXPECT_FALSE(ParseRun("no").ok());
}

TEST(CompareTest, TablesJsonAndPlotHoldEveryVariant) {
  const std::vector<RunResult> runs = Runs();
  const std::vector<Comparison> rows = Compare(runs);
  const std::string markdown = FormatTable(rows, TableStyle::kMarkdown);
  const std::string json = FormatJson(rows, runs, "[]");
  const std::string svg = PlotEpochs(runs, {"base", "wins"}, "title");
  for (const char* variant : {"base", "wins"}) {
    EXPECT_THAT(markdown, HasSubstr(variant));
    EXPECT_THAT(json, HasSubstr(variant));
    EXPECT_THAT(svg, HasSubstr(variant));
  }
  EXPECT_THAT(markdown, HasSubstr("| ahead"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  EXPECT_EQ(PlotEpochs(runs, {"none"}, "title"), "");
}

}  // namespace
}  // namespace din
