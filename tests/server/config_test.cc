#include "server/config.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/nearest_name.h"
#include "server/units.h"

namespace din {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/config-XXXXXX";
    ASSERT_NE(mkdtemp(directory_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string File(const std::string& text) {
    const std::string path = directory_ + "/din.conf";
    std::ofstream(path) << text;
    return path;
  }

  // With a model root, so that the rest can be looked at.
  static absl::StatusOr<Invocation> Parse(std::vector<std::string> flags, std::vector<std::string> environment = {}) {
    flags.insert(flags.begin(), "--model-root=/m");
    return ParseBare(flags, environment);
  }
  static absl::StatusOr<Invocation> ParseBare(const std::vector<std::string>& flags,
                                              const std::vector<std::string>& environment = {}) {
    std::vector<const char*> f, e;
    for (const std::string& s : flags) f.push_back(s.c_str());
    for (const std::string& s : environment) e.push_back(s.c_str());
    return ParseInvocation(f, e);
  }
  static std::string OriginOf(const Invocation& invocation, std::string_view name) {
    for (const auto& setting : invocation.effective) {
      if (setting.name == name) return setting.origin;
    }
    return "no such setting";
  }

  std::string directory_;
};

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = File("queue = 10\nthreads = 10\npoll-interval = 10s  # seldom\n\n# nothing\n");
  const auto parsed = Parse({"--config", file, "--queue", "30"}, {"DIN_SERVER_QUEUE=20", "DIN_SERVER_THREADS=20"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.queue, 30u);
  EXPECT_EQ(parsed->config.threads, 20u);
  EXPECT_EQ(parsed->config.poll_interval, milliseconds(10'000));
  EXPECT_EQ(parsed->config.max_candidates, Config().max_candidates);
  EXPECT_EQ(OriginOf(*parsed, "queue"), "flag");
  EXPECT_EQ(OriginOf(*parsed, "threads"), "environment DIN_SERVER_THREADS");
  EXPECT_EQ(OriginOf(*parsed, "poll-interval"), "file " + file + ":3");
  EXPECT_EQ(OriginOf(*parsed, "max-candidates"), "default");
}

// What --check-config prints can be given back, for every setting and by every way.
TEST_F(ConfigTest, EverySettingCanBeGivenByFlagEnvironmentAndFile) {
  const auto defaults = Parse({});
  ASSERT_TRUE(defaults.ok());
  for (const auto& setting : defaults->effective) {
    if (setting.value.empty()) continue;
    const std::string name(setting.name);
    std::string variable = "DIN_SERVER_" + name;
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(toupper(c));
    EXPECT_TRUE(Parse({"--" + name, setting.value}).ok()) << name;
    EXPECT_TRUE(Parse({}, {variable + "=" + setting.value}).ok()) << name;
    EXPECT_TRUE(Parse({"--config=" + File(name + " = " + setting.value)}).ok()) << name;
    EXPECT_FALSE(Parse({"--" + name, "\x01?"}).ok() && name != "model-root" && name != "port-file") << name;
    EXPECT_THAT(HelpText(), HasSubstr("--" + name + " "));
  }
}

TEST_F(ConfigTest, UnknownNameIsAnErrorWithTheNearestOne) {
  EXPECT_THAT(Parse({"--queu=3"}).status().message(), AllOf(HasSubstr("--queu"), HasSubstr("did you mean \"queue\"?")));
  EXPECT_THAT(Parse({}, {"DIN_SERVER_THREAD=3"}).status().message(),
              AllOf(HasSubstr("DIN_SERVER_THREAD"), HasSubstr("did you mean \"threads\"?")));
  EXPECT_THAT(Parse({"--config=" + File("\npoll-intervall = 3s")}).status().message(),
              AllOf(HasSubstr("din.conf:2"), HasSubstr("did you mean \"poll-interval\"?")));
}

TEST_F(ConfigTest, BadValueNamesSettingOriginValueAndWhatIsAccepted) {
  EXPECT_EQ(Parse({"--queue=0"}).status().message(), "queue (flag): \"0\", expected a number in [1, 1048576]");
  EXPECT_EQ(Parse({}, {"DIN_SERVER_LOG_LEVEL=loud"}).status().message(),
            "log-level (environment DIN_SERVER_LOG_LEVEL): \"loud\", expected one of debug, info, warning, error");
  EXPECT_THAT(Parse({"--instruction-set=avx1024"}).status().message(), HasSubstr("baseline"));
  for (const char* bad : {"--queue=-1", "--queue=1x", "--queue=", "--queue=99999999999999999999", "--threads=two",
                          "--poll-interval=5", "--poll-interval=1ms", "--max-request-bytes=4MB", "--listen=8500",
                          "--listen=::1:8500", "--listen=host:70000", "--listen=unix:", "--ready-when=soon"}) {
    EXPECT_EQ(Parse({bad}).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST_F(ConfigTest, MalformedCommandLineAndFileAreErrors) {
  EXPECT_THAT(Parse({"serve"}).status().message(), HasSubstr("expected a flag"));
  EXPECT_THAT(Parse({"--queue"}).status().message(), HasSubstr("needs a value"));
  EXPECT_THAT(Parse({"--check-config=yes"}).status().message(), HasSubstr("takes no value"));
  EXPECT_THAT(Parse({"--config=" + directory_ + "/none"}).status().message(), HasSubstr("No such file"));
  EXPECT_THAT(Parse({"--config=" + File("queue 3")}).status().message(), HasSubstr("expected key = value"));
  EXPECT_THAT(Parse({"--config=" + File("queue = 3\nqueue = 4")}).status().message(), HasSubstr("twice"));
}

TEST_F(ConfigTest, ModelRootIsRequired) {
  EXPECT_THAT(ParseBare({}).status().message(), HasSubstr("model-root: not set"));
  EXPECT_TRUE(ParseBare({"--help"}).ok());
  EXPECT_TRUE(ParseBare({"--version"}).ok());
  EXPECT_FALSE(ParseBare({"--check-config"}).ok());
}

TEST_F(ConfigTest, ListenAddsUpWithinOneOriginAndReplacesTheOthers) {
  const auto parsed =
      Parse({"--listen", "0.0.0.0:1,unix:/run/din.sock", "--listen=[::1]:2"}, {"DIN_SERVER_LISTEN=h:9"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->config.listen, ElementsAre("0.0.0.0:1", "unix:/run/din.sock", "[::1]:2"));
}

TEST_F(ConfigTest, LastOfARepeatedFlagCounts) {
  const auto parsed = Parse({"--queue=1", "--queue=2"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->config.queue, 2u);
}

// A pod in a namespace with a Kubernetes service called din-server.
TEST_F(ConfigTest, KubernetesServiceLinksAreNoSettings) {
  const auto parsed = Parse({}, {"DIN_SERVER_SERVICE_HOST=10.0.0.1", "DIN_SERVER_SERVICE_PORT=8500",
                                 "DIN_SERVER_SERVICE_PORT_GRPC=8500", "DIN_SERVER_PORT=tcp://10.0.0.1:8500",
                                 "DIN_SERVER_PORT_8500_TCP=tcp://10.0.0.1:8500", "DIN_SERVER_PORT_FILE=/run/port"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.port_file, "/run/port");
}

TEST_F(ConfigTest, OtherVariablesAreNotOurs) {
  EXPECT_TRUE(Parse({}, {"DIN_SERVER=host:8500", "PATH=/bin", "DIN_SERVERS=3", "=x", ""}).ok());
}

TEST_F(ConfigTest, LimitsReachTheDecoder) {
  const auto parsed = Parse({"--max-candidates=1", "--max-behaviours=2", "--max-list-ids=3", "--max-explained=4"});
  ASSERT_TRUE(parsed.ok());
  const RequestLimits limits = parsed->config.limits();
  EXPECT_EQ(limits.input.candidates, 1u);
  EXPECT_EQ(limits.input.behaviours, 2u);
  EXPECT_EQ(limits.input.list_ids, 3u);
  EXPECT_EQ(limits.explained, 4u);
}

TEST(UnitsTest, DurationsAndBytesComeBackAsTheyWere) {
  for (const char* text : {"0ms", "250ms", "2s", "1500ms", "3m", "1h"}) {
    ASSERT_TRUE(ParseDuration(text)) << text;
    EXPECT_EQ(FormatDuration(*ParseDuration(text)), text);
  }
  for (const char* text : {"0", "1023", "1KiB", "4MiB", "3GiB"}) {
    ASSERT_TRUE(ParseBytes(text)) << text;
    EXPECT_EQ(FormatBytes(*ParseBytes(text)), text);
  }
  for (const char* text : {"", "s", "5", "-1s", "1.5s", "1 s", "99999999999999999h"})
    EXPECT_FALSE(ParseDuration(text)) << text;
  for (const char* text : {"", "KiB", "1kb", "99999999999GiB"}) EXPECT_FALSE(ParseBytes(text)) << text;
}

TEST(NearestNameTest, FarOffNamesAreNotGuessed) {
  const std::vector<std::string_view> names = {"queue", "threads"};
  EXPECT_EQ(NearestName("thread", names), "threads");
  EXPECT_EQ(NearestName("xyzzy", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(DidYouMean("xyzzy", names), "");
}

}  // namespace
}  // namespace din
