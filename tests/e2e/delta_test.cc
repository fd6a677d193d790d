// Versions that say only what changed, from `dinctl diff` to the scores that a client gets.
#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/din_model.h"
#include "model_loader/snapshot.h"
#include "tests/e2e/program.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din {
namespace {

using ::testing::HasSubstr;

class DeltaTest : public ::testing::Test {
 protected:
  DeltaTest() : model_(testing::PaperModel({.item_rows = 20'000})) {
    testing::Rng rng(1);
    request_ = testing::RandomRequest(rng, model_.spec, model_.tensors, {.candidates = 30, .behaviours = 40});
  }

  std::vector<float> Scores() const {
    const auto model =
        testing::OrDie(DinModel::Create(model_.spec, model_.tensors, BestInstructionSet(), Precision::kFp32Split));
    return testing::ScoresOf(*model, request_);
  }

  // The model as it is now, in full, outside the root.
  std::string Stage(int64_t version) {
    v1::GoldenCase golden = request_;
    golden.set_id("case");
    golden.set_tolerance(1e-5);
    for (const float score : Scores()) golden.add_scores(score);
    const absl::Status written =
        WriteSnapshot(staging_ / "ads", version, {model_.spec, model_.tensors, {golden}, false, ""});
    EXPECT_TRUE(written.ok()) << written;
    return staging_ / ("ads/" + std::to_string(version));
  }

  void ChangeModel() {
    const std::span<float> table = model_.Floats("table.item");
    for (size_t n = 0; n < 200; ++n) table[n * 6151 % table.size()] += 0.5f;
    model_.Floats("head.b")[0] += 0.25f;
  }

  std::string InRoot(int64_t version) const { return root_.path() + "/ads/" + std::to_string(version); }
  static Finished Diff(const std::string& base, const std::string& next, const std::string& out) {
    return din::Run(kDinctlProgram, {.arguments = {"diff", base, next, out}});
  }

  // By candidate of the request.
  std::vector<float> ServedScores(TestClient& client, int64_t version) const {
    const auto response = client.Score(ToScoreRequest(request_, "ads"));
    EXPECT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->version(), version);
    std::vector<float> scores(response->index_size());
    for (int rank = 0; rank < response->index_size(); ++rank) scores[response->index(rank)] = response->scores(rank);
    return scores;
  }
  bool GoesLive(TestClient& client, int64_t version) const {
    return Eventually([&] {
      const auto response = client.Score(ToScoreRequest(request_, "ads"));
      return response.ok() && response->version() == version;
    });
  }

  ModelRoot root_;
  TempDirectory staging_;
  testing::RawModel model_;
  v1::GoldenCase request_;
};

TEST_F(DeltaTest, DeltasGoLiveOneOnTheOtherAndSurviveARestart) {
  root_.Publish(Stage(1), "ads", 1);
  std::vector<float> expected;
  {
    RunningServer server(root_);
    TestClient client(server.address());
    EXPECT_EQ(ServedScores(client, 1), Scores());
    for (int64_t version = 2; version <= 4; ++version) {
      ChangeModel();
      const Finished diff = Diff(InRoot(version - 1), Stage(version), InRoot(version));
      ASSERT_EQ(diff.exit_code, 0) << diff.errors;
      EXPECT_THAT(diff.output, HasSubstr("table.item  200 of 20000 rows"));
      expected = Scores();
      ASSERT_TRUE(GoesLive(client, version)) << server.Log();
      EXPECT_EQ(ServedScores(client, version), expected);
    }
    EXPECT_EQ(server.Stop(), 0);
  }
  RunningServer server(root_);
  TestClient client(server.address());
  EXPECT_EQ(ServedScores(client, 4), expected);
  // Tools read it by what is beside it.
  const Finished verify = din::Run(kDinctlProgram, {.arguments = {"verify", InRoot(4)}});
  EXPECT_EQ(verify.exit_code, 0) << verify.errors;
  const Finished inspect = din::Run(kDinctlProgram, {.arguments = {"inspect", InRoot(4)}});
  EXPECT_THAT(inspect.output, HasSubstr("base    " + ReadManifest(InRoot(3), {})->digest));
}

TEST_F(DeltaTest, ADeltaOnAVersionThatIsNotLiveIsRefusedAndTheLiveOneServes) {
  const std::string first = Stage(1);
  root_.Publish(first, "ads", 1);
  RunningServer server(root_);
  TestClient client(server.address());
  const std::vector<float> before = ServedScores(client, 1);
  ChangeModel();
  const std::string second = Stage(2);
  ChangeModel();
  ASSERT_EQ(Diff(second, Stage(3), InRoot(3)).exit_code, 0);
  ASSERT_TRUE(server.LogSays("event=\"model refused\" model=ads version=3 live_version=1")) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("a delta on " + ReadManifest(second, {})->digest));
  EXPECT_EQ(ServedScores(client, 1), before);
  // When what it is built on comes after all, it has its chance.
  root_.Publish(second, "ads", 2);
  ASSERT_TRUE(GoesLive(client, 3)) << server.Log();
  EXPECT_EQ(ServedScores(client, 3), Scores());
}

TEST_F(DeltaTest, DiffSaysWhatItCannotDo) {
  const std::string first = Stage(1);
  EXPECT_THAT(Diff(first, first, staging_ / "ads/latest").errors, HasSubstr("does not end in a version"));
  EXPECT_THAT(Diff(first, first, first).errors, HasSubstr("there already"));
  EXPECT_THAT(Diff(staging_ / "ads/7", first, staging_ / "ads/8").errors, HasSubstr("ads/7"));
}

}  // namespace
}  // namespace din
