// The table of din-server's settings: their names, what they mean, and how text becomes a value. Whoever adds a setting
// adds a field to Config and a line to the table.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/config.h"

namespace din {

struct SettingValue {
  // Returns what is accepted when the text is not; the config is then unspecified.
  std::function<std::optional<std::string>(std::string_view text, Config& config)> set;
  // Text that `set` takes.
  std::function<std::string(const Config& config)> get;
};

struct Setting {
  const char* name;      // "max-candidates"
  const char* argument;  // as the help calls it: "N"
  const char* help;
  SettingValue value;
  bool repeatable = false;  // later values add to earlier ones of the same origin
};

struct SettingGroup {
  const char* title;
  std::vector<Setting> settings;
};

// In the order of the help. Any thread.
const std::vector<SettingGroup>& SettingGroups();
std::vector<const Setting*> AllSettings();
// Null when there is none of this name.
const Setting* FindSetting(std::string_view name);

// Text without white space at its ends, and text cut at each separator into at least one part.
std::string_view Stripped(std::string_view text);
std::vector<std::string_view> SplitAt(std::string_view text, char separator);

}  // namespace din
