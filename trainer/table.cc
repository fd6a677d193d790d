#include "trainer/table.h"

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
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "trainer/utf8.h"

namespace din {
namespace {

// The file of this name with one of the endings that are read; "" when there is none.
std::string Find(const std::filesystem::path& directory, std::string_view name) {
  std::error_code ignored;
  for (const char* table : {".tsv", ".csv"}) {
    for (const char* compression : {"", ".gz", ".xz"}) {
      const std::filesystem::path path = directory / absl::StrCat(std::string(name), table, compression);
      if (std::filesystem::exists(path, ignored)) return path;
    }
  }
  return "";
}

template <typename T>
bool ParseNumber(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

constexpr int kAbsent = -1;

// A table whose header has been read.
struct Table {
  LineReader reader;
  Delimiter delimiter;
  std::vector<std::string> names;

  static absl::StatusOr<Table> Open(const std::string& path) {
    DIN_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
    std::string_view line;
    if (!reader.Next(line)) {
      return reader.status().ok() ? absl::DataLossError(absl::StrCat(path, ": empty")) : reader.status();
    }
    const Delimiter delimiter = line.find('\t') == std::string_view::npos ? Delimiter::kComma : Delimiter::kTab;
    std::vector<std::string> names;
    CutLine(line, delimiter, names);
    return Table{std::move(reader), delimiter, std::move(names)};
  }

  int Column(std::initializer_list<std::string_view> spellings) const {
    const auto at = std::ranges::find_if(
        names, [&](const std::string& name) { return std::ranges::find(spellings, name) != spellings.end(); });
    return at == names.end() ? kAbsent : static_cast<int>(at - names.begin());
  }

  std::vector<int> ColumnsThatBegin(std::string_view prefix) const {
    std::vector<int> columns;
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i].starts_with(prefix)) columns.push_back(static_cast<int>(i));
    }
    return columns;
  }

  std::vector<std::string> NamesOf(const std::vector<int>& columns) const {
    std::vector<std::string> out;
    for (const int column : columns) out.push_back(names[column]);
    return out;
  }

  absl::Status ForEach(const std::function<std::string(const std::vector<std::string>&)>& row, ReadReport& report,
                       Progress& progress) {
    std::vector<std::string> fields;
    return ForEachLine(
        reader,
        [&](std::string_view line) -> std::string {
          if (!IsUtf8(line)) return "not UTF-8";
          if (!CutLine(line, delimiter, fields)) return "a quote is left open";
          if (fields.size() != names.size()) return absl::StrCat(fields.size(), " fields, expected ", names.size());
          return row(fields);
        },
        report, progress);
  }
};

std::vector<std::string_view> Pick(const std::vector<std::string>& fields, const std::vector<int>& columns) {
  std::vector<std::string_view> out;
  for (const int column : columns) out.push_back(fields[column]);
  return out;
}

// Which columns of the log mean what.
struct LogColumns {
  int user, item, time, label, value, action;
  std::vector<int> categories, user_fields, context;

  static absl::StatusOr<LogColumns> Of(const Table& table) {
    LogColumns c;
    c.user = table.Column({"user"});
    c.item = table.Column({"item"});
    c.time = table.Column({"ts", "timestamp", "time"});
    c.label = table.Column({"label", "click"});
    c.value = table.Column({"value", "rating"});
    c.action = table.Column({"action"});
    c.categories = table.ColumnsThatBegin("category");
    c.user_fields = table.ColumnsThatBegin("user_");
    c.context = table.ColumnsThatBegin("context_");
    const std::pair<int, const char*> needed[] = {{c.user, "user"}, {c.item, "item"}, {c.time, "ts"}};
    for (const auto& [column, name] : needed) {
      if (column == kAbsent) {
        return absl::InvalidArgumentError(absl::StrCat(table.reader.path(), ": no column \"", name,
                                                       "\" in the header: ", absl::StrJoin(table.names, ", ")));
      }
    }
    std::vector<int> known = {c.user, c.item, c.time, c.label, c.value, c.action};
    for (const std::vector<int>* more : {&c.categories, &c.user_fields, &c.context}) {
      known.insert(known.end(), more->begin(), more->end());
    }
    for (size_t i = 0; i < table.names.size(); ++i) {
      if (std::ranges::find(known, static_cast<int>(i)) == known.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            table.reader.path(), ": column \"", table.names[i],
            "\" has no meaning here; accepted: user, item, ts, category..., label, value, action, user_..., "
            "context_..."));
      }
    }
    return c;
  }
};

absl::Status ReadItems(Table table, const std::vector<std::string>& categories, DatasetBuilder& builder,
                       ReadReport& report, Progress& progress) {
  const int item = table.Column({"item"});
  const int title = table.Column({"name", "title"});
  std::vector<int> columns;
  for (const std::string& name : categories) columns.push_back(table.Column({name}));
  if (item == kAbsent || std::ranges::count(columns, kAbsent) > 0) {
    return absl::InvalidArgumentError(absl::StrCat(table.reader.path(), ": needs the columns item, ",
                                                   absl::StrJoin(categories, ", "), "; has ",
                                                   absl::StrJoin(table.names, ", ")));
  }
  return table.ForEach(
      [&](const std::vector<std::string>& fields) -> std::string {
        builder.AddItem(fields[item], title == kAbsent ? "" : std::string_view(fields[title]), Pick(fields, columns));
        return "";
      },
      report, progress);
}

