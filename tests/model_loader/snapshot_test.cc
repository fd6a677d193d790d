#include "model_loader/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>

#include "model_loader/json.h"
#include "model_loader/manifest.h"
#include "model_loader/safetensors.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

absl::Status OpenStatus(const std::string& directory, const ReadOptions& options = {}) {
  return Snapshot::Open(directory, options).status();
}

// Writes `bytes` over a file of the snapshot and a manifest that agrees: what follows was published so.
void Republish(const std::string& directory, const std::string& name, const std::string& bytes,
               bool unverified = false) {
  WriteFile(directory + "/" + name, bytes);
  const absl::Status status = SealSnapshot(directory, unverified);
  ASSERT_TRUE(status.ok()) << status;
}

// A safetensors file with one tensor.
std::string OneTensorFile(const std::string& name, DataType type, std::vector<int64_t> shape, const std::string& data) {
  const Tensor tensor{.type = type,
                      .shape = std::move(shape),
                      .data = reinterpret_cast<const std::byte*>(data.data()),
                      .bytes = data.size()};
  return FormatSafetensorsHeader({{name, &tensor}}) + data;
}

void ExpectSameTensors(const TensorMap& got, const TensorMap& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    SCOPED_TRACE(name);
    const auto at = got.find(name);
    ASSERT_NE(at, got.end());
    EXPECT_EQ(at->second.type, tensor.type);
    EXPECT_EQ(at->second.shape, tensor.shape);
    ASSERT_EQ(at->second.bytes, tensor.bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at->second.data) % SizeOf(tensor.type), 0u);
    EXPECT_TRUE(std::equal(tensor.data, tensor.data + tensor.bytes, at->second.data));
  }
}

TEST(SnapshotTest, EveryTypeComesBack) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const auto snapshot = Snapshot::Open(directory, {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  const OwnedTensors tensors = SmallTensors();
  ExpectSameTensors((*snapshot)->tensors(), tensors.map());
  EXPECT_EQ((*snapshot)->spec().SerializeAsString(), SmallContents(tensors).spec.SerializeAsString());
  ASSERT_EQ((*snapshot)->golden().size(), 1u);
  EXPECT_EQ((*snapshot)->golden()[0].SerializeAsString(), SmallGoldenCase().SerializeAsString());
  EXPECT_FALSE((*snapshot)->unverified());
  EXPECT_GE((*snapshot)->memory_bytes(), 200u);
  const auto manifest = ReadManifest(directory, {});
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ((*snapshot)->digest(), manifest->digest);
}

TEST(SnapshotTest, SnapshotsOfAnotherWriterAreRead) {
  const char* const source = std::getenv("DIN_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "set by ctest";
  int read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(source) + "/tests/golden")) {
    if (!entry.is_directory()) continue;
    const auto snapshot = Snapshot::Open(entry.path().string() + "/1", {});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    EXPECT_FALSE((*snapshot)->tensors().empty());
    EXPECT_EQ((*snapshot)->golden().size(), 4u);
    ++read;
  }
  EXPECT_EQ(read, 7);
}

TEST(SnapshotTest, NothingThereIsNotFound) {
  const TempDirectory root;
  ExpectError(OpenStatus(root / "7"), StatusCode::kNotFound, {root / "7"});
  ExpectError(ReadManifest(root / "7", {}).status(), StatusCode::kNotFound, {root / "7"});
  std::filesystem::create_directory(root / "7");
  ExpectError(OpenStatus(root / "7"), StatusCode::kNotFound, {root / "7/manifest.json: not there"});
  ExpectError(ReadManifest(root / "7", {}).status(), StatusCode::kNotFound, {root / "7/manifest.json: not there"});
}

TEST(SnapshotTest, AMissingFileIsDataLoss) {
  for (const std::string name : {"golden.jsonl", "model.json", "weights.safetensors"}) {
    const TempDirectory root;
    const std::string directory = WriteSmallSnapshot(root);
    std::filesystem::remove(directory + "/" + name);
    ExpectError(OpenStatus(directory), StatusCode::kDataLoss, {directory + "/" + name + ": the manifest lists it"});
  }
}

