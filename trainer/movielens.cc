#include "trainer/movielens.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "trainer/rdata.h"
#include "trainer/utf8.h"

namespace din {
namespace {

std::string_view FirstGenre(std::string_view genres) { return genres.substr(0, genres.find('|')); }

// The paper's positives (section 6.1).
std::string_view ActionOf(double rating) { return rating >= 4 ? "liked" : "disliked"; }

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
    const std::string id = absl::StrCat(movie->integers[row]);
    std::string name = title->strings[row].value_or(absl::StrCat("film ", id));
    if (year->integers[row] != rdata::kMissingInteger) absl::StrAppend(&name, " (", year->integers[row], ")");
    builder.AddItem(id, name, FirstGenre(all_genres));
    builder.AddEvent({.user = absl::StrCat(user->integers[row]),
                      .item = id,
                      .value = static_cast<float>(rating->reals[row]),
                      .time = time->integers[row],
                      .action = ActionOf(rating->reals[row])});
  }
  return std::move(builder).Build();
}

// --- GroupLens' text files ------------------------------------------------------------------------------------------

template <typename T>
bool ParseNumber(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

// How a release lays out its files.
struct Layout {
  const char* extension;
  Delimiter delimiter;
  bool header;
};
constexpr Layout kCsv = {".csv", Delimiter::kComma, true};         // latest, 20M, 25M
constexpr Layout kDat = {".dat", Delimiter::kDoubleColon, false};  // 1M, 10M

// Calls `row` with the fields of every line but the header; what it returns, unless empty, says why the line is bad.
absl::Status ForEachRow(const std::filesystem::path& directory, const char* name, const Layout& layout,
                        std::string_view header, const std::function<std::string(std::vector<std::string>&)>& row,
                        ReadReport& report, Progress& progress) {
  DIN_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(directory / absl::StrCat(name, layout.extension)));
  std::string_view line;
  if (layout.header && !reader.Next(line)) {
    return reader.status().ok() ? absl::DataLossError(absl::StrCat(reader.path(), ": empty")) : reader.status();
  }
  if (layout.header && line != header) {
    return absl::InvalidArgumentError(absl::StrCat(reader.path(), ": first line \"", std::string(line.substr(0, 200)),
                                                   "\", expected \"", std::string(header), "\""));
  }
  const auto expected = 1 + std::ranges::count(header, ',');
  std::vector<std::string> fields;
  return ForEachLine(
      reader,
      [&](std::string_view text) -> std::string {
        if (!CutLine(text, layout.delimiter, fields)) return "a quote is left open";
        if (static_cast<ptrdiff_t>(fields.size()) != expected) {
          return absl::StrCat(fields.size(), " fields, expected ", expected);
        }
        return row(fields);
      },
      report, progress);
}

absl::StatusOr<Dataset> FromText(const std::filesystem::path& directory, const Layout& layout, ReadReport& report,
                                 Progress& progress) {
  std::error_code ignored;
  const bool has_users = std::filesystem::exists(directory / absl::StrCat("users", layout.extension), ignored);
  DatasetBuilder::Names names{.categories = {"category"}};
  if (has_users) names.user_fields = {"gender", "age", "occupation"};
  DatasetBuilder builder(names);
  DIN_RETURN_IF_ERROR(ForEachRow(
      directory, "movies", layout, "movieId,title,genres",
      [&](std::vector<std::string>& fields) -> std::string {
        int64_t id = 0;
        if (!ParseNumber(fields[0], id)) return "movieId is not an integer";
        // 1M is in Latin-1, all others in UTF-8, 10M among them; an accent in Latin-1 is no UTF-8.
        const bool is_utf8 = IsUtf8(fields[1]);
        if (layout.header && !is_utf8) return "the title is not UTF-8";
        builder.AddItem(fields[0], is_utf8 ? fields[1] : Utf8FromLatin1(fields[1]), FirstGenre(fields[2]));
        return "";
      },
      report, progress));
  if (has_users) {
    DIN_RETURN_IF_ERROR(ForEachRow(
        directory, "users", layout, "userId,gender,age,occupation,zipCode",
        [&](std::vector<std::string>& fields) -> std::string {
          const std::string_view values[] = {fields[1], fields[2], fields[3]};
          builder.AddUser(fields[0], values);
          return "";
        },
        report, progress));
  }
  DIN_RETURN_IF_ERROR(ForEachRow(
      directory, "ratings", layout, "userId,movieId,rating,timestamp",
      [&](std::vector<std::string>& fields) -> std::string {
        int64_t user = 0, item = 0;
        EventRow event{.user = fields[0], .item = fields[1]};
        if (!ParseNumber(fields[0], user)) return "userId is not an integer";
        if (!ParseNumber(fields[1], item)) return "movieId is not an integer";
        if (!ParseNumber(fields[2], event.value) || !std::isfinite(event.value)) return "rating is not a number";
        if (!ParseNumber(fields[3], event.time)) return "timestamp is not an integer";
        event.action = ActionOf(event.value);
        if (!builder.AddEvent(event)) return absl::StrCat("film ", item, " is not in movies", layout.extension);
        return "";
      },
      report, progress));
  return std::move(builder).Build();
}

}  // namespace

bool LooksLikeMovieLens(const std::string& directory) {
  const std::filesystem::path path(directory);
  std::error_code ignored;
  for (const char* name : {"Rdata.rdx", "ratings.csv", "ratings.dat"}) {
    if (std::filesystem::exists(path / name, ignored)) return true;
  }
  return false;
}

absl::StatusOr<Dataset> ReadMovieLens(const std::string& directory, ReadReport& report, Progress& progress) {
  const std::filesystem::path path(directory);
  std::error_code ignored;
  absl::StatusOr<Dataset> data = absl::NotFoundError(absl::StrCat(
      directory,
      ": neither Rdata.rdx (trainer/fetch_movielens.sh brings it) nor ratings.csv nor ratings.dat is there"));
  if (std::filesystem::exists(path / "Rdata.rdx", ignored)) {
    DIN_ASSIGN_OR_RETURN(const rdata::ValuePtr frame, rdata::ReadLazyLoad(path / "Rdata", "movielens"));
    data = FromDataFrame(*frame);
  } else if (std::filesystem::exists(path / "ratings.csv", ignored)) {
    data = FromText(path, kCsv, report, progress);
  } else if (std::filesystem::exists(path / "ratings.dat", ignored)) {
    data = FromText(path, kDat, report, progress);
  }
  if (data.ok()) report.events = data->events.size();
  return data;
}

}  // namespace din
