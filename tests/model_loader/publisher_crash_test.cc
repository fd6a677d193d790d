// Publishers that die at any moment, and copies that come in any order: nothing is ever opened but a whole version, and
// whatever they leave behind is in nobody's way.
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using std::chrono::steady_clock;

constexpr uint32_t kSeed = 20240612;

// Kills; DIN_KILLS=1000 makes the long run.
int Kills() {
  const char* const kills = std::getenv("DIN_KILLS");
  return kills != nullptr ? std::atoi(kills) : 60;
}

OwnedTensors Tensors() {
  OwnedTensors tensors = SmallTensors();
  // Some pieces long, so that a kill may come between two writes.
  tensors.Add("table.large", DataType::kF32, {200'000}, std::vector<float>(200'000, 0.5f));
  return tensors;
}

// What Open may say of a directory that is not, or not yet, a version.
bool IsRefusal(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsDataLoss(status) || absl::IsInvalidArgument(status);
}

TEST(PublisherCrashTest, AKilledPublisherLeavesAWholeVersionOrNone) {
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const TempDirectory root;
  const OwnedTensors tensors = Tensors();
  const SnapshotContents contents = SmallContents(tensors);
  steady_clock::duration whole = std::chrono::hours(1);
  for (int64_t version = 1; version <= 3; ++version) {  // the first is slower than those after it
    const auto begin = steady_clock::now();
    ASSERT_TRUE(WriteSnapshot(root / "model", version, contents).ok());
    whole = std::min(whole, steady_clock::now() - begin);
  }

  int published = 0, left_over = 0;
  for (int kill_number = 0; kill_number < Kills(); ++kill_number) {
    const int64_t version = 4 + kill_number;
    const std::string name = std::to_string(version);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      (void)WriteSnapshot(root / "model", version, contents);
      _exit(0);
    }
    std::this_thread::sleep_for(whole * (random() % 1300) / 1000);
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);

    const std::vector<std::string> entries = Entries(root / "model");
    const bool there = std::count(entries.begin(), entries.end(), name) > 0;
    const auto opened = Snapshot::Open(root / ("model/" + name), {});
    ASSERT_EQ(opened.ok(), there) << "killed at " << kill_number << ": " << opened.status();
    if (!there) {
      ASSERT_EQ(opened.status().code(), absl::StatusCode::kNotFound) << opened.status();
    }
    published += there;
    left_over += std::any_of(entries.begin(), entries.end(), [](const std::string& e) { return e.front() == '.'; });
    // The next publisher of this version finds nothing in its way, and nothing of the dead one stays.
    if (!there) {
      const absl::Status again = WriteSnapshot(root / "model", version, contents);
      ASSERT_TRUE(again.ok()) << again;
      ASSERT_TRUE(Snapshot::Open(root / ("model/" + name), {}).ok());
    }
    for (const std::string& entry : Entries(root / "model")) ASSERT_NE(entry.front(), '.') << entry;
    std::filesystem::remove_all(root / ("model/" + name));
  }
  std::printf("%d kills: %d had published, %d left something behind\n", Kills(), published, left_over);
}

