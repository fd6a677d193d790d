#include "server/log.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

constexpr char kTime[] = "2020-01-02T03:04:05.678Z";

TEST(LogTest, TextQuotesOnlyWhatNeedsIt) {
  EXPECT_EQ(FormatLogLine(
                LogFormat::kText, kTime, LogLevel::kInfo, "model live",
                {{"model", "shop"}, {"version", int64_t{7}}, {"ready", true}, {"reason", "a \"b\"\nc"}, {"none", ""}}),
            "time=2020-01-02T03:04:05.678Z level=info event=\"model live\" model=shop version=7 ready=true "
            "reason=\"a \\\"b\\\"\\nc\" none=\"\"");
}

TEST(LogTest, JsonLinesAreJsonWhateverTheyHold) {
  const std::string line =
      FormatLogLine(LogFormat::kJson, kTime, LogLevel::kError, "refused",
                    {{"reason", "tab\t quote\" back\\slash \x1b[31m \x7f"}, {"bytes", 12u}, {"error", 1e-7}});
  const auto parsed = nlohmann::json::parse(line);
  EXPECT_EQ(parsed["reason"], "tab\t quote\" back\\slash \x1b[31m \x7f");
  EXPECT_EQ(parsed["bytes"], 12);
  EXPECT_EQ(parsed["level"], "error");
}

TEST(LogTest, NoControlCharacterReachesATerminal) {
  const std::string line = FormatLogLine(LogFormat::kText, kTime, LogLevel::kInfo, "x", {{"name", "\x1b]0;owned\x07"}});
  for (const char c : line) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << line;
}

std::string Contents(std::FILE* file) {
  std::rewind(file);
  std::string text(1 << 20, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  return text;
}

TEST(LogTest, LevelsBelowTheLimitAreLeftOut) {
  std::FILE* file = std::tmpfile();
  Logger log({.level = LogLevel::kWarning, .stream = file});
  log.Info("quiet");
  log.Warning("loud");
  const std::string text = Contents(file);
  EXPECT_THAT(text, ::testing::HasSubstr("event=\"loud\""));
  EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("quiet")));
  std::fclose(file);
}

TEST(LogTest, LinesOfManyThreadsStayWhole) {
  std::FILE* file = std::tmpfile();
  Logger log({.stream = file});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) log.Info("tick", {{"i", i}, {"text", std::string(100, 'x')}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = Contents(file);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 400);
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    EXPECT_TRUE(line.starts_with("time=") && line.ends_with("xxx")) << line;
  }
  std::fclose(file);
}

}  // namespace
}  // namespace din
