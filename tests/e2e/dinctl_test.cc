// dinctl as a person or a script uses it: output and exit codes.
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_loader/json.h"
#include "nlohmann/json.hpp"
#include "proto/scoring.pb.h"
#include "tests/e2e/running_server.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3;

Finished Dinctl(const std::vector<std::string>& arguments, const std::string& input = "",
                const std::vector<std::string>& environment = {}) {
  return Run(kDinctlProgram, {.arguments = arguments, .environment = environment, .input = input});
}

// --- Without a server ------------------------------------------------------------------------------------------------

TEST(DinctlTest, HelpNamesEveryCommandAndEachHasAnExample) {
  const Finished help = Dinctl({"--help"});
  EXPECT_EQ(help.exit_code, kOk);
  for (const std::string command : {"score", "explain", "metadata", "status", "load", "pin", "unpin",
                                    "rollback", "label", "unload", "watch", "verify", "inspect", "seal"}) {
    EXPECT_THAT(help.output, HasSubstr("dinctl " + command));
    const Finished own = Dinctl({command, "--help"});
    EXPECT_EQ(own.exit_code, kOk);
    EXPECT_THAT(own.output, HasSubstr("\n  dinctl " + command)) << own.output;  // the example
    EXPECT_THAT(own.errors, IsEmpty());
  }
  EXPECT_THAT(Dinctl({"--version"}).output, HasSubstr("dinctl 0."));
}

TEST(DinctlTest, WrongUsageIsExitCode2AndSaysWhatWasMeant) {
  const Finished command = Dinctl({"explian", "x"});
  EXPECT_EQ(command.exit_code, kUsage);
  EXPECT_THAT(command.errors, HasSubstr("did you mean \"explain\"?"));
  const Finished option = Dinctl({"score", "x", "--tpo=3"});
  EXPECT_EQ(option.exit_code, kUsage);
  EXPECT_THAT(option.errors, HasSubstr("did you mean \"top\"?"));
  EXPECT_EQ(Dinctl({}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"score"}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"score", "a", "b"}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"score", "a", "--top"}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"score", "a", "--top=-1"}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"status", "--timeout=5"}).exit_code, kUsage);
  EXPECT_EQ(Dinctl({"explain", "a", "--candidates=1,x"}).exit_code, kUsage);
}

TEST(DinctlTest, NoServerIsExitCode3) {
  for (const std::string command : {"status", "metadata"}) {
    const Finished run = Dinctl({command, "--server=127.0.0.1:1", "--timeout=2s"});
    EXPECT_EQ(run.exit_code, kUnreachable);
    EXPECT_THAT(run.errors, HasSubstr("127.0.0.1:1"));
  }
  EXPECT_EQ(Dinctl({"score", "-", "--server=127.0.0.1:1"}, "{}").exit_code, kUnreachable);
  EXPECT_EQ(Dinctl({"score", "-"}, "{}", {"DIN_SERVER=127.0.0.1:1"}).exit_code, kUnreachable);
}

TEST(DinctlTest, VerifyPassesGoldenSnapshotsOnEveryInstructionSet) {
  const std::string directory = GoldenDirectory(GoldenNames()[0]);
  const Finished verified = Dinctl({"verify", directory});
  EXPECT_EQ(verified.exit_code, kOk) << verified.errors;
  for (const InstructionSet isa : SupportedInstructionSets()) {
    EXPECT_THAT(verified.output, HasSubstr("\n" + std::string(Name(isa)) + " "));
  }
  EXPECT_THAT(verified.output, AllOf(HasSubstr("4 golden cases"), HasSubstr("\nverified\n")));
  const Finished json = Dinctl({"verify", directory, "--json"});
  EXPECT_EQ(nlohmann::json::parse(json.output.substr(0, json.output.find('\n')))["golden_cases"], 4);
}

