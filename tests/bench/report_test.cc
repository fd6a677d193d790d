#include "bench/load/report.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace din::load {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Report SomeReport() {
  Recorder recorder({.seconds = 1, .slice_seconds = 0.1});
  for (int i = 0; i < 1000; ++i) {
    recorder.Add({.intended_ns = i * 1'000'000, .latency_ns = 1000 * (i + 1), .outcome = i == 3 ? 8 : 0, .version = 1});
  }
  Report report;
  report.command = "din-load --model '</script><b>'";
  report.objective = Objective{"p99<5ms", 0.99, 5'000'000};
  report.max = FindMaxResult{1234, "the objective"};
  report.runs.push_back(Summarise({.measurements = recorder.measurements(), .seconds = 1}, report.objective));
  return report;
}

TEST(ReportTest, JsonHoldsTheFigures) {
  const nlohmann::json json = ToJson(SomeReport());
  const auto& run = json["runs"][0];
  EXPECT_EQ(run["sent"], 1000);
  EXPECT_EQ(run["errors"]["RESOURCE_EXHAUSTED"], 1);
  EXPECT_TRUE(run["valid"]);
  EXPECT_NEAR(run["latency_us"]["p99"].get<double>(), 990, 5);
  EXPECT_EQ(run["timeline"]["sent"].size(), 10u);
  EXPECT_EQ(json["max"]["rate"], 1234);
}

TEST(ReportTest, ThePageNeedsNothingElse) {
  const std::string page = ToHtml(SomeReport());
  for (const char* part : {"http://", "https://", "src=", "@import", "url("}) EXPECT_THAT(page, Not(HasSubstr(part)));
  EXPECT_THAT(page, HasSubstr("\"sent\":1000"));
  EXPECT_THAT(page, Not(HasSubstr("/*DATA*/")));
}

TEST(ReportTest, NoTextOfTheReportEndsTheScript) {
  const std::string page = ToHtml(SomeReport());
  EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
}

TEST(ReportTest, TheTableTellsWhatMatters) {
  Report report = SomeReport();
  EXPECT_THAT(ToTable(report.runs[0]), HasSubstr("VALID"));
  EXPECT_THAT(ToTable(report.runs[0]), HasSubstr("RESOURCE_EXHAUSTED"));
  report.runs[0].invalid.push_back("because");
  EXPECT_THAT(ToTable(report.runs[0]), HasSubstr("INVALID: because"));
  EXPECT_THAT(ToLine(report.runs[0]), HasSubstr("INVALID"));
}

}  // namespace
}  // namespace din::load
