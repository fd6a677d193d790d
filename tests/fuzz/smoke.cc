// Runs a fuzz target without libFuzzer: over its seeds, and over mutations of them that are the same every time.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

constexpr uint32_t kSeed = 20240612;
constexpr int kMutations = 20'000;  // about a second

std::vector<std::string> ReadSeeds(const std::string& directory) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const std::string& path : paths) {
    std::ifstream in(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return seeds;
}

// One step away: a bit, a byte, a digit, a piece removed, doubled, or taken from another seed.
void Mutate(std::string& text, const std::vector<std::string>& seeds, std::mt19937& random) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  const size_t at = below(text.size()), length = below(std::min<size_t>(text.size() - at, 40) + 1);
  switch (random() % 6) {
    case 0:
      if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
      break;
    case 1:
      if (!text.empty()) text[at] = static_cast<char>(random());
      break;
    case 2:
      text.insert(at, 1, "0123456789-.eE\"[]{},:\\"[below(22)]);
      break;
    case 3:
      text.erase(at, length);
      break;
    case 4:
      text.insert(below(text.size() + 1), text.substr(at, length));
      break;
    default: {
      const std::string& other = seeds[below(seeds.size())];
      const size_t from = below(other.size());
      text.insert(at, other.substr(from, below(40)));
    }
  }
}

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> seeds = argc == 2 ? ReadSeeds(argv[1]) : std::vector<std::string>();
  if (seeds.empty()) {
    std::fprintf(stderr, "usage: %s DIRECTORY-WITH-SEEDS\n", argv[0]);
    return 2;
  }
  for (const std::string& seed : seeds) Run(seed);
  std::printf("%zu seeds, %d mutations, random seed %u\n", seeds.size(), kMutations, kSeed);
  std::mt19937 random(kSeed);
  for (int i = 0; i < kMutations; ++i) {
    std::string input = seeds[random() % seeds.size()];
    for (unsigned steps = 1 + random() % 4; steps > 0; --steps) Mutate(input, seeds, random);
    Run(input);
  }
  return 0;
}