TEST(SnapshotTest, AFileOfAnotherLengthIsDataLossWithBothSizes) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const std::string path = directory + "/weights.safetensors";
  const std::string bytes = ReadFile(path);
  for (const std::string& changed : {bytes + "x", bytes.substr(1), std::string()}) {
    WriteFile(path, changed);
    ExpectError(
        OpenStatus(directory), StatusCode::kDataLoss,
        {path + ": " + std::to_string(changed.size()) + " bytes, the manifest says " + std::to_string(bytes.size())});
  }
}

TEST(SnapshotTest, AFlippedBitIsDataLossWithTheRange) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const std::string path = directory + "/weights.safetensors";
  std::string bytes = ReadFile(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  WriteFile(path, bytes);
  ExpectError(OpenStatus(directory), StatusCode::kDataLoss,
              {path + ": bytes [0, " + std::to_string(bytes.size()) + ") have SHA-256 ", "the manifest says "});
}

TEST(SnapshotTest, ALargeFileIsReadInChunksByAnyNumberOfThreads) {
  const TempDirectory root;
  OwnedTensors tensors;
  std::vector<float> values((17 << 20) / 4);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  tensors.Add("table.large", DataType::kF32, {static_cast<int64_t>(values.size() / 8), 8}, values);
  tensors.Add("odd", DataType::kU8, {3}, std::vector<uint8_t>{1, 2, 3});
  const absl::Status status = WriteSnapshot(root / "model", 1, SmallContents(tensors));
  ASSERT_TRUE(status.ok()) << status;
  for (const int threads : {1, 2, 5}) {
    const auto snapshot = Snapshot::Open(root / "model/1", {.threads = threads});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    ExpectSameTensors((*snapshot)->tensors(), tensors.map());
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*snapshot)->tensors().at("table.large").data) % 64, 0u);
  }

  const std::string path = root / "model/1/weights.safetensors";
  std::string bytes = ReadFile(path);
  bytes[(8 << 20) + 5] ^= 1;
  bytes[(16 << 20) + 5] ^= 1;
  WriteFile(path, bytes);
  for (const int threads : {1, 2, 5}) {
    ExpectError(OpenStatus(root / "model/1", {.threads = threads}), StatusCode::kDataLoss,
                {"weights.safetensors: bytes [8388608, 16777216) have SHA-256"});
  }
}

TEST(SnapshotTest, FilesChangedAfterOpenChangeNothing) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const auto snapshot = Snapshot::Open(directory, {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  const OwnedTensors tensors = SmallTensors();
  const std::string path = directory + "/weights.safetensors";
  WriteFile(path, std::string(ReadFile(path).size(), '\xFF'));
  ExpectSameTensors((*snapshot)->tensors(), tensors.map());
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  ExpectSameTensors((*snapshot)->tensors(), tensors.map());
  std::filesystem::remove_all(directory);
  ExpectSameTensors((*snapshot)->tensors(), tensors.map());
}

TEST(SnapshotTest, FilesThatTheManifestDoesNotListAreNotRead) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  WriteFile(directory + "/more.safetensors", "not a safetensors file");
  std::filesystem::create_symlink("/etc/passwd", directory + "/link");
  EXPECT_TRUE(OpenStatus(directory).ok()) << OpenStatus(directory);
}

TEST(SnapshotTest, LinksAndPipesInPlaceOfFilesAreRefused) {
  for (const std::string name : {"golden.jsonl", "manifest.json", "model.json", "weights.safetensors"}) {
    SCOPED_TRACE(name);
    const TempDirectory root;
    const std::string directory = WriteSmallSnapshot(root);
    const std::string path = directory + "/" + name;
    std::filesystem::rename(path, root / "elsewhere");
    std::filesystem::create_symlink(root / "elsewhere", path);
    ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {path + ": a symbolic link"});
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {path + ": not a regular file"});
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {path + ": not a regular file"});
  }
}