absl::Status ReadUsers(Table table, DatasetBuilder& builder, ReadReport& report, Progress& progress) {
  const int user = table.Column({"user"});
  if (user == kAbsent) return absl::InvalidArgumentError(absl::StrCat(table.reader.path(), ": no column \"user\""));
  std::vector<int> columns;
  for (size_t i = 0; i < table.names.size(); ++i) {
    if (static_cast<int>(i) != user) columns.push_back(static_cast<int>(i));
  }
  return table.ForEach(
      [&](const std::vector<std::string>& fields) -> std::string {
        builder.AddUser(fields[user], Pick(fields, columns));
        return "";
      },
      report, progress);
}

absl::Status ReadLog(Table& table, const LogColumns& c, bool items_described, DatasetBuilder& builder,
                     ReadReport& report, Progress& progress) {
  return table.ForEach(
      [&](const std::vector<std::string>& fields) -> std::string {
        EventRow event{.user = fields[c.user], .item = fields[c.item]};
        if (event.user.empty()) return "user is empty";
        if (event.item.empty()) return "item is empty";
        if (!ParseNumber(fields[c.time], event.time)) {
          return absl::StrCat(table.names[c.time], " \"", fields[c.time], "\" is not an integer");
        }
        if (c.value != kAbsent && (!ParseNumber(fields[c.value], event.value) || !std::isfinite(event.value))) {
          return absl::StrCat(table.names[c.value], " \"", fields[c.value], "\" is not a number");
        }
        if (c.label != kAbsent) {
          if (fields[c.label] != "0" && fields[c.label] != "1") {
            return absl::StrCat(table.names[c.label], " \"", fields[c.label], "\" is neither 0 nor 1");
          }
          event.kind = fields[c.label] == "1" ? EventRow::kClicked : EventRow::kNotClicked;
        }
        if (c.action != kAbsent) event.action = fields[c.action];
        if (!items_described) builder.AddItem(event.item, "", Pick(fields, c.categories));
        if (!c.user_fields.empty()) builder.AddUser(event.user, Pick(fields, c.user_fields));
        const std::vector<std::string_view> context = Pick(fields, c.context);
        event.context = context;
        if (!builder.AddEvent(event)) return absl::StrCat("item ", fields[c.item], " is not in the items file");
        return "";
      },
      report, progress);
}

}  // namespace

bool LooksLikeTable(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return !Find(path, "events").empty();
  return std::filesystem::exists(path, ignored);
}

absl::StatusOr<Dataset> ReadTable(const std::string& path, ReadReport& report, Progress& progress) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::string log = folder ? Find(path, "events") : path;
  if (log.empty()) return absl::NotFoundError(absl::StrCat(path, ": no events.tsv or events.csv (.gz, .xz) is there"));
  DIN_ASSIGN_OR_RETURN(Table table, Table::Open(log));
  DIN_ASSIGN_OR_RETURN(const LogColumns columns, LogColumns::Of(table));

  const std::string items = folder ? Find(path, "items") : "";
  const std::string users = folder ? Find(path, "users") : "";
  DatasetBuilder::Names names{.categories = table.NamesOf(columns.categories),
                              .user_fields = table.NamesOf(columns.user_fields),
                              .context_fields = table.NamesOf(columns.context)};
  std::vector<Table> described;
  if (!items.empty()) {
    DIN_ASSIGN_OR_RETURN(Table of_items, Table::Open(items));
    if (names.categories.empty()) names.categories = of_items.NamesOf(of_items.ColumnsThatBegin("category"));
    described.push_back(std::move(of_items));
  }
  std::vector<Table> of_users;
  if (!users.empty()) {
    if (!names.user_fields.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(users, ": the log has user features of its own: ", absl::StrJoin(names.user_fields, ", ")));
    }
    DIN_ASSIGN_OR_RETURN(Table opened, Table::Open(users));
    for (const std::string& name : opened.names) {
      if (name != "user") names.user_fields.push_back(name);
    }
    of_users.push_back(std::move(opened));
  }

  DatasetBuilder builder(names);
  for (Table& t : described) {
    DIN_RETURN_IF_ERROR(ReadItems(std::move(t), names.categories, builder, report, progress));
  }
  for (Table& t : of_users) DIN_RETURN_IF_ERROR(ReadUsers(std::move(t), builder, report, progress));
  DIN_RETURN_IF_ERROR(ReadLog(table, columns, !items.empty(), builder, report, progress));
  absl::StatusOr<Dataset> data = std::move(builder).Build();
  if (!data.ok())
    return absl::Status(data.status().code(), absl::StrCat(log, ": ", std::string(data.status().message())));
  report.events = data->events.size();
  return data;
}

}  // namespace din
