#include "trainer/movielens.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "trainer/rdata.h"

namespace din {
namespace {

std::string_view FirstGenre(std::string_view genres) { return genres.substr(0, genres.find('|')); }

// --- The data frame of r-cran-dslabs --------------------------------------------------------------------------------

// A column that must have `rows` values of this type.
absl::StatusOr<const rdata::Value*> Column(const rdata::Value& frame, std::string_view name, rdata::Type type,
                                           size_t rows) {
  const rdata::Value* column = frame.Member(name);
  if (column == nullptr || column->type != type || column->size() != rows) {
    return absl::DataLossError(
        absl::StrCat("movielens: column ", std::string(name), " is missing or not of its type and length"));
  }
  return column;
}

// The strings of a factor: integers from 1 into the attribute `levels`.
absl::StatusOr<std::string> Level(const rdata::Value& factor, const rdata::Value& levels, size_t row) {
  const int32_t code = factor.integers[row];
  if (code == rdata::kMissingInteger) return std::string();
  if (code < 1 || static_cast<size_t>(code) > levels.strings.size()) {
    return absl::DataLossError(absl::StrCat("movielens: row ", row, ": level ", code, " of ", levels.strings.size()));
  }
  return levels.strings[code - 1].value_or("");
}

absl::StatusOr<Dataset> FromDataFrame(const rdata::Value& frame) {
  using rdata::Type;
  const rdata::Value* first = frame.Member("movieId");
  const size_t rows = first == nullptr ? 0 : first->size();
  DIN_ASSIGN_OR_RETURN(const rdata::Value* movie, Column(frame, "movieId", Type::kInteger, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* title, Column(frame, "title", Type::kString, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* year, Column(frame, "year", Type::kInteger, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* genres, Column(frame, "genres", Type::kInteger, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* user, Column(frame, "userId", Type::kInteger, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* rating, Column(frame, "rating", Type::kReal, rows));
  DIN_ASSIGN_OR_RETURN(const rdata::Value* time, Column(frame, "timestamp", Type::kInteger, rows));
  const rdata::Value* levels = genres->Attribute("levels");
  if (levels == nullptr || levels->type != Type::kString) {
    return absl::DataLossError("movielens: genres is not a factor");
  }

  DatasetBuilder builder;
  for (size_t row = 0; row < rows; ++row) {
    DIN_ASSIGN_OR_RETURN(const std::string all_genres, Level(*genres, *levels, row));
    const int32_t id = movie->integers[row];
    std::string name = title->strings[row].value_or(absl::StrCat("film ", id));
    if (year->integers[row] != rdata::kMissingInteger) absl::StrAppend(&name, " (", year->integers[row], ")");
    builder.AddItem(id, name, FirstGenre(all_genres));
    builder.AddEvent(user->integers[row], id, static_cast<float>(rating->reals[row]), time->integers[row]);
  }
  return std::move(builder).Build();
}

// --- GroupLens' CSV files -------------------------------------------------------------------------------------------

// Cuts one line at its commas; a field in double quotes may hold commas, and "" for a quote. nullopt: quotes left open.
std::optional<std::vector<std::string>> CutCsv(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back().push_back(line[++i]);
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back().push_back(c);
    }
  }
  if (quoted) return std::nullopt;
  return fields;
}

template <typename T>
bool ParseNumber(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

// Calls `row` with the fields of every line after the header; what it returns, unless empty, says why the line is bad.
absl::Status ForEachLine(const std::string& path, std::string_view header,
                         const std::function<std::string(const std::vector<std::string>&)>& row, ReadReport& report) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string line;
  if (!std::getline(file, line)) return absl::DataLossError(absl::StrCat(path, ": empty"));
  if (line.ends_with('\r')) line.pop_back();
  if (line != header) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": first line \"", line.substr(0, 200), "\", expected \"", std::string(header), "\""));
  }
  const size_t bad_before = report.bad_lines;
  size_t lines = 1;
  while (std::getline(file, line)) {
    ++lines;
    const auto fields = CutCsv(line);
    const std::string reason = fields ? row(*fields) : "a quote is left open";
    if (reason.empty()) continue;
    if (report.bad_lines++ == 0) report.first_bad_line = absl::StrCat(path, ":", lines, ": ", reason);
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": cannot be read beyond line ", lines));
  if ((report.bad_lines - bad_before) * 1000 > lines) {
    return absl::DataLossError(absl::StrCat(path, ": ", report.bad_lines - bad_before, " bad lines of ", lines,
                                            " > limit 1 in 1000; the first: ", report.first_bad_line));
  }
  return absl::OkStatus();
}

absl::StatusOr<Dataset> FromCsv(const std::filesystem::path& directory, ReadReport& report) {
  DatasetBuilder builder;
  DIN_RETURN_IF_ERROR(ForEachLine(
      directory / "movies.csv", "movieId,title,genres",
      [&](const std::vector<std::string>& fields) -> std::string {
        int64_t id = 0;
        if (fields.size() != 3) return absl::StrCat(fields.size(), " fields, expected 3");
        if (!ParseNumber(fields[0], id)) return "movieId is not an integer";
        builder.AddItem(id, fields[1], FirstGenre(fields[2]));
        return "";
      },
      report));
  DIN_RETURN_IF_ERROR(ForEachLine(
      directory / "ratings.csv", "userId,movieId,rating,timestamp",
      [&](const std::vector<std::string>& fields) -> std::string {
        int64_t user = 0, item = 0, time = 0;
        float rating = 0;
        if (fields.size() != 4) return absl::StrCat(fields.size(), " fields, expected 4");
        if (!ParseNumber(fields[0], user)) return "userId is not an integer";
        if (!ParseNumber(fields[1], item)) return "movieId is not an integer";
        if (!ParseNumber(fields[2], rating) || !std::isfinite(rating)) {
          return "rating is not a number";
        }
        if (!ParseNumber(fields[3], time)) return "timestamp is not an integer";
        if (!builder.AddEvent(user, item, rating, time)) {
          return absl::StrCat("film ", item, " is not in movies.csv");
        }
        return "";
      },
      report));
  return std::move(builder).Build();
}

}  // namespace

absl::StatusOr<Dataset> ReadMovieLens(const std::string& directory, ReadReport& report) {
  const std::filesystem::path path(directory);
  std::error_code ignored;
  absl::StatusOr<Dataset> data = absl::NotFoundError(
      absl::StrCat(directory, ": neither Rdata.rdx (trainer/fetch_movielens.sh brings it) nor ratings.csv is there"));
  if (std::filesystem::exists(path / "Rdata.rdx", ignored)) {
    DIN_ASSIGN_OR_RETURN(const rdata::ValuePtr frame, rdata::ReadLazyLoad(path / "Rdata", "movielens"));
    data = FromDataFrame(*frame);
  } else if (std::filesystem::exists(path / "ratings.csv", ignored)) {
    data = FromCsv(path, report);
  }
  if (data.ok()) report.events = data->events.size();
  return data;
}

}  // namespace din
