#include "server/log.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "absl/strings/str_format.h"

namespace din {
namespace {

// RFC 3339, UTC, milliseconds.
std::string Now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = ms / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  return absl::StrFormat("%s.%03dZ", text, ms % 1000);
}

// A JSON string (RFC 8259); bytes beyond ASCII as they are. Control characters cannot reach a terminal.
std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

bool NeedsQuotes(std::string_view text) {
  return text.empty() || std::any_of(text.begin(), text.end(), [](unsigned char c) {
           return c <= 0x20 || c == 0x7f || c == '"' || c == '=' || c == '\\';
         });
}

}  // namespace

std::string_view Name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

std::string FormatLogLine(LogFormat format, std::string_view time, LogLevel level, std::string_view event,
                          Logger::Fields fields) {
  const bool json = format == LogFormat::kJson;
  std::string line;
  const auto add = [&](std::string_view name, std::string_view value, bool quote) {
    if (!line.empty()) line += json ? "," : " ";
    line += json ? Quoted(name) : std::string(name);
    line += json ? ":" : "=";
    line += quote ? Quoted(value) : std::string(value);
  };
  add("time", time, json);
  add("level", Name(level), json);
  add("event", event, true);
  for (const LogField& field : fields)
    add(field.name, field.value, !field.is_number && (json || NeedsQuotes(field.value)));
  return json ? "{" + line + "}" : line;
}

void Logger::Log(LogLevel level, std::string_view event, Fields fields) {
  if (level < options_.level) return;
  const std::string line = FormatLogLine(options_.format, Now(), level, event, fields) + "\n";
  std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), options_.stream);
  std::fflush(options_.stream);
}

}  // namespace din
