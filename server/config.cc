#include "server/config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"
#include "server/nearest_name.h"
#include "server/settings.h"

namespace din {
namespace {

struct Given {
  std::string text;
  std::string origin;
};
using Values = std::map<std::string_view, std::vector<Given>>;  // by setting, of one kind of origin

// The flags that are no settings.
constexpr std::string_view kConfig = "config";
constexpr std::string_view kHelp = "help";
constexpr std::string_view kVersion = "version";
constexpr std::string_view kCheckConfig = "check-config";

std::vector<std::string_view> SettingNames() {
  std::vector<std::string_view> names;
  for (const Setting* setting : AllSettings()) names.push_back(setting->name);
  return names;
}

struct Flags {
  Invocation::Action action = Invocation::Action::kServe;
  std::optional<std::string> config_file;
  Values values;
};

bool IsSwitch(std::string_view name, Invocation::Action& action) {
  if (name == kHelp)
    action = Invocation::Action::kHelp;
  else if (name == kVersion)
    action = Invocation::Action::kVersion;
  else if (name == kCheckConfig)
    action = Invocation::Action::kCheckConfig;
  else
    return false;
  return true;
}

absl::Status UnknownFlag(std::string_view argument, std::string_view name) {
  std::vector<std::string_view> names = SettingNames();
  names.insert(names.end(), {kConfig, kHelp, kVersion, kCheckConfig});
  return absl::InvalidArgumentError(absl::StrCat("flag ", Quote(argument), ": unknown", DidYouMean(name, names)));
}

absl::StatusOr<Flags> ParseFlags(std::span<const char* const> arguments) {
  Flags flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "-h") {
      flags.action = Invocation::Action::kHelp;
      continue;
    }
    if (!argument.starts_with("--")) {
      return absl::InvalidArgumentError(absl::StrCat("argument ", Quote(argument), ": expected a flag, --name value"));
    }
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(2, equals == std::string_view::npos ? equals : equals - 2);
    if (IsSwitch(name, flags.action)) {
      if (equals == std::string_view::npos) continue;
      return absl::InvalidArgumentError(absl::StrCat("flag ", Quote(argument), ": takes no value"));
    }
    const Setting* setting = FindSetting(name);
    if (setting == nullptr && name != kConfig) return UnknownFlag(argument, name);
    std::string value;
    if (equals != std::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (++i < arguments.size()) {
      value = arguments[i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("flag ", Quote(argument), ": needs a value"));
    }
    if (setting == nullptr) {
      flags.config_file = std::move(value);
    } else {
      flags.values[setting->name].push_back({std::move(value), "flag"});
    }
  }
  return flags;
}

// Kubernetes gives every pod variables for the services of its namespace; for one called din-server they are
// DIN_SERVER_SERVICE_HOST, DIN_SERVER_PORT, DIN_SERVER_PORT_8500_TCP and more of the kind.
bool IsServiceLink(std::string_view name) {
  return name == "SERVICE_HOST" || name.starts_with("SERVICE_PORT") || name == "PORT" ||
         (name.starts_with("PORT_") && name.size() > 5 && absl::ascii_isdigit(static_cast<unsigned char>(name[5])));
}

struct Environment {
  std::optional<std::string> config_file;
  Values values;
};

absl::StatusOr<Environment> ParseEnvironment(std::span<const char* const> environment) {
  constexpr std::string_view kPrefix = "DIN_SERVER_";
  Environment out;
  for (const std::string_view entry : environment) {
    const size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    const std::string variable(entry.substr(0, equals));
    const std::string_view suffix = std::string_view(variable).substr(kPrefix.size());
    if (IsServiceLink(suffix)) continue;
    std::string name = absl::AsciiStrToLower(absl::string_view(suffix.data(), suffix.size()));
    std::replace(name.begin(), name.end(), '_', '-');
    const std::string value(entry.substr(equals + 1));
    if (name == kConfig) {
      out.config_file = value;
    } else if (const Setting* setting = FindSetting(name)) {
      out.values[setting->name].push_back({value, absl::StrCat("environment ", variable)});
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("environment variable ", variable, ": unknown", DidYouMean(name, SettingNames())));
    }
  }
  return out;
}

absl::StatusOr<Values> ParseFile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return absl::InvalidArgumentError(absl::StrCat("config file ", path, ": ", std::strerror(errno)));
  Values values;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    const std::string where = absl::StrCat(path, ":", ++number);
    const std::string_view content = Stripped(SplitAt(line, '#').front());
    if (content.empty()) continue;
    const size_t equals = content.find('=');
    if (equals == std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": expected key = value"));
    }
    const std::string name(Stripped(content.substr(0, equals)));
    const Setting* setting = FindSetting(name);
    if (setting == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", Quote(name), " is unknown", DidYouMean(name, SettingNames())));
    }
    std::vector<Given>& given = values[setting->name];
    if (!given.empty() && !setting->repeatable) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", name, " stands there twice"));
    }
    given.push_back({std::string(Stripped(content.substr(equals + 1))), absl::StrCat("file ", where)});
  }
  return values;
}

