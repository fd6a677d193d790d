#include "model_loader/manifest.h"

#include <string>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

// Written by a program of its own (Python's hashlib): "golden", nothing, and 8 MiB + 1 times 'x'.
constexpr char kGoldenEntry[] = R"({"name":"golden.jsonl","size":6,)"
                                R"("chunks":["dd56de4137951d9c92681b03416ec15f886b4482a27e3a517d32f085244cbe5d"],)"
                                R"("root":"b242b51bf03d0e1205c22701262660d8551a426d53fe5b42cf73cfafa20cdf8d"})";
constexpr char kSpecEntry[] = R"({"name":"model.json","size":0,"chunks":[],)"
                              R"("root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"})";
constexpr char kWeightsEntry[] = R"({"name":"weights.safetensors","size":8388609,)"
                                 R"("chunks":["0c77bc0a0795a93612d45256897456d0fcb24f151c44c150d07ecd03f4ef5168",)"
                                 R"("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"],)"
                                 R"("root":"8d11be9de5e2cbf7e78be1e305ddc71f99a703973f7a14dd7cb14b822a330831"})";
constexpr char kDigest[] = "6e85096d9f8a7dbf5ce1d0cbbcd7b0e10f7818580a17cd99446a52f99db5626d";

std::string Body(const std::string& files) { return R"({"format":1,"unverified":false,"files":[)" + files + "],"; }
std::string AllFiles() { return std::string(kGoldenEntry) + "," + kSpecEntry + "," + kWeightsEntry; }

// With the digest that it would have: a mistake of the writer, not damage.
std::string WithDigest(const std::string& body) { return body + "\"digest\":\"" + Hex(Sha256Of(body)) + "\"}\n"; }

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(ManifestTest, TheKnownFormIsReadAndWritten) {
  const std::string bytes = Body(AllFiles()) + "\"digest\":\"" + kDigest + "\"}\n";
  const auto manifest = ParseManifest(bytes);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->digest, kDigest);
  EXPECT_FALSE(manifest->unverified);
  ASSERT_EQ(manifest->files.size(), 3u);
  EXPECT_EQ(manifest->files[2].name, "weights.safetensors");
  EXPECT_EQ(manifest->files[2].size, 8388609u);
  EXPECT_EQ(manifest->files[2].chunk_sha256.size(), 2u);
  EXPECT_EQ(FormatManifest(*manifest), bytes);
}

TEST(ManifestTest, TheDigesterGivesTheKnownEntries) {
  const auto known = ParseManifest(WithDigest(Body(AllFiles())));
  ASSERT_TRUE(known.ok()) << known.status();
  const std::string contents[] = {"golden", "", std::string(8388609, 'x')};
  for (size_t i = 0; i < 3; ++i) {
    for (const size_t piece : {size_t{1} << 30, size_t{1'000'003}}) {
      FileDigester digester;
      for (size_t at = 0; at < contents[i].size(); at += piece) {
        digester.Update(std::as_bytes(std::span(std::string_view(contents[i]).substr(at, piece))));
      }
      const ManifestFile file = digester.Finish(known->files[i].name);
      EXPECT_EQ(file.size, known->files[i].size);
      EXPECT_EQ(file.chunk_sha256, known->files[i].chunk_sha256);
      EXPECT_EQ(file.root_sha256, known->files[i].root_sha256);
    }
  }
}

TEST(ManifestTest, DamageIsDataLoss) {
  const std::string bytes = WithDigest(Body(AllFiles()));
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(ParseManifest(bytes.substr(0, size)).status().code(), StatusCode::kDataLoss) << size;
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      ASSERT_EQ(ParseManifest(flipped).status().code(), StatusCode::kDataLoss) << "byte " << i << " bit " << bit;
    }
  }
  ExpectError(ParseManifest(bytes + "\n").status(), StatusCode::kDataLoss,
              {"manifest.json: ", "does not end with its digest"});
  ExpectError(ParseManifest(Replaced(bytes, "golden.jsonl", "golden.jsonk")).status(), StatusCode::kDataLoss,
              {"manifest.json: bytes [0, ", "the digest says"});
}

TEST(ManifestTest, ANewerFormatIsUnimplementedWithBothNumbers) {
  const std::string body = R"({"format":3,"parts":[[[[[[]]]]]],)";
  ExpectError(ParseManifest(WithDigest(body)).status(), StatusCode::kUnimplemented, {"manifest.json: format 3 > 2"});
  for (const std::string bad : {"0", "-1", "\"1\"", "99999999999", "null"}) {
    ExpectError(ParseManifest(WithDigest(Replaced(Body(AllFiles()), "\"format\":1", "\"format\":" + bad))).status(),
                StatusCode::kInvalidArgument, {"manifest.json: does not begin with {\"format\":"});
  }
}

