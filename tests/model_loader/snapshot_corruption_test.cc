// Nothing but the bytes that were published is ever accepted: every truncation of every file and every flip of every
// bit of a small snapshot, and splices of two.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "model_loader/snapshot.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

size_t FromEnvironment(const char* name, size_t otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? static_cast<size_t>(std::atoll(value)) : otherwise;
}

// Bytes of weights in the snapshot. DIN_CORRUPTION_BYTES=65536 makes the long run.
size_t WeightBytes() { return FromEnvironment("DIN_CORRUPTION_BYTES", 3000); }
// Of each file. DIN_SPLICES=250000 makes a million in all.
size_t Splices() { return FromEnvironment("DIN_SPLICES", 500); }

class SnapshotCorruptionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    OwnedTensors tensors = SmallTensors();
    std::vector<float> values(WeightBytes() / 4);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 7;
    tensors.Add("table.large", DataType::kF32, {static_cast<int64_t>(values.size())}, values);
    ASSERT_TRUE(WriteSnapshot(root_ / "model", 1, SmallContents(tensors)).ok());
    directory_ = root_ / "model/1";
    ASSERT_TRUE(Open().ok()) << Open();
  }
  void TearDown() override { EXPECT_TRUE(Open().ok()) << "the test did not put everything back: " << Open(); }

  absl::Status Open() const { return Snapshot::Open(directory_, {.threads = 1}).status(); }

  // Refused, with this file in the message; behind a manifest that is wrong, another one may be named.
  void ExpectRefused(const std::string& name, const std::string& what, size_t at) const {
    const absl::Status status = Open();
    ASSERT_FALSE(status.ok()) << name << ": " << what << " at " << at;
    const std::string file = directory_ + "/" + (name == "manifest.json" ? "" : name);
    ASSERT_NE(status.message().find(file), absl::string_view::npos) << name << ": " << what << ": " << status;
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << name << ": " << what << " at " << at << ": " << status;
  }

  const std::vector<std::string> files_ = {"golden.jsonl", "manifest.json", "model.json", "weights.safetensors"};
  TempDirectory root_;
  std::string directory_;
};

TEST_F(SnapshotCorruptionTest, EveryTruncationIsRefused) {
  for (const std::string& name : files_) {
    const std::string path = directory_ + "/" + name;
    const std::string bytes = ReadFile(path);
    for (size_t size = bytes.size(); size-- > 0;) {
      ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size)), 0);
      ASSERT_NO_FATAL_FAILURE(ExpectRefused(name, "truncated", size));
    }
    WriteFile(path, bytes);
  }
}

TEST_F(SnapshotCorruptionTest, EveryFlippedBitIsRefused) {
  size_t flips = 0;
  for (const std::string& name : files_) {
    const std::string path = directory_ + "/" + name;
    const std::string bytes = ReadFile(path);
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit, ++flips) {
        const char flipped = static_cast<char>(bytes[i] ^ (1 << bit));
        ASSERT_EQ(pwrite(fd, &flipped, 1, static_cast<off_t>(i)), 1);
        ASSERT_NO_FATAL_FAILURE(ExpectRefused(name, "flipped", i));
      }
      ASSERT_EQ(pwrite(fd, &bytes[i], 1, static_cast<off_t>(i)), 1);
    }
    close(fd);
  }
  std::printf("flips refused: %zu\n", flips);
}

TEST_F(SnapshotCorruptionTest, SplicesAreRefused) {
  constexpr uint32_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  size_t refused = 0;
  for (const std::string& name : files_) {
    const std::string path = directory_ + "/" + name;
    const std::string bytes = ReadFile(path);
    for (size_t round = 0; round < Splices(); ++round) {
      // A run of bytes from one place of the file to another: the length stays right.
      std::string spliced = bytes;
      const size_t length = 1 + random() % bytes.size();
      const size_t from = random() % (bytes.size() - length + 1), to = random() % (bytes.size() - length + 1);
      spliced.replace(to, length, bytes, from, length);
      if (spliced == bytes) continue;
      WriteFile(path, spliced);
      ASSERT_NO_FATAL_FAILURE(ExpectRefused(name, "spliced", to));
      ++refused;
    }
    WriteFile(path, bytes);
  }
  std::printf("splices refused: %zu\n", refused);
}

TEST_F(SnapshotCorruptionTest, FilesOfAnotherVersionAreRefused) {
  OwnedTensors other = SmallTensors();
  other.Add("table.large", DataType::kF32, {2}, std::vector<float>{1, 2});
  SnapshotContents contents = SmallContents(other);
  contents.spec.set_description("other");
  contents.golden[0].set_id("other");
  ASSERT_TRUE(WriteSnapshot(root_ / "model", 2, contents).ok());
  for (const std::string& name : files_) {
    const std::string path = directory_ + "/" + name;
    const std::string bytes = ReadFile(path);
    WriteFile(path, ReadFile(root_ / ("model/2/" + name)));
    ASSERT_NO_FATAL_FAILURE(ExpectRefused(name, "taken from another version", 0));
    WriteFile(path, bytes);
  }
}

TEST_F(SnapshotCorruptionTest, SwappedFilesAreRefused) {
  for (const std::string& a : files_) {
    for (const std::string& b : files_) {
      if (a >= b) continue;
      const std::string x = directory_ + "/" + a, y = directory_ + "/" + b;
      const auto swap = [&] {
        std::filesystem::rename(x, x + ".tmp");
        std::filesystem::rename(y, x);
        std::filesystem::rename(x + ".tmp", y);
      };
      swap();
      ASSERT_NO_FATAL_FAILURE(ExpectRefused(b == "manifest.json" ? b : a, "swapped with " + b, 0));
      swap();
    }
  }
}

}  // namespace
}  // namespace din