// Bytes of all files but `manifest` in any order and in pieces of any length, as a copy without a rename brings them;
// the version may be opened only when the last byte has come.
TEST(PublisherCrashTest, ACopyInAnyOrderIsRefusedUntilItsLastByte) {
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const TempDirectory root;
  const std::string from = WriteSmallSnapshot(root), to = root / "copy";
  for (int round = 0; round < 200; ++round) {
    std::filesystem::create_directory(to);
    std::vector<std::string> names = Entries(from);
    std::shuffle(names.begin(), names.end(), random);
    for (size_t n = 0; n < names.size(); ++n) {
      const std::string bytes = ReadFile(from + "/" + names[n]);
      size_t copied = 0;
      // Some tools set the length first and fill in later; others append.
      const bool holes = random() % 2 == 0;
      while (copied < bytes.size()) {
        const absl::Status status = Snapshot::Open(to, {.threads = 1}).status();
        ASSERT_TRUE(IsRefusal(status)) << "round " << round << ", " << names[n] << " at " << copied << ": " << status;
        copied = std::min(bytes.size(), copied + 1 + random() % bytes.size());
        std::string partial = bytes.substr(0, copied);
        if (holes) partial.resize(bytes.size());
        // A file whose rest is zeros anyway is whole already.
        if (partial == bytes) copied = bytes.size();
        WriteFile(to + "/" + names[n], partial);
      }
    }
    const auto opened = Snapshot::Open(to, {.threads = 1});
    ASSERT_TRUE(opened.ok()) << opened.status();
    std::filesystem::remove_all(to);
  }
}

TEST(PublisherCrashTest, AVersionThatIsRenamedWhileItIsReadIsWholeOrRefused) {
  const TempDirectory root;
  const std::string here = WriteSmallSnapshot(root), away = root / "away";
  const std::string digest = Snapshot::Open(here, {}).value()->digest();
  std::atomic<bool> stop = false;
  std::thread mover([&] {
    while (!stop) {
      std::filesystem::rename(here, away);
      std::filesystem::rename(away, here);
    }
  });
  int whole = 0, refused = 0;
  for (int n = 0; n < 2000; ++n) {
    const auto opened = Snapshot::Open(here, {.threads = 1});
    if (opened.ok()) {
      EXPECT_EQ((*opened)->digest(), digest);
      ++whole;
    } else {
      EXPECT_TRUE(absl::IsNotFound(opened.status())) << opened.status();
      ++refused;
    }
  }
  stop = true;
  mover.join();
  EXPECT_GT(whole, 0);
  std::printf("%d whole, %d refused\n", whole, refused);
}

// Another version comes in the place of the one that is being read: never a mixture.
TEST(PublisherCrashTest, FilesOfTwoVersionsAreNeverMixed) {
  const TempDirectory root;
  const OwnedTensors tensors = SmallTensors();
  SnapshotContents contents = SmallContents(tensors);
  const std::string here = root / "model/1", other = root / "model/2", away = root / "away";
  ASSERT_TRUE(WriteSnapshot(root / "model", 1, contents).ok());
  contents.spec.set_description("other");
  contents.golden[0].set_id("other");
  ASSERT_TRUE(WriteSnapshot(root / "model", 2, contents).ok());
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    while (!stop) {
      std::filesystem::rename(here, away);
      std::filesystem::rename(other, here);
      std::filesystem::rename(away, other);
    }
  });
  for (int n = 0; n < 2000; ++n) {
    const auto opened = Snapshot::Open(here, {.threads = 1});
    if (!opened.ok()) {
      EXPECT_TRUE(IsRefusal(opened.status())) << opened.status();
      continue;
    }
    const bool second = (*opened)->spec().description() == "other";
    EXPECT_EQ((*opened)->golden()[0].id(), second ? "other" : "case 1");
  }
  stop = true;
  swapper.join();
}

TEST(PublisherCrashTest, LinksThatLeadOutOfTheVersionAreRefused) {
  const TempDirectory root, outside;
  const std::string directory = WriteSmallSnapshot(root);
  for (const char* name : {"golden.jsonl", "manifest.json", "model.json", "weights.safetensors"}) {
    const std::string path = directory + "/" + name, kept = outside / name;
    std::filesystem::rename(path, kept);
    std::filesystem::create_symlink(kept, path);
    ExpectError(Snapshot::Open(directory, {}).status(), absl::StatusCode::kInvalidArgument, {name, "symbolic link"});
    std::filesystem::remove(path);
    std::filesystem::rename(kept, path);
  }
  EXPECT_TRUE(Snapshot::Open(directory, {}).ok());
}

}  // namespace
}  // namespace din
