// Memory comes back: after a thousand swaps, and after a thousand loads that failed, as much is held as after ten.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "model_loader/snapshot_watcher.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

constexpr int kSwaps = 1000;
constexpr int64_t kMostGrowthKiB = 16 << 10;

int64_t ResidentKiB() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    int64_t value = 0;
    if (key == "VmRSS:" && status >> value) return value;
    status.ignore(4096, '\n');
  }
  return 0;
}

class MemoryOverSwapsTest : public ::testing::Test {
 protected:
  // The golden snapshot under a new number: hard links, so that a thousand are quick. `break_it` puts other weights in.
  void Publish(int64_t version, bool break_it) {
    const std::string source =
        std::string(std::getenv("DIN_SOURCE_DIR")) + "/tests/golden/deepctr_torch_a_dice_nosoftmax/1";
    const std::string base = root_ / ".base";
    if (!std::filesystem::exists(base)) std::filesystem::copy(source, base);
    const std::string directory = root_ / "m/" + std::to_string(version);
    std::filesystem::create_directories(directory);
    for (const std::string& name : Entries(base)) {
      if (break_it && name == "weights.safetensors") {
        std::string bytes = ReadFile(base + "/" + name);
        bytes.back() ^= 1;
        WriteFile(directory + "/" + name, bytes);
      } else {
        std::filesystem::create_hard_link(base + "/" + name, directory + "/" + name);
      }
    }
  }

  // How much more is resident after the last of so many than after the tenth.
  int64_t Growth(bool break_them) {
    SnapshotWatcher::Options options;
    options.root = root_.path();
    options.registry = &registry_;
    options.load = [this](const LoadRequest& request) {
      return LoadModel(root_.path(), request.model, request.version, {.read = {.control = request.control}});
    };
    SnapshotWatcher watcher(std::move(options));
    int64_t after_ten = 0;
    for (int64_t version = 1; version <= kSwaps; ++version) {
      Publish(version, break_them);
      while (watcher.Step()) {
      }
      const ModelStatus status = *registry_.StatusOf("m");
      EXPECT_EQ(break_them ? status.refused_version : status.live_version, version) << status.refused;
      std::filesystem::remove_all(root_ / "m/" + std::to_string(version - 1));
      if (version == 10) after_ten = ResidentKiB();
    }
    return ResidentKiB() - after_ten;
  }

  TempDirectory root_;
  ModelRegistry registry_;
};

TEST_F(MemoryOverSwapsTest, AThousandSwaps) { EXPECT_LE(Growth(false), kMostGrowthKiB); }

TEST_F(MemoryOverSwapsTest, AThousandFailedLoads) { EXPECT_LE(Growth(true), kMostGrowthKiB); }

}  // namespace
}  // namespace din
