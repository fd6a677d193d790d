#include "trainer/lines.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"

namespace din {
namespace {

constexpr size_t kChunk = 1 << 18;  // read at once
constexpr size_t kLongestLine = 1 << 24;

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

class PlainSource : public ByteSource {
 public:
  PlainSource(std::string path, File file) : path_(std::move(path)), file_(std::move(file)) {}

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    const size_t n = std::fread(out, 1, size, file_.get());
    consumed_ += n;
    if (n == 0 && std::ferror(file_.get())) return absl::DataLossError(absl::StrCat(path_, ": cannot be read"));
    return n;
  }
  uint64_t consumed() const override { return consumed_; }

 private:
  std::string path_;
  File file_;
  uint64_t consumed_ = 0;
};

// zlib for gzip, liblzma for xz: both may have several streams one behind the other (cat a.gz b.gz).
class GzipSource : public ByteSource {
 public:
  GzipSource(std::string path, File file) : path_(path), compressed_(std::move(path), std::move(file)), in_(kChunk) {
    constexpr int kGzip = 16;  // added to the window's size: a gzip header, and its checksum, are wanted
    inflateInit2(&stream_, MAX_WBITS + kGzip);
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      if (stream_.avail_in == 0) {
        DIN_ASSIGN_OR_RETURN(const size_t n, compressed_.Read(in_.data(), in_.size()));
        if (n == 0 && between_) return 0;
        if (n == 0) return absl::DataLossError(absl::StrCat(path_, ": truncated: the gzip stream has no end"));
        stream_.next_in = reinterpret_cast<Bytef*>(in_.data());
        stream_.avail_in = static_cast<uInt>(n);
      }
      if (between_) inflateReset(&stream_);
      between_ = false;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        between_ = true;
      } else if (result != Z_OK) {
        return absl::DataLossError(
            absl::StrCat(path_, ": damaged: ", stream_.msg == nullptr ? "not gzip" : stream_.msg));
      }
    }
    return size - stream_.avail_out;
  }
  uint64_t consumed() const override { return compressed_.consumed(); }

 private:
  std::string path_;
  PlainSource compressed_;
  std::vector<char> in_;
  z_stream stream_ = {};
  bool between_ = false;  // one stream has ended, another may follow
};

class XzSource : public ByteSource {
 public:
  XzSource(std::string path, File file) : path_(path), compressed_(std::move(path), std::move(file)), in_(kChunk) {
    ready_ = lzma_stream_decoder(&stream_, UINT64_MAX, LZMA_CONCATENATED) == LZMA_OK;
  }
  ~XzSource() override { lzma_end(&stream_); }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    if (!ready_) return absl::ResourceExhaustedError(absl::StrCat(path_, ": no memory to decompress"));
    stream_.next_out = reinterpret_cast<uint8_t*>(out);
    stream_.avail_out = size;
    while (stream_.avail_out == size && !done_) {
      if (stream_.avail_in == 0 && action_ == LZMA_RUN) {
        DIN_ASSIGN_OR_RETURN(const size_t n, compressed_.Read(in_.data(), in_.size()));
        if (n == 0) action_ = LZMA_FINISH;
        stream_.next_in = reinterpret_cast<uint8_t*>(in_.data());
        stream_.avail_in = n;
      }
      const lzma_ret result = lzma_code(&stream_, action_);
      if (result == LZMA_STREAM_END) {
        done_ = true;
      } else if (result == LZMA_BUF_ERROR) {
        return absl::DataLossError(absl::StrCat(path_, ": truncated: the xz stream has no end"));
      } else if (result != LZMA_OK) {
        return absl::DataLossError(absl::StrCat(path_, ": damaged: liblzma error ", static_cast<int>(result)));
      }
    }
    return size - stream_.avail_out;
  }
  uint64_t consumed() const override { return compressed_.consumed(); }

 private:
  std::string path_;
  PlainSource compressed_;
  std::vector<char> in_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  lzma_action action_ = LZMA_RUN;
  bool ready_ = false;
  bool done_ = false;
};

struct Foreign {
  std::string_view magic;
  const char* command;
};
constexpr Foreign kForeign[] = {{"BZh", "bzip2 -d"}, {"PK\x03\x04", "unzip"}, {"\x28\xb5\x2f\xfd", "zstd -d"}};

}  // namespace

