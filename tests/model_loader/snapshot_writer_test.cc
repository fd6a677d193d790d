#include "model_loader/snapshot_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "model_loader/json.h"
#include "model_loader/manifest.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

absl::Status OpenStatus(const std::string& directory) { return Snapshot::Open(directory, {}).status(); }

TEST(SnapshotWriterTest, PublishesOneDirectoryAndLeavesNothingElse) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root, 42);
  EXPECT_TRUE(OpenStatus(directory).ok()) << OpenStatus(directory);
  EXPECT_EQ(Entries(root / "model"), std::vector<std::string>{"42"});
  EXPECT_EQ(Entries(directory),
            (std::vector<std::string>{"golden.jsonl", "manifest.json", "model.json", "weights.safetensors"}));
}

TEST(SnapshotWriterTest, TheSameContentsGiveTheSameBytes) {
  const TempDirectory root;
  const std::string a = WriteSmallSnapshot(root, 1), b = WriteSmallSnapshot(root, 2);
  for (const std::string& name : Entries(a)) EXPECT_EQ(ReadFile(a + "/" + name), ReadFile(b + "/" + name)) << name;
}

TEST(SnapshotWriterTest, AVersionIsNeverReplaced) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root, 3);
  const std::string manifest = ReadFile(directory + "/manifest.json");
  const OwnedTensors tensors = SmallTensors();
  SnapshotContents contents = SmallContents(tensors);
  contents.spec.set_description("another");
  ExpectError(WriteSnapshot(root / "model", 3, contents), StatusCode::kAlreadyExists, {root / "model/3"});
  EXPECT_EQ(ReadFile(directory + "/manifest.json"), manifest);
  EXPECT_EQ(Entries(root / "model"), std::vector<std::string>{"3"});
}

TEST(SnapshotWriterTest, ContentsThatNoReaderTakesAreRefused) {
  const TempDirectory root;
  OwnedTensors tensors = SmallTensors();
  SnapshotContents contents = SmallContents(tensors);
  ExpectError(WriteSnapshot(root / "model", 0, contents), StatusCode::kInvalidArgument, {"version: 0 < 1"});
  ExpectError(WriteSnapshot(root / "model", -1, contents), StatusCode::kInvalidArgument, {"version: -1 < 1"});
  contents.golden.clear();
  ExpectError(WriteSnapshot(root / "model", 1, contents), StatusCode::kInvalidArgument, {"golden: no cases"});
  contents = SmallContents(tensors);
  contents.tensors["\xFF"] = contents.tensors["scalar"];
  ExpectError(WriteSnapshot(root / "model", 1, contents), StatusCode::kInvalidArgument,
              {"weights.safetensors", "not UTF-8"});
  contents = SmallContents(tensors);
  contents.tensors["scalar"].bytes = 8;
  ExpectError(WriteSnapshot(root / "model", 1, contents), StatusCode::kInvalidArgument,
              {"\"scalar\": F32 [] is 4 bytes"});
  EXPECT_TRUE(Entries(root / "model").empty()) << "a refused version leaves something behind";
}

