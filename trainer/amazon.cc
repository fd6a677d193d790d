#include "trainer/amazon.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"
#include "trainer/utf8.h"

namespace din {
namespace {

using Json = nlohmann::json;

std::vector<std::string> FilesThatBegin(const std::string& directory, std::string_view prefix) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix) && name.find(".json") != std::string::npos) found.push_back(entry.path());
  }
  return found;
}

absl::StatusOr<LineReader> OpenOnly(const std::string& directory, std::string_view prefix) {
  const std::vector<std::string> found = FilesThatBegin(directory, prefix);
  if (found.size() == 1) return LineReader::Open(found[0]);
  return absl::NotFoundError(
      absl::StrCat(directory, ": ", found.size(), " files ", std::string(prefix), "*.json, expected one"));
}

// The string at `key`, or nullptr.
const std::string* StringAt(const Json& record, const char* key) {
  const auto at = record.find(key);
  return at == record.end() ? nullptr : at->get_ptr<const std::string*>();
}

// The last of the last path, as the authors take it.
std::string LastCategory(const Json& record) {
  const auto paths = record.find("categories");
  if (paths == record.end() || !paths->is_array() || paths->empty()) return "";
  const Json& path = paths->back();
  if (!path.is_array() || path.empty() || !path.back().is_string()) return "";
  return path.back();
}

// A Python string from behind its opening quote; `i` moves behind the closing one. \xHH is a byte, as Python 2 writes
// text that it holds as UTF-8, or a code point, as it writes u'...'.
std::string ReadString(std::string_view text, char quote, bool x_is_byte, size_t& i) {
  std::string out;
  while (i < text.size() && text[i] != quote) {
    const char c = text[i++];
    if (c != '\\' || i == text.size()) {
      out.push_back(c);
      continue;
    }
    const char escaped = text[i++];
    const size_t digits = escaped == 'x' ? 2 : escaped == 'u' ? 4 : escaped == 'U' ? 8 : 0;
    uint32_t code = 0;
    if (digits > 0 && absl::SimpleHexAtoi(std::string(text.substr(i, digits)), &code) && code <= 0x10FFFF) {
      i += std::min(digits, text.size() - i);
      if (escaped == 'x' && x_is_byte) {
        out.push_back(static_cast<char>(code));
      } else {
        AppendUtf8(code, out);
      }
      continue;
    }
    constexpr std::string_view kEscaped = "abfnrtv", kMeant = "\a\b\f\n\r\t\v";
    const size_t at = kEscaped.find(escaped);
    if (at != std::string_view::npos) {
      out.push_back(kMeant[at]);
    } else if (escaped == '\\' || escaped == '\'' || escaped == '"') {
      out.push_back(escaped);
    } else {  // as Python: what is no escape stays as it is
      out.push_back('\\');
      out.push_back(escaped);
    }
  }
  if (i < text.size()) ++i;
  return out;
}

// A Python string from its opening quote on, as a JSON string; returns where it ends.
size_t ConvertString(std::string_view text, size_t begin, std::string& out) {
  size_t end = begin + 1;
  std::string value = ReadString(text, text[begin], /*x_is_byte=*/true, end);
  if (!IsUtf8(value)) {
    end = begin + 1;
    value = ReadString(text, text[begin], /*x_is_byte=*/false, end);
  }
  out += Json(value).dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  return end;
}

// A record of either file; discarded when it is none.
Json Parse(std::string_view line) {
  Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (record.is_discarded()) record = Json::parse(PythonLiteralToJson(line), nullptr, /*allow_exceptions=*/false);
  return record;
}

}  // namespace

std::string PythonLiteralToJson(std::string_view text) {
  constexpr std::pair<std::string_view, std::string_view> kWords[] = {
      {"True", "true"}, {"False", "false"}, {"None", "null"}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == 'u' && i + 1 < text.size() && (text[i + 1] == '\'' || text[i + 1] == '"')) ++i;  // u'...'
    if (text[i] == '\'' || text[i] == '"') {
      i = ConvertString(text, i, out);
      continue;
    }
    bool is_word = false;
    for (const auto& [python, json] : kWords) {
      if (!text.substr(i).starts_with(python)) continue;
      out += json;
      i += python.size();
      is_word = true;
      break;
    }
    if (!is_word) out.push_back(text[i++]);
  }
  return out;
}

bool LooksLikeAmazon(const std::string& directory) { return !FilesThatBegin(directory, "reviews_").empty(); }

absl::StatusOr<Dataset> ReadAmazon(const std::string& directory, ReadReport& report, Progress& progress) {
  DIN_ASSIGN_OR_RETURN(LineReader meta, OpenOnly(directory, "meta_"));
  DIN_ASSIGN_OR_RETURN(LineReader reviews, OpenOnly(directory, "reviews_"));
  DatasetBuilder builder;
  DIN_RETURN_IF_ERROR(ForEachLine(
      meta,
      [&](std::string_view line) -> std::string {
        const Json record = Parse(line);
        if (!record.is_object()) return "neither JSON nor a Python dict";
        const std::string* id = StringAt(record, "asin");
        if (id == nullptr || id->empty()) return "no asin";
        const std::string* title = StringAt(record, "title");
        builder.AddItem(*id, title == nullptr ? "" : *title, LastCategory(record));
        return "";
      },
      report, progress));
  DIN_RETURN_IF_ERROR(ForEachLine(
      reviews,
      [&](std::string_view line) -> std::string {
        const Json record = Parse(line);
        if (!record.is_object()) return "neither JSON nor a Python dict";
        const std::string* user = StringAt(record, "reviewerID");
        const std::string* item = StringAt(record, "asin");
        if (user == nullptr || user->empty()) return "no reviewerID";
        if (item == nullptr || item->empty()) return "no asin";
        const auto time = record.find("unixReviewTime");
        if (time == record.end() || !time->is_number_integer()) return "unixReviewTime is not an integer";
        const auto rating = record.find("overall");
        EventRow event{.user = *user, .item = *item, .time = time->get<int64_t>()};
        if (rating != record.end() && rating->is_number()) event.value = rating->get<float>();
        builder.AddItem(*item, "", "");
        builder.AddEvent(event);
        return "";
      },
      report, progress));
  absl::StatusOr<Dataset> data = std::move(builder).Build();
  if (data.ok()) report.events = data->events.size();
  return data;
}

}  // namespace din