// Sets one setting from the first origin that gives it. Returns where it came from.
absl::StatusOr<std::string> Apply(const Setting& setting, std::initializer_list<const Values*> by_precedence,
                                  Config& config) {
  for (const Values* values : by_precedence) {
    const auto it = values->find(setting.name);
    if (it == values->end()) continue;
    std::span<const Given> given = it->second;
    if (setting.repeatable) {
      config.listen.clear();  // the only repeatable setting; a default is replaced, not added to
    } else {
      given = given.last(1);  // of a flag that is repeated, so that a script's flags can be overridden
    }
    for (const Given& one : given) {
      if (const std::optional<std::string> accepted = setting.value.set(one.text, config)) {
        return absl::InvalidArgumentError(
            absl::StrCat(setting.name, " (", one.origin, "): ", Quote(one.text), ", expected ", *accepted));
      }
    }
    return given.back().origin;
  }
  return std::string("default");
}

}  // namespace

RequestLimits Config::limits() const {
  return {.input = {.candidates = max_candidates, .behaviours = max_behaviours, .list_ids = max_list_ids},
          .explained = max_explained};
}

absl::StatusOr<Invocation> ParseInvocation(std::span<const char* const> arguments,
                                           std::span<const char* const> environment) {
  DIN_ASSIGN_OR_RETURN(const Flags flags, ParseFlags(arguments));
  Invocation invocation;
  invocation.action = flags.action;
  if (flags.action == Invocation::Action::kHelp || flags.action == Invocation::Action::kVersion) return invocation;

  DIN_ASSIGN_OR_RETURN(const Environment from_environment, ParseEnvironment(environment));
  const std::optional<std::string>& path = flags.config_file ? flags.config_file : from_environment.config_file;
  Values from_file;
  if (path) {
    DIN_ASSIGN_OR_RETURN(from_file, ParseFile(*path));
  }
  for (const Setting* setting : AllSettings()) {
    DIN_ASSIGN_OR_RETURN(std::string origin,
                         Apply(*setting, {&flags.values, &from_environment.values, &from_file}, invocation.config));
    invocation.effective.push_back({setting->name, setting->value.get(invocation.config), std::move(origin)});
  }
  if (invocation.config.model_root.empty()) {
    return absl::InvalidArgumentError("model-root: not set; --model-root DIR, DIN_SERVER_MODEL_ROOT, or a config file");
  }
  return invocation;
}

std::string HelpText() {
  std::string out =
      "din-server: scores candidates with DIN models over gRPC (din.v1.ScoringService).\n"
      "\n"
      "  din-server --model-root DIR [--listen HOST:PORT] ...\n"
      "\n"
      "Every setting can be given as a flag (--queue 64), in the environment (DIN_SERVER_QUEUE=64) and in a file of\n"
      "lines `queue = 64  # comment`, in this order of precedence.\n";
  const Config defaults;
  for (const SettingGroup& group : SettingGroups()) {
    absl::StrAppend(&out, "\n", group.title, "\n");
    for (const Setting& setting : group.settings) {
      const std::string flag = absl::StrCat("--", setting.name, " ", setting.argument);
      const std::string value = setting.value.get(defaults);
      absl::StrAppendFormat(&out, "  %-28s %s%s\n", flag, setting.help,
                            value.empty() ? "" : absl::StrCat(" [", value, "]"));
    }
  }
  return out +
         "\n"
         "Other\n"
         "  --config FILE                read settings from a file (also DIN_SERVER_CONFIG)\n"
         "  --check-config               print every setting and where it comes from, then exit\n"
         "  --version                    print the version\n"
         "  -h, --help                   print this\n"
         "\n"
         "Exit codes: 0 stopped by a signal with every request answered, or nothing to do; 1 could not start, or\n"
         "requests were cut off after --drain-timeout; 2 wrong usage or configuration.\n";
}

std::string EffectiveConfigText(const Invocation& invocation) {
  std::string out;
  for (const Invocation::Effective& setting : invocation.effective) {
    absl::StrAppendFormat(&out, "%-20s %-24s %s\n", setting.name, setting.value.empty() ? "-" : setting.value,
                          setting.origin);
  }
  return out;
}

}  // namespace din