TEST(DinctlTest, VerifyRefusesWhatTheServerWouldRefuse) {
  ModelRoot root;
  root.PublishCorrupted(GoldenNames()[0], "bad", 1);
  root.PublishShopWithoutGolden(1);
  const Finished corrupted = Dinctl({"verify", root.path() + "/bad/1"});
  EXPECT_EQ(corrupted.exit_code, kFailed);
  EXPECT_THAT(corrupted.errors, HasSubstr("weights.safetensors"));
  EXPECT_THAT(corrupted.output, Not(HasSubstr("verified")));
  const Finished unverified = Dinctl({"verify", root.path() + "/shop/1"});
  EXPECT_EQ(unverified.exit_code, kFailed);
  EXPECT_THAT(unverified.errors, HasSubstr("without golden cases"));
  EXPECT_EQ(Dinctl({"verify", root.path() + "/none"}).exit_code, kFailed);
}

TEST(DinctlTest, InspectShowsFilesFeaturesLayersAndTensors) {
  const Finished inspected = Dinctl({"inspect", GoldenDirectory("fuxictr_a_dice_nosoftmax")});
  EXPECT_EQ(inspected.exit_code, kOk) << inspected.errors;
  EXPECT_THAT(inspected.output,
              AllOf(HasSubstr("golden.jsonl"), HasSubstr("SEQUENCE hist"),
                    HasSubstr("attention att on hist: 24 DICE → 1"), HasSubstr("tower     32 RELU → 16 RELU → 1"),
                    ContainsRegex("att0.l0.w +F32 \\[24, 80\\] +7680"), HasSubstr("4 golden cases")));
  EXPECT_EQ(Dinctl({"inspect", "/none"}).exit_code, kFailed);
}

TEST(DinctlTest, SealMakesALaidOutDirectoryASnapshot) {
  TempDirectory directory;
  std::filesystem::copy(GoldenDirectory(GoldenNames()[0]), directory / "1");
  std::filesystem::remove(directory / "1/manifest.json");
  EXPECT_EQ(Dinctl({"verify", directory / "1"}).exit_code, kFailed);
  const Finished sealed = Dinctl({"seal", directory / "1"});
  EXPECT_EQ(sealed.exit_code, kOk) << sealed.errors;
  EXPECT_THAT(sealed.output, HasSubstr("sealed 3 files"));
  EXPECT_EQ(Dinctl({"verify", directory / "1"}).exit_code, kOk);
  std::filesystem::remove(directory / "1/golden.jsonl");
  EXPECT_EQ(Dinctl({"seal", directory / "1"}).exit_code, kFailed);
  EXPECT_EQ(Dinctl({"seal", directory / "1", "--unverified"}).exit_code, kOk);
}

// --- With a server ---------------------------------------------------------------------------------------------------

class DinctlServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new ModelRoot;
    root_->PublishShop(7);
    server_ = new RunningServer(*root_);
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(server_->Stop(), 0);
    delete server_;
    delete root_;
  }
  static Finished Ask(std::vector<std::string> arguments, const std::string& input = "") {
    return Dinctl(arguments, input, {"DIN_SERVER=" + server_->address()});
  }
  static std::string Request() {
    v1::ScoreRequest request = ShopScoreRequest();
    for (const char* key : {"k-bucket", "k-mystery", "k-anvil", "k-last"}) request.add_candidate_keys(key);
    return FormatJson(request);
  }

  static ModelRoot* root_;
  static RunningServer* server_;
};
ModelRoot* DinctlServerTest::root_;
RunningServer* DinctlServerTest::server_;

TEST_F(DinctlServerTest, ScorePrintsRanksNamesLabelsAndUnknownIds) {
  const Finished scored = Ask({"score", "-"}, Request());
  EXPECT_EQ(scored.exit_code, kOk) << scored.errors;
  EXPECT_THAT(scored.output,
              AllOf(HasSubstr("model shop, version 7, 4 candidates"), ContainsRegex("k-bucket +Bucket +0\\."),
                    ContainsRegex("k-mystery +0\\.[0-9]+ +unknown id")));
  const Finished top = Ask({"score", "-", "--top", "1"}, Request());
  EXPECT_THAT(top.output, HasSubstr("1 candidates ranked"));
}

TEST_F(DinctlServerTest, ScoreAsJsonIsTheResponse) {
  TempDirectory directory;
  WriteFile(directory / "request.json", Request());
  const Finished scored = Ask({"score", directory / "request.json", "--json"});
  v1::ScoreResponse response;
  ASSERT_TRUE(ParseJson(scored.output, "output", response).ok()) << scored.output << scored.errors;
  EXPECT_EQ(response.version(), 7);
  EXPECT_EQ(response.scores_size(), 4);
}