TEST(SnapshotTest, ALinkInPlaceOfTheDirectoryIsRefused) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  std::filesystem::create_directory_symlink(directory, root / "2");
  ExpectError(OpenStatus(root / "2"), StatusCode::kInvalidArgument, {"a symbolic link"});
  ExpectError(OpenStatus(root / "2/"), StatusCode::kInvalidArgument, {"a symbolic link"});
}

TEST(SnapshotTest, ANewerFormatIsUnimplemented) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  std::string bytes = ReadFile(directory + "/manifest.json");
  bytes.replace(0, 11, "{\"format\":3");
  const std::string body = bytes.substr(0, bytes.find("\"digest\""));
  WriteFile(directory + "/manifest.json", body + "\"digest\":\"" + Hex(Sha256Of(body)) + "\"}\n");
  ExpectError(OpenStatus(directory), StatusCode::kUnimplemented, {directory + "/manifest.json: format 3 > 2"});
}

TEST(SnapshotTest, LimitsAreHeldBeforeAnythingIsRead) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  const auto with = [&](SnapshotLimits limits) { return OpenStatus(directory, {.limits = limits}); };
  ExpectError(with({.manifest_bytes = 10}), StatusCode::kInvalidArgument, {"manifest.json: ", " bytes > limit 10"});
  ExpectError(with({.spec_bytes = 10}), StatusCode::kInvalidArgument, {"model.json: ", " bytes > limit 10"});
  ExpectError(with({.golden_bytes = 10}), StatusCode::kInvalidArgument, {"golden.jsonl: ", " bytes > limit 10"});
  ExpectError(with({.golden_line_bytes = 10}), StatusCode::kInvalidArgument, {"golden.jsonl:1: line: ", "> limit 10"});
  ExpectError(with({.header_bytes = 10}), StatusCode::kInvalidArgument,
              {"weights.safetensors: byte 0: header: ", "> limit 10"});
  ExpectError(with({.tensors = 9}), StatusCode::kInvalidArgument, {"weights.safetensors: tensors: 10 > limit 9"});
  uint64_t total = 0;
  const auto manifest = ReadManifest(directory, {});
  ASSERT_TRUE(manifest.ok());
  for (const ManifestFile& file : manifest->files) total += file.size;
  EXPECT_TRUE(with({.total_bytes = total}).ok());
  ExpectError(with({.total_bytes = total - 1}), StatusCode::kResourceExhausted,
              {"need " + std::to_string(total) + " bytes", "limit " + std::to_string(total - 1)});
}

TEST(SnapshotTest, MoreThanTheMachineHasIsRefusedBeforeAllocating) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  // A file with a hole is as long as one likes. Its chunks are never looked at.
  const std::string path = directory + "/weights.safetensors";
  const uint64_t size =
      2 * static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (truncate(path.c_str(), static_cast<off_t>(size)) != 0) GTEST_SKIP() << "the file system has no large files";
  auto manifest = ReadManifest(directory, {});
  ASSERT_TRUE(manifest.ok());
  ManifestFile& file = manifest->files.back();
  file.size = size;
  Sha256 root_digest;
  const Sha256Digest chunk = Sha256Of("x");
  file.chunk_sha256.assign((size + kChunkBytes - 1) / kChunkBytes, Hex(chunk));
  for (size_t i = 0; i < file.chunk_sha256.size(); ++i) root_digest.Update(chunk);
  file.root_sha256 = Hex(root_digest.Finish());
  WriteFile(directory + "/manifest.json", FormatManifest(*manifest));
  ExpectError(OpenStatus(directory, {.limits = {.manifest_bytes = size_t{1} << 30}}), StatusCode::kResourceExhausted,
              {"manifest.json: need ", " bytes of memory > limit "});
}

