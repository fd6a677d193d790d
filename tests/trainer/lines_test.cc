#include "trainer/lines.h"

#include <lzma.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace din {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Gzip(const std::string& text) {
  std::string out(compressBound(text.size()) + 64, '\0');
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Xz(const std::string& text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  size_t end = 0;
  lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const uint8_t*>(text.data()), text.size(),
                          reinterpret_cast<uint8_t*>(out.data()), &end, out.size());
  out.resize(end);
  return out;
}

class LinesTest : public ::testing::Test {
 protected:
  LinesTest() : path_(::testing::TempDir() + "lines_test_" + std::to_string(::getpid())) {}
  ~LinesTest() override { std::filesystem::remove(path_); }

  void Write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  std::vector<std::string> Read(absl::Status* status = nullptr) const {
    auto reader = LineReader::Open(path_);
    EXPECT_TRUE(reader.ok()) << reader.status();
    std::vector<std::string> lines;
    std::string_view line;
    while (reader->Next(line)) lines.emplace_back(line);
    if (status != nullptr) *status = reader->status();
    return lines;
  }

  const std::string path_;
};

TEST_F(LinesTest, PlainGzipAndXzGiveTheSameLines) {
  const std::string text = "one\r\n\ntwo\nlast without an end";
  for (const std::string& bytes : {text, Gzip(text), Xz(text)}) {
    Write(bytes);
    EXPECT_THAT(Read(), ElementsAre("one", "", "two", "last without an end"));
  }
}

TEST_F(LinesTest, LinesLongerThanABufferAndFilesOfManyAreWhole) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += std::string(i % 97, 'x') + std::to_string(i) + "\n";
  text += std::string(1'000'000, 'y') + "\n";
  for (const std::string& bytes : {text, Gzip(text), Xz(text), Gzip(text.substr(0, 5000)) + Gzip(text.substr(5000))}) {
    Write(bytes);
    std::string joined;
    for (const std::string& line : Read()) joined += line + "\n";
    EXPECT_EQ(joined, text);
  }
}

TEST_F(LinesTest, TruncatedOrDamagedCompressionIsDataLoss) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i * 7919) + "\n";
  for (const std::string& whole : {Gzip(text), Xz(text)}) {
    absl::Status status;
    Write(whole.substr(0, whole.size() / 2));
    Read(&status);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("truncated"));
    std::string damaged = whole;
    damaged[whole.size() / 2] ^= 0x55;
    Write(damaged);
    Read(&status);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("damaged"));
  }
}

TEST_F(LinesTest, OtherCompressionsAreRefusedWithTheWayOut) {
  Write("BZh91AY&SY");
  EXPECT_THAT(std::string(LineReader::Open(path_).status().message()), HasSubstr("bzip2 -d " + path_));
  Write("PK\x03\x04");
  EXPECT_THAT(std::string(LineReader::Open(path_).status().message()), HasSubstr("unzip"));
  EXPECT_EQ(LineReader::Open(path_ + ".none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LinesTest, FieldsAreCut) {
  std::vector<std::string> fields;
  EXPECT_TRUE(CutLine("a,\"b, \"\"c\"\"\",,d", Delimiter::kComma, fields));
  EXPECT_THAT(fields, ElementsAre("a", "b, \"c\"", "", "d"));
  EXPECT_FALSE(CutLine("a,\"b", Delimiter::kComma, fields));
  EXPECT_TRUE(CutLine("a\t\"b\t", Delimiter::kTab, fields));
  EXPECT_THAT(fields, ElementsAre("a", "\"b", ""));
  EXPECT_TRUE(CutLine("1::two: 2::3", Delimiter::kDoubleColon, fields));
  EXPECT_THAT(fields, ElementsAre("1", "two: 2", "3"));
}

}  // namespace
}  // namespace din