TEST_F(DinctlServerTest, WhatTheServerRefusesIsExitCode1WithItsMessage) {
  v1::ScoreRequest request = ShopScoreRequest();
  request.mutable_features(0)->set_name("usr");
  const Finished refused = Ask({"score", "-"}, FormatJson(request));
  EXPECT_EQ(refused.exit_code, kFailed);
  EXPECT_THAT(refused.errors, AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("the nearest is \"user\"")));
  EXPECT_THAT(refused.output, IsEmpty());
  const Finished bad_json = Ask({"score", "-"}, "{\"model\": ");
  EXPECT_EQ(bad_json.exit_code, kFailed);
  EXPECT_THAT(bad_json.errors, HasSubstr("standard input"));
  EXPECT_THAT(Ask({"score", "-"}, "{\"modle\": \"shop\"}").errors, HasSubstr("modle"));
  EXPECT_EQ(Ask({"score", "/none"}).exit_code, kFailed);
}

TEST_F(DinctlServerTest, ExplainDrawsABarForEveryBehaviourThatSpeaks) {
  const Finished explained = Ask({"explain", "-", "--candidates=2"}, Request());
  EXPECT_EQ(explained.exit_code, kOk) << explained.errors;
  EXPECT_THAT(explained.output,
              AllOf(HasSubstr("why candidate 2, id k-anvil, Anvil scores 0."),
                    HasSubstr("attention att on hist: 5 behaviours sent, 3 attended"),
                    ContainsRegex("\\+0\\.[0-9]+  █+.* 1  Bucket"), HasSubstr("████████████████████████████")));
  const Finished one = Ask({"explain", "-", "--behaviours=1"}, Request());
  EXPECT_THAT(one.output, HasSubstr("and 2 more"));
  v1::ExplainResponse response;
  EXPECT_TRUE(ParseJson(Ask({"explain", "-", "--json"}, Request()).output, "output", response).ok());
  EXPECT_EQ(Ask({"explain", "-", "--candidates=9"}, Request()).exit_code, kFailed);
}

TEST_F(DinctlServerTest, MetadataListsFeaturesAndGivesAnExampleThatScores) {
  const Finished metadata = Ask({"metadata"});
  EXPECT_EQ(metadata.exit_code, kOk) << metadata.errors;
  EXPECT_THAT(metadata.output, AllOf(HasSubstr("version      7"), ContainsRegex("item +candidates +ID +INT64"),
                                     HasSubstr("from a side table when left out")));
  const Finished example = Ask({"metadata", "--model=shop", "--example"});
  EXPECT_EQ(example.exit_code, kOk);
  const Finished scored = Ask({"score", "-"}, example.output);
  EXPECT_EQ(scored.exit_code, kOk) << scored.errors << example.output;
  EXPECT_EQ(Ask({"metadata", "--model=none"}).exit_code, kFailed);
}

TEST_F(DinctlServerTest, StatusShowsHealthAndVersionOfEveryModel) {
  const Finished status = Ask({"status"});
  EXPECT_EQ(status.exit_code, kOk) << status.errors;
  EXPECT_THAT(status.output, AllOf(HasSubstr(": SERVING"), ContainsRegex("shop +SERVING +7 ")));
  const auto json = nlohmann::json::parse(Ask({"status", "--json"}).output);
  EXPECT_EQ(json["models"][0]["health"], "SERVING");
  EXPECT_EQ(json["models"][0]["metadata"]["version"], "7");
}

TEST(DinctlStatusTest, ModelThatDoesNotServeIsExitCode1WithTheReason) {
  ModelRoot root;
  root.PublishCorrupted(GoldenNames()[0], "bad", 1);
  RunningServer server(root);
  const Finished status = Dinctl({"status", "--server", server.address()});
  EXPECT_EQ(status.exit_code, kFailed);
  EXPECT_THAT(status.output, AllOf(ContainsRegex("bad +NOT_SERVING"), ContainsRegex("  version 1 was refused: ")));
}

}  // namespace
}  // namespace din