absl::StatusOr<LineReader> LineReader::Open(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return absl::InvalidArgumentError(absl::StrCat(path, ": a directory"));
  File file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
  char first[6] = {};
  const std::string_view head(first, std::fread(first, 1, sizeof first, file.get()));
  std::rewind(file.get());
  for (const Foreign& f : kForeign) {
    if (head.starts_with(f.magic)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": compressed in a way that is not read here; first run: ", f.command, " ", path));
    }
  }
  LineReader reader;
  reader.path_ = path;
  const uintmax_t size = std::filesystem::file_size(path, error);
  reader.file_size_ = error ? 0 : size;
  if (head.starts_with("\x1f\x8b")) {
    reader.source_ = std::make_unique<GzipSource>(path, std::move(file));
  } else if (head == std::string_view("\xfd"
                                      "7zXZ\0",
                                      6)) {
    reader.source_ = std::make_unique<XzSource>(path, std::move(file));
  } else {
    reader.source_ = std::make_unique<PlainSource>(path, std::move(file));
  }
  reader.buffer_.resize(kChunk);
  return reader;
}

double LineReader::part() const {
  return file_size_ == 0 ? 0
                         : std::min(1.0, static_cast<double>(source_->consumed()) / static_cast<double>(file_size_));
}

bool LineReader::Next(std::string_view& line) {
  size_t looked = begin_;
  for (;;) {
    const void* found = looked < end_ ? std::memchr(buffer_.data() + looked, '\n', end_ - looked) : nullptr;
    if (found != nullptr) {
      const size_t at = static_cast<const char*>(found) - buffer_.data();
      line = {buffer_.data() + begin_, at - begin_};
      begin_ = at + 1;
      break;
    }
    // No whole line is left: move its beginning to the front and read on.
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    looked = end_;
    if (end_ == kLongestLine) {
      status_ = absl::DataLossError(
          absl::StrCat(path_, ":", number_ + 1, ": a line longer than ", kLongestLine, " bytes; is this a text file?"));
      return false;
    }
    if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
    const absl::StatusOr<size_t> n = source_->Read(buffer_.data() + end_, buffer_.size() - end_);
    if (!n.ok()) {
      status_ = n.status();
      return false;
    }
    end_ += *n;
    if (*n > 0) continue;
    if (end_ == 0) return false;
    line = {buffer_.data(), end_};  // the last line may lack its end
    begin_ = end_;
    break;
  }
  ++number_;
  if (line.ends_with('\r')) line.remove_suffix(1);
  return true;
}

absl::Status ForEachLine(LineReader& reader, const std::function<std::string(std::string_view)>& use,
                         ReadReport& report, Progress& progress) {
  size_t bad = 0;
  std::string first;
  std::string_view line;
  while (reader.Next(line)) {
    if (std::string reason = use(line); !reason.empty()) {
      if (bad++ == 0) first = absl::StrCat(reader.path(), ":", reader.number(), ": ", reason);
    }
    if (reader.number() % 4096 == 0) {
      progress.Update(reader.part(),
                      absl::StrFormat("reading %s  %d lines, %d bad", reader.path(), reader.number(), bad));
    }
  }
  if (!reader.status().ok()) return reader.status();
  if (bad > 0 && report.bad_lines == 0) report.first_bad_line = first;
  report.bad_lines += bad;
  if (bad * 1000 > reader.number()) {
    return absl::DataLossError(absl::StrCat(reader.path(), ": ", bad, " bad lines of ", reader.number(),
                                            " > limit 1 in 1000; the first: ", first));
  }
  return absl::OkStatus();
}

bool CutLine(std::string_view line, Delimiter delimiter, std::vector<std::string>& fields) {
  size_t n = 0;
  const auto next = [&]() -> std::string& {
    if (n == fields.size()) fields.emplace_back();
    fields[n].clear();
    return fields[n++];
  };
  if (delimiter != Delimiter::kComma) {
    const std::string_view mark = delimiter == Delimiter::kTab ? "\t" : "::";
    for (;;) {
      const size_t at = line.find(mark);
      next() = line.substr(0, at);
      if (at == std::string_view::npos) break;
      line.remove_prefix(at + mark.size());
    }
    fields.resize(n);
    return true;
  }
  std::string* field = &next();
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      field->push_back(line[++i]);
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      field = &next();
    } else {
      field->push_back(c);
    }
  }
  fields.resize(n);
  return !quoted;
}

}  // namespace din