TEST(ManifestTest, OnlyTheCanonicalFormIsRead) {
  const std::string body = Body(AllFiles());
  const std::string others[] = {
      Replaced(body, ",\"unverified\"", ", \"unverified\""),
      Replaced(body, "{\"format\":1,\"unverified\":false,", "{\"format\":1,"),
      Replaced(body, "\"unverified\":false,", "\"unverified\":0,"),
      Replaced(body, "\"format\":1,", "\"format\":1.0,"),
      Replaced(body, "\"format\":1,", "\"format\":1,\"more\":1,"),
      Replaced(body, "\"size\":6", "\"size\":6e0"),
      Replaced(body, "\"size\":6", "\"size\":-6"),
      Replaced(body, "\"size\":6", "\"size\":\"6\""),
      Replaced(body, "\"size\":6,", ""),
      Replaced(body, "golden.jsonl", "g\\u006flden.jsonl"),
      Replaced(body, "\"name\":\"golden.jsonl\",\"size\":6", "\"size\":6,\"name\":\"golden.jsonl\""),
      Replaced(body, "\"chunks\":[]", "\"chunks\":[1]"),
      Replaced(body, "\"chunks\":[]", "\"chunks\":{}"),
      Replaced(body, kSpecEntry, "7"),
  };
  for (const std::string& other : others) {
    SCOPED_TRACE(other);
    ExpectError(ParseManifest(WithDigest(other)).status(), StatusCode::kInvalidArgument,
                {"manifest.json: byte ", "not in canonical form"});
  }
  EXPECT_EQ(ParseManifest(WithDigest("[1,")).status().code(), StatusCode::kInvalidArgument);
  ExpectError(ParseManifest(WithDigest(Replaced(body, "\"size\":6", "\"size\":6,\"size\":6"))).status(),
              StatusCode::kInvalidArgument, {"key \"size\" twice"});
  ExpectError(ParseManifest(WithDigest(Replaced(body, "\"chunks\":[]", "\"chunks\":[[[]]]"))).status(),
              StatusCode::kInvalidArgument, {"depth: more than 4 levels"});
}

TEST(ManifestTest, FilesMustMakeASnapshot) {
  const std::string golden = kGoldenEntry, spec = kSpecEntry, weights = kWeightsEntry;
  const auto named = [&](const std::string& name) { return Replaced(spec, "model.json", name); };
  const struct {
    std::string files;
    std::string message;
  } cases[] = {
      {"", "files: no model.json"},
      {golden + "," + weights, "files: no model.json"},
      {golden + "," + spec, "files: no *.safetensors"},
      {spec + "," + weights, "files: no golden.jsonl, but \"unverified\" is false"},
      {spec + "," + golden + "," + weights, "file golden.jsonl: not after model.json"},
      {golden + "," + spec + "," + spec + "," + weights, "file model.json: not after model.json"},
      {golden + "," + spec + "," + named("notes.txt") + "," + weights, "file \"notes.txt\": not model.json"},
      {named("manifest.json") + "," + spec, "file \"manifest.json\""},
      {named("../x.safetensors") + "," + spec, "file \"../x.safetensors\""},
      {named("/x.safetensors") + "," + spec, "file \"/x.safetensors\""},
      {named(".x.safetensors") + "," + spec, "file \".x.safetensors\""},
      {named(".safetensors") + "," + spec, "file \".safetensors\""},
      {named("x y.safetensors") + "," + spec, "file \"x y.safetensors\""},
      {named("") + "," + spec, "file \"\""},
      {named(std::string(189, 'x') + ".safetensors"), "file \"xxx"},
      {Replaced(golden, "\"size\":6", "\"size\":8388609") + "," + spec,
       "golden.jsonl: 1 chunks, but 8388609 bytes have 2"},
      {Replaced(golden, "\"size\":6", "\"size\":0") + "," + spec, "golden.jsonl: 1 chunks, but 0 bytes have 0"},
      {Replaced(golden, "\"size\":6", "\"size\":18446744073709551615") + "," + spec, "bytes have 2199023255552"},
      {Replaced(golden, "dd56", "DD56") + "," + spec, "golden.jsonl: a chunk digest is not 64 lower-case"},
      {Replaced(golden, "dd56", "56") + "," + spec, "golden.jsonl: a chunk digest is not 64 lower-case"},
      {Replaced(golden, "dd56", "0d56") + "," + spec, "golden.jsonl: root \"b242"},
      {Replaced(spec, "e3b0", "e3b1") + "," + weights, "model.json: root \"e3b1"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.files);
    ExpectError(ParseManifest(WithDigest(Body(c.files))).status(), StatusCode::kInvalidArgument,
                {"manifest.json: ", c.message});
  }
}

TEST(ManifestTest, UnverifiedNeedsNoGoldenCases) {
  const std::string body = Body(std::string(kSpecEntry) + "," + kWeightsEntry);
  const auto manifest = ParseManifest(WithDigest(Replaced(body, "false", "true")));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_TRUE(manifest->unverified);
}

TEST(ManifestTest, FilesAreBounded) {
  std::string files;
  for (int i = 0; i < 1025; ++i) {
    const std::string number = std::to_string(1000 + i);
    files += Replaced(kSpecEntry, "model.json", "a" + number + ".safetensors") + ",";
  }
  ExpectError(ParseManifest(WithDigest(Body(files + kSpecEntry))).status(), StatusCode::kInvalidArgument,
              {"files: 1026 > limit 1024"});
}

}  // namespace
}  // namespace din