TEST(SnapshotTest, WeightsThatAreNotFiniteAreRefusedWithTheElement) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  std::vector<float> values(12, 1.0f);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  const std::string data(reinterpret_cast<const char*>(values.data()), 48);
  Republish(directory, "weights.safetensors", OneTensorFile("table.item", DataType::kF32, {3, 4}, data));
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {directory + "/weights.safetensors: tensor \"table.item\": element [1, 3] is nan"});
  Republish(directory, "weights.safetensors", OneTensorFile("h", DataType::kF16, {2}, std::string("\0\0\0\xFC", 4)));
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {"tensor \"h\": element [1] is -inf"});
  Republish(directory, "weights.safetensors", OneTensorFile("b", DataType::kBF16, {2}, std::string("\x80\x7F\0\0", 4)));
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {"tensor \"b\": element [0] is inf"});
  Republish(directory, "weights.safetensors", OneTensorFile("i", DataType::kU8, {4}, std::string(4, '\xFF')));
  EXPECT_TRUE(OpenStatus(directory).ok()) << OpenStatus(directory);
}

TEST(SnapshotTest, TensorsOfSeveralFilesAreOneSet) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  // Headers of any length: the data begins aligned all the same.
  for (size_t padding = 0; padding < 70; padding += 3) {
    const std::string header =
        R"({"more":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})" + std::string(padding, ' ');
    const uint64_t length = header.size();
    std::string file(reinterpret_cast<const char*>(&length), 8);
    Republish(directory, "more.safetensors", file + header + std::string(16, '\1'));
    const auto snapshot = Snapshot::Open(directory, {});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    EXPECT_EQ((*snapshot)->tensors().size(), 11u);
    const Tensor& more = (*snapshot)->tensors().at("more");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(more.data) % 64, 0u);
    EXPECT_EQ(*reinterpret_cast<const int64_t*>(more.data), 0x0101010101010101);
  }
  ExpectError(OpenStatus(directory, {.limits = {.tensors = 10}}), StatusCode::kInvalidArgument,
              {"weights.safetensors: tensors: 11 up to this file > limit 10"});
  Republish(directory, "more.safetensors", OneTensorFile("rows", DataType::kU8, {1}, "x"));
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {"weights.safetensors: tensor \"rows\": another file has a tensor of this name"});
}

TEST(SnapshotTest, AWrongHeaderIsNamedWithItsFile) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  Republish(directory, "weights.safetensors", "");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {"weights.safetensors: byte 0: 0 bytes are too short"});
  Republish(directory, "weights.safetensors", std::string(8, '\xFF') + "{}");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {"weights.safetensors: byte 0: header of 1844674407"});
  Republish(directory, "weights.safetensors", std::string("\2\0\0\0\0\0\0\0{}", 10) + "x");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {"weights.safetensors: data: no tensor has the bytes [0, 1)"});
}

TEST(SnapshotTest, AWrongSpecIsNamedWithTheOffset) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  Republish(directory, "model.json", R"({"format":1,"format":1})");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument,
              {directory + "/model.json: byte 20: key \"format\" twice"});
  Republish(directory, "model.json", "");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {"model.json: byte 0"});
  Republish(directory, "model.json", R"({"fromat":1})");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {"model.json: ", "fromat"});
}

TEST(SnapshotTest, GoldenCasesAreNeededUnlessTheManifestSaysUnverified) {
  const TempDirectory root;
  const std::string directory = WriteSmallSnapshot(root);
  Republish(directory, "golden.jsonl", "");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {"golden.jsonl: no cases", "\"unverified\":false"});
  Republish(directory, "golden.jsonl", "", /*unverified=*/true);
  const auto snapshot = Snapshot::Open(directory, {});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_TRUE((*snapshot)->unverified());
  Republish(directory, "golden.jsonl", FormatJson(SmallGoldenCase()) + "\n{\"scores\":[2]}\n");
  ExpectError(OpenStatus(directory), StatusCode::kInvalidArgument, {directory + "/golden.jsonl:2: scores[0]: 2 "});
}

}  // namespace
}  // namespace din