TEST(SnapshotWriterTest, WithoutGoldenCasesItIsUnverified) {
  const TempDirectory root;
  const OwnedTensors tensors = SmallTensors();
  SnapshotContents contents = SmallContents(tensors);
  contents.golden.clear();
  contents.unverified = true;
  ASSERT_TRUE(WriteSnapshot(root / "model", 1, contents).ok());
  const auto snapshot = Snapshot::Open(root / "model/1", {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_TRUE((*snapshot)->unverified());
  EXPECT_TRUE((*snapshot)->golden().empty());
}

TEST(SnapshotWriterTest, WhatADeadWriterLeftIsRemoved) {
  const TempDirectory root;
  std::filesystem::create_directories(root / "model/.tmp-5-123-abc");
  WriteFile(root / "model/.tmp-5-123-abc/model.json", "{");
  std::filesystem::create_directories(root / "model/.tmp-51-123-abc");
  WriteSmallSnapshot(root, 5);
  EXPECT_EQ(Entries(root / "model"), (std::vector<std::string>{".tmp-51-123-abc", "5"})) << "of this version only";
}

TEST(SnapshotWriterTest, WhatALiveWriterHoldsIsLeft) {
  const TempDirectory root;
  const std::string held = root / "model/.tmp-5-123-abc";
  std::filesystem::create_directories(held);
  const int fd = open(held.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  WriteSmallSnapshot(root, 5);
  EXPECT_EQ(Entries(root / "model"), (std::vector<std::string>{".tmp-5-123-abc", "5"}));
  close(fd);
}

TEST(SnapshotWriterTest, OfManyWritersOfOneVersionOneWins) {
  const TempDirectory root;
  const OwnedTensors tensors = SmallTensors();
  std::vector<absl::Status> results(4);
  {
    std::vector<std::jthread> writers;
    for (absl::Status& result : results) {
      writers.emplace_back([&] { result = WriteSnapshot(root / "model", 1, SmallContents(tensors)); });
    }
  }
  int won = 0;
  for (const absl::Status& result : results) won += result.ok();
  EXPECT_EQ(won, 1) << results[0] << results[1] << results[2] << results[3];
  EXPECT_TRUE(OpenStatus(root / "model/1").ok()) << OpenStatus(root / "model/1");
}

// The states on disk that a crash can leave: the files are written one after the other, the manifest last.
TEST(SnapshotWriterTest, NoPartOfASnapshotIsAccepted) {
  const TempDirectory root;
  const std::string whole = WriteSmallSnapshot(root);
  const std::string part = root / "part";
  const std::vector<std::string> order = {"model.json", "golden.jsonl", "weights.safetensors", "manifest.json"};
  for (size_t written = 0; written < order.size(); ++written) {
    const std::string last = ReadFile(whole + "/" + order[written]);
    for (const size_t bytes : {size_t{0}, size_t{1}, last.size() / 2, last.size() - 1}) {
      std::filesystem::remove_all(part);
      std::filesystem::create_directory(part);
      for (size_t i = 0; i < written; ++i) std::filesystem::copy(whole + "/" + order[i], part + "/" + order[i]);
      WriteFile(part + "/" + order[written], last.substr(0, bytes));
      EXPECT_FALSE(OpenStatus(part).ok()) << order[written] << " " << bytes;
    }
  }
  // A copy in another order: the manifest there, others not or partly.
  for (unsigned missing = 1; missing < 8; ++missing) {
    for (const bool cut : {false, true}) {
      std::filesystem::remove_all(part);
      std::filesystem::create_directory(part);
      for (unsigned i = 0; i < 4; ++i) {
        const std::string bytes = ReadFile(whole + "/" + order[i]);
        const bool damaged = i < 3 && (missing >> i & 1) != 0;
        if (damaged && !cut) continue;
        WriteFile(part + "/" + order[i], damaged ? bytes.substr(0, bytes.size() / 2) : bytes);
      }
      EXPECT_EQ(OpenStatus(part).code(), StatusCode::kDataLoss) << missing << cut;
    }
  }
}

TEST(SnapshotWriterTest, AWriterKilledAtAnyPointLeavesAllOrNothing) {
  using Clock = std::chrono::steady_clock;
  const TempDirectory root;
  const OwnedTensors tensors = SmallTensors();
  const SnapshotContents contents = SmallContents(tensors);
  constexpr int kRounds = 30;
  const auto begin = Clock::now();
  ASSERT_TRUE(WriteSnapshot(root / "model", kRounds + 1, contents).ok());
  const auto one_publication = Clock::now() - begin;
  int published = 0;
  for (int round = 1; round <= kRounds; ++round) {
    std::fflush(nullptr);  // or the child prints it, too
    const pid_t child = fork();
    if (child == 0) {
      (void)WriteSnapshot(root / "model", round, contents);
      _exit(0);
    }
    ASSERT_GT(child, 0);
    std::this_thread::sleep_for(one_publication * round * 3 / 2 / kRounds);
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    const std::string directory = root / ("model/" + std::to_string(round));
    const absl::Status status = OpenStatus(directory);
    published += status.ok();
    if (!status.ok()) {
      ExpectError(status, StatusCode::kNotFound, {directory});
      const absl::Status again = WriteSnapshot(root / "model", round, contents);
      ASSERT_TRUE(again.ok()) << again;
    }
    EXPECT_TRUE(OpenStatus(directory).ok());
  }
  for (const std::string& name : Entries(root / "model")) EXPECT_NE(name.front(), '.') << name << " was left behind";
  std::printf("writers killed: %d before the rename, %d after\n", kRounds - published, published);
}

TEST(SealSnapshotTest, MakesASnapshotOfFilesThatAreThere) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const std::string manifest = ReadFile(directory + "/manifest.json");
  std::filesystem::remove(directory + "/manifest.json");
  WriteFile(directory + "/README.md", "not a part of it");
  WriteFile(directory + "/._weights.safetensors", "nor this");
  WriteFile(directory + "/.manifest.json.tmp", "a dead sealer's");
  const absl::Status status = SealSnapshot(directory, /*unverified=*/false);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(ReadFile(directory + "/manifest.json"), manifest) << "as the writer's own";
  EXPECT_TRUE(OpenStatus(directory).ok());
  EXPECT_FALSE(std::filesystem::exists(directory + "/.manifest.json.tmp"));
}

TEST(SealSnapshotTest, WhatDoesNotMakeASnapshotIsRefusedAndGetsNoManifest) {
  const auto seal_without = [](const std::string& name, bool unverified) {
    const TempDirectory root;
    const std::string directory = WriteSmallSnapshot(root);
    std::filesystem::remove(directory + "/manifest.json");
    std::filesystem::remove(directory + "/" + name);
    const absl::Status status = SealSnapshot(directory, unverified);
    EXPECT_EQ(std::filesystem::exists(directory + "/manifest.json"), status.ok());
    return status;
  };
  ExpectError(seal_without("model.json", false), StatusCode::kInvalidArgument, {"files: no model.json"});
  ExpectError(seal_without("weights.safetensors", false), StatusCode::kInvalidArgument, {"files: no *.safetensors"});
  ExpectError(seal_without("golden.jsonl", false), StatusCode::kInvalidArgument, {"files: no golden.jsonl"});
  EXPECT_TRUE(seal_without("golden.jsonl", true).ok());

  const TempDirectory root;
  ExpectError(SealSnapshot(root / "nothing", false), StatusCode::kNotFound, {root / "nothing"});
  const std::string directory = WriteSmallSnapshot(root);
  WriteFile(directory + "/my weights.safetensors", "");
  ExpectError(SealSnapshot(directory, false), StatusCode::kInvalidArgument, {"my weights.safetensors"});
  std::filesystem::remove(directory + "/my weights.safetensors");
  std::filesystem::create_symlink("weights.safetensors", directory + "/link.safetensors");
  ExpectError(SealSnapshot(directory, false), StatusCode::kInvalidArgument, {"link.safetensors: a symbolic link"});
}

}  // namespace
}  // namespace din
