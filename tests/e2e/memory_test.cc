// What a version leaves when it goes is there for the next one, and for whoever needs the room.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/din_model.h"
#include "model_loader/snapshot_writer.h"
#include "tests/e2e/running_server.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

class MemoryTest : public ::testing::Test {
 protected:
  // AddressSanitizer holds on to what the polls of the root free, 256 MiB unless told otherwise.
  MemoryTest() { setenv("ASAN_OPTIONS", "quarantine_size_mb=1", /*overwrite=*/1); }

  // A snapshot of a model with a table of about so many bytes, outside the root.
  std::string Stage(const std::string& name, int64_t table_bytes) {
    constexpr int64_t kRowBytes = 256;
    const testing::RawModel model = testing::PaperModel({.item_rows = table_bytes / kRowBytes});
    testing::Rng rng(1);
    v1::GoldenCase golden = testing::RandomRequest(rng, model.spec, model.tensors, {.candidates = 3, .behaviours = 4});
    const auto built =
        testing::OrDie(DinModel::Create(model.spec, model.tensors, BestInstructionSet(), Precision::kFp32));
    golden.set_id("case");
    golden.set_tolerance(1e-5);
    for (const float score : testing::ScoresOf(*built, golden)) golden.add_scores(score);
    const absl::Status written = WriteSnapshot(staging_ / name, 1, {model.spec, model.tensors, {golden}, false, ""});
    EXPECT_TRUE(written.ok()) << written;
    return staging_ / (name + "/1");
  }

  static bool IsLive(const RunningServer& server, const std::string& model, int64_t version) {
    return server.LogSays("event=\"model live\" model=" + model + " version=" + std::to_string(version));
  }
  static bool IsGone(const RunningServer& server, const std::string& model, int64_t version) {
    return server.LogSays("event=\"model retired\" model=" + model + " version=" + std::to_string(version));
  }

  // Of a server that has loaded what is there.
  int64_t MemoryOfOne() const {
    RunningServer server(root_);
    const int64_t bytes = MemoryOf(server);
    EXPECT_EQ(server.Stop(), 0);
    return bytes;
  }

  // That no file stands for.
  static int64_t MemoryOf(const RunningServer& server) {
    std::ifstream status("/proc/" + std::to_string(server.pid()) + "/status");
    for (std::string key; status >> key;) {
      int64_t kib = 0;
      if (key == "RssAnon:" && status >> kib) return kib << 10;
      status.ignore(4096, '\n');
    }
    ADD_FAILURE() << "no RssAnon";
    return 0;
  }

  ModelRoot root_;
  TempDirectory staging_;
};

TEST_F(MemoryTest, OfAVersionThatIsGoneIsThereForTheNextAndForAnotherModel) {
  const std::string ads = Stage("ads", 64 * kMiB), other = Stage("other", 40 * kMiB);
  root_.Publish(ads, "ads", 1);
  const int64_t one = MemoryOfOne(), limit = one + 100 * kMiB;
  const RunningServer server(root_, {"--keep=0", "--memory-limit=" + std::to_string(limit)});
  for (int64_t version = 2; version <= 4; ++version) {
    root_.Publish(ads, "ads", version);
    ASSERT_TRUE(IsLive(server, "ads", version)) << server.Log();
    ASSERT_TRUE(IsGone(server, "ads", version - 1)) << server.Log();
    EXPECT_GT(MemoryOf(server), one + 60 * kMiB) << "kept for the next";
    EXPECT_LT(MemoryOf(server), one + 80 * kMiB) << "and only once";
  }
  // 36 MiB are left, and it takes 42.
  root_.Publish(other, "other", 1);
  ASSERT_TRUE(IsLive(server, "other", 1)) << server.Log();
  EXPECT_LT(MemoryOf(server), one + 60 * kMiB) << "what the other model does not need went back";
}

TEST_F(MemoryTest, GoesBackAtOnceWhereSpareMemoryIsNotWanted) {
  const std::string ads = Stage("ads", 64 * kMiB);
  root_.Publish(ads, "ads", 1);
  const RunningServer server(root_, {"--keep=0", "--spare-memory=no"});
  const int64_t one = MemoryOf(server);
  root_.Publish(ads, "ads", 2);
  ASSERT_TRUE(IsLive(server, "ads", 2)) << server.Log();
  ASSERT_TRUE(IsGone(server, "ads", 1)) << server.Log();
  EXPECT_LT(MemoryOf(server), one + 16 * kMiB);
}

TEST_F(MemoryTest, AModelThatDoesNotFitEvenThenIsRefused) {
  const std::string ads = Stage("ads", 64 * kMiB), other = Stage("other", 100 * kMiB);
  root_.Publish(ads, "ads", 1);
  const int64_t limit = MemoryOfOne() + 80 * kMiB;
  const RunningServer server(root_, {"--keep=0", "--memory-limit=" + std::to_string(limit)});
  root_.Publish(ads, "ads", 2);
  ASSERT_TRUE(IsGone(server, "ads", 1)) << server.Log();
  root_.Publish(other, "other", 1);
  ASSERT_TRUE(server.LogSays("event=\"model refused\" model=other version=1")) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("(limit " + std::to_string(limit) + " of memory-limit"));
  EXPECT_LT(MemoryOf(server), limit);
}

}  // namespace
}  // namespace din
