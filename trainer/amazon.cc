#include "trainer/amazon.h"

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

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

// Text as proto and JSON want it: no byte that is not UTF-8 gets past the parser, so it is clean already.
std::string LastCategory(const Json& record) {
  const auto paths = record.find("categories");
  if (paths == record.end() || !paths->is_array() || paths->empty()) return "";
  const Json& path = paths->front();
  if (!path.is_array() || path.empty() || !path.back().is_string()) return "";
  return path.back();
}

// Appends the code point as UTF-8.
void AppendUtf8(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xE0 | c >> 12));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

// A Python string from its opening quote on, as a JSON string; returns where it ends.
size_t ConvertString(std::string_view text, size_t i, std::string& out) {
  const char quote = text[i++];
  out.push_back('"');
  for (; i < text.size() && text[i] != quote; ++i) {
    char c = text[i];
    if (c == '"') {
      out += "\\\"";
    } else if (c != '\\') {
      out.push_back(c);
    } else if (++i < text.size()) {
      c = text[i];
      if (c == 'x' && i + 2 < text.size()) {  // \xe9 is U+00E9
        AppendUtf8(static_cast<uint32_t>(std::strtoul(std::string(text.substr(i + 1, 2)).c_str(), nullptr, 16)), out);
        i += 2;
      } else if (c == '\'') {
        out.push_back(c);
      } else {
        out.push_back('\\');
        out.push_back(c);
      }
    }
  }
  out.push_back('"');
  return i + 1;
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
  const auto parse = [](std::string_view text) { return Json::parse(text, nullptr, /*allow_exceptions=*/false); };
  DIN_RETURN_IF_ERROR(ForEachLine(
      meta,
      [&](std::string_view line) -> std::string {
        Json record = parse(line);
        if (record.is_discarded()) record = parse(PythonLiteralToJson(line));
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
        const Json record = parse(line);
        if (!record.is_object()) return "not a JSON object";
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
