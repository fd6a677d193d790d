#include "tests/e2e/running_server.h"

#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "model/reference_model.h"
#include "model_loader/snapshot_writer.h"
#include "tests/server/shop_server.h"

namespace din {
namespace {

std::vector<std::string> ServerFlags(const ModelRoot& root, const std::string& port_file,
                                     const std::vector<std::string>& flags) {
  std::vector<std::string> all = {"--model-root", root.path(), "--listen",        "127.0.0.1:0",
                                  "--port-file",  port_file,   "--poll-interval", "20ms"};
  all.insert(all.end(), flags.begin(), flags.end());
  return all;
}

// The shop's request with its scores in double.
v1::GoldenCase ShopGolden() {
  const TensorStore weights = ShopWeights();
  const ModelHandle shop = ShopModel(1, weights);
  v1::GoldenCase golden = ShopRequest();
  golden.set_id("shop");
  golden.set_tolerance(1e-5);
  ScoringInput input;
  const absl::Status decoded = shop->model->decoder().Decode(ColumnsOf(golden), {}, input);
  EXPECT_TRUE(decoded.ok()) << decoded;
  const auto truth = reference::Score<double>(shop->model->resolved(), weights.map(), input);
  EXPECT_TRUE(truth.ok()) << truth.status();
  for (const double score : truth->scores) golden.add_scores(static_cast<float>(score));
  return golden;
}

}  // namespace

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  const std::string golden = std::string(std::getenv("DIN_SOURCE_DIR")) + "/tests/golden";
  for (const auto& entry : std::filesystem::directory_iterator(golden)) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string GoldenDirectory(const std::string& name) {
  return std::string(std::getenv("DIN_SOURCE_DIR")) + "/tests/golden/" + name + "/1";
}

std::string ModelRoot::Stage(const std::string& snapshot, const std::string& model, int64_t version) const {
  const std::string staged = path() + "/" + model + "/.tmp-" + std::to_string(version);
  std::filesystem::create_directories(path() + "/" + model);
  std::filesystem::copy(snapshot, staged);
  return staged;
}

void ModelRoot::Commit(const std::string& model, int64_t version) const {
  const std::string directory = path() + "/" + model + "/";
  std::filesystem::rename(directory + ".tmp-" + std::to_string(version), directory + std::to_string(version));
}

void ModelRoot::Publish(const std::string& snapshot, const std::string& model, int64_t version) const {
  Stage(snapshot, model, version);
  Commit(model, version);
}

void ModelRoot::PublishGolden(const std::string& golden, const std::string& model, int64_t version) const {
  Publish(GoldenDirectory(golden), model, version);
}

void ModelRoot::PublishCorrupted(const std::string& golden, const std::string& model, int64_t version) const {
  const std::string weights = Stage(GoldenDirectory(golden), model, version) + "/weights.safetensors";
  std::string bytes = ReadFile(weights);
  bytes[bytes.size() - 10] ^= 1;
  std::filesystem::remove(weights);
  WriteFile(weights, bytes);
  Commit(model, version);
}

void ModelRoot::PublishShop(int64_t version) const { WriteShop(version, {ShopGolden()}); }
void ModelRoot::PublishShopWithoutGolden(int64_t version) const { WriteShop(version, {}); }

void ModelRoot::WriteShop(int64_t version, const std::vector<v1::GoldenCase>& golden) const {
  const TensorStore weights = ShopWeights();
  SnapshotContents contents;
  contents.spec = ShopSpec();
  contents.tensors = weights.map();
  contents.golden = golden;
  contents.unverified = golden.empty();
  const absl::Status written = WriteSnapshot(path() + "/shop", version, contents);
  ASSERT_TRUE(written.ok()) << written;
}

RunningServer::RunningServer(const ModelRoot& root, const std::vector<std::string>& flags)
    : program_(kServerProgram, {.arguments = ServerFlags(root, directory_ / "port", flags)}) {
  const bool listens = Eventually([&] { return std::filesystem::exists(directory_ / "port") || !program_.running(); });
  EXPECT_TRUE(listens && program_.running()) << Log();
  if (!std::filesystem::exists(directory_ / "port")) return;
  const std::string ports = ReadFile(directory_ / "port");
  address_ = "127.0.0.1:" + ports.substr(0, ports.find('\n'));
}

bool RunningServer::LogSays(const std::string& text) const {
  return Eventually([&] { return Log().find(text) != std::string::npos; });
}

size_t RunningServer::Threads() const {
  const std::filesystem::directory_iterator tasks("/proc/" + std::to_string(program_.pid()) + "/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

void RunningServer::Signal(int signal) { kill(program_.pid(), signal); }

int RunningServer::Stop() {
  Signal(SIGINT);
  return Wait();
}

bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

v1::ScoreRequest ToScoreRequest(const v1::GoldenCase& golden, const std::string& model) {
  v1::ScoreRequest request;
  request.set_model(model);
  *request.mutable_features() = golden.features();
  *request.mutable_sequences() = golden.sequences();
  *request.mutable_candidates() = golden.candidates();
  return request;
}

}  // namespace din
