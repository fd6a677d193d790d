// What the server tells its operator: one line per event on stderr, for people (logfmt) or machines (JSON).
#pragma once

#include <concepts>
#include <cstdio>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace din {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// "debug", "info", "warning", "error".
std::string_view Name(LogLevel level);

struct LogField {
  LogField(std::string_view name, std::string_view value) : name(name), value(value), is_number(false) {}
  LogField(std::string_view name, const char* value) : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, const std::string& value) : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, bool value) : name(name), value(value ? "true" : "false"), is_number(true) {}
  template <typename Number>
  requires std::integral<Number> || std::floating_point<Number> LogField(std::string_view name, Number value)
      : name(name), value(absl::StrCat(value)), is_number(true) {}

  std::string_view name;
  std::string value;
  bool is_number;  // or a truth value: never quoted
};

// Any thread. A line is written whole. Not for the hot path: it formats, and it waits for the stream.
class Logger {
 public:
  struct Options {
    LogLevel level = LogLevel::kInfo;  // and above
    LogFormat format = LogFormat::kText;
    std::FILE* stream = stderr;  // borrowed
  };

  explicit Logger(const Options& options) : options_(options) {}

  using Fields = std::initializer_list<LogField>;
  // `event` is a fixed phrase that can be searched for; what varies goes into the fields.
  void Log(LogLevel level, std::string_view event, Fields fields);
  void Debug(std::string_view event, Fields fields = {}) { Log(LogLevel::kDebug, event, fields); }
  void Info(std::string_view event, Fields fields = {}) { Log(LogLevel::kInfo, event, fields); }
  void Warning(std::string_view event, Fields fields = {}) { Log(LogLevel::kWarning, event, fields); }
  void Error(std::string_view event, Fields fields = {}) { Log(LogLevel::kError, event, fields); }

 private:
  const Options options_;
  std::mutex mutex_;
};

// One line without its end; `time` as it shall be printed.
std::string FormatLogLine(LogFormat format, std::string_view time, LogLevel level, std::string_view event,
                          Logger::Fields fields);

}  // namespace din
