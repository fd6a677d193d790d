// Text files line by line, plain or compressed (.gz, .xz), in little memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/progress.h"

namespace din {

// What was read, and what could not be.
struct ReadReport {
  size_t events = 0;
  size_t bad_lines = 0;
  std::string first_bad_line;  // "ratings.csv:17: rating \"x\" is not a number"; empty when there is none
};

// Decompressed bytes of a file. One thread.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // As many bytes as are at hand, into `out`; 0 at the end. DATA_LOSS for a file that is damaged or truncated.
  virtual absl::StatusOr<size_t> Read(char* out, size_t size) = 0;
  // Bytes of the file itself that were used.
  virtual uint64_t consumed() const = 0;
};

// One thread.
class LineReader {
 public:
  // The compression is told by the first bytes, not by the name. NOT_FOUND when there is no such file; INVALID_ARGUMENT
  // for a compression that is not read here, with the command that undoes it.
  static absl::StatusOr<LineReader> Open(const std::string& path);

  // The next line without its end; false at the end of the file, or when it cannot be read on: see status(). `line` is
  // valid until the next call.
  bool Next(std::string_view& line);

  const absl::Status& status() const { return status_; }
  const std::string& path() const { return path_; }
  size_t number() const { return number_; }  // of the last line, from 1
  double part() const;                       // of the file that is done

 private:
  std::string path_;
  uint64_t file_size_ = 0;
  std::unique_ptr<ByteSource> source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // of what is not yet given out
  size_t end_ = 0;
  size_t number_ = 0;
  absl::Status status_;
};

// Calls `use` with every line that is left; what it returns, unless empty, says why the line is bad. Bad lines are
// counted in `report`; when more than one in a thousand of this file is bad it is DATA_LOSS, naming the first.
absl::Status ForEachLine(LineReader& reader, const std::function<std::string(std::string_view)>& use,
                         ReadReport& report, Progress& progress);

// How a line is cut into fields.
enum class Delimiter {
  kComma,        // CSV: a field in double quotes may hold commas, and "" for a quote
  kTab,          // TSV: no quotes
  kDoubleColon,  // MovieLens' .dat
};

// False: a quote is left open. Reuses `fields`.
bool CutLine(std::string_view line, Delimiter delimiter, std::vector<std::string>& fields);

}  // namespace din
