#include "server/config.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"
#include "server/nearest_name.h"

namespace din {
namespace {

// --- The table -------------------------------------------------------------------------------------------------------

// How a setting's text becomes its value and back. `set` returns what is accepted when the text is not.
struct Value {
  std::function<std::optional<std::string>(std::string_view text, Config& config)> set;
  std::function<std::string(const Config& config)> get;
};

struct Setting {
  const char* name;
  const char* argument;
  const char* help;
  Value value;
  bool repeatable = false;  // later values add to earlier ones of the same origin
};

struct Group {
  const char* title;
  std::vector<Setting> settings;
};

template <typename Number>
std::optional<Number> ParseNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// A number and what follows it, e.g. "200ms".
std::optional<std::pair<uint64_t, std::string_view>> SplitUnit(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::optional<uint64_t> number = ParseNumber<uint64_t>(text.substr(0, digits));
  if (!number) return std::nullopt;
  return std::pair(*number, text.substr(digits));
}

struct Unit {
  std::string_view name;
  uint64_t factor;
};
constexpr Unit kDurations[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
constexpr Unit kSizes[] = {{"", 1}, {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}};

std::optional<uint64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units) {
  const auto split = SplitUnit(text);
  if (!split) return std::nullopt;
  for (const Unit& unit : units) {
    if (unit.name != split->second) continue;
    if (split->first > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / unit.factor) return std::nullopt;
    return split->first * unit.factor;
  }
  return std::nullopt;
}

// In the largest unit that divides it.
std::string FormatWithUnit(uint64_t number, std::span<const Unit> units) {
  const Unit* best = &units[0];
  for (const Unit& unit : units) {
    if (number != 0 && number % unit.factor == 0) best = &unit;
  }
  return absl::StrCat(number / best->factor, std::string(best->name));
}

Value Text(std::string Config::*field) {
  return {[field](std::string_view text, Config& config) {
            config.*field = text;
            return std::optional<std::string>();
          },
          [field](const Config& config) { return config.*field; }};
}

Value Count(uint64_t Config::*field, uint64_t least, uint64_t most) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<uint64_t> number = ParseNumber<uint64_t>(text);
            if (!number || *number < least || *number > most) return absl::StrCat("a number in [", least, ", ", most, "]");
            config.*field = *number;
            return std::nullopt;
          },
          [field](const Config& config) { return absl::StrCat(config.*field); }};
}

Value Bytes(uint64_t Config::*field, uint64_t least, uint64_t most) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<uint64_t> bytes = ParseBytes(text);
            if (!bytes || *bytes < least || *bytes > most) {
              return absl::StrCat("bytes, KiB, MiB or GiB in [", FormatBytes(least), ", ", FormatBytes(most), "]");
            }
            config.*field = *bytes;
            return std::nullopt;
          },
          [field](const Config& config) { return FormatBytes(config.*field); }};
}

Value Duration(std::chrono::milliseconds Config::*field, std::chrono::milliseconds least,
               std::chrono::milliseconds most) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<std::chrono::milliseconds> duration = ParseDuration(text);
            if (!duration || *duration < least || *duration > most) {
              return absl::StrCat("a duration (ms, s, m, h) in [", FormatDuration(least), ", ", FormatDuration(most), "]");
            }
            config.*field = *duration;
            return std::nullopt;
          },
          [field](const Config& config) { return FormatDuration(config.*field); }};
}

template <typename Enum>
Value Choice(Enum Config::*field, std::vector<std::pair<std::string_view, Enum>> choices) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            std::vector<std::string> names;
            for (const auto& [name, value] : choices) {
              names.emplace_back(name);
              if (name != text) continue;
              config.*field = value;
              return std::nullopt;
            }
            return absl::StrCat("one of ", absl::StrJoin(names, ", "));
          },
          [=](const Config& config) {
            for (const auto& [name, value] : choices) {
              if (value == config.*field) return std::string(name);
            }
            return std::string();
          }};
}

bool IsAddress(std::string_view text) {
  if (text.starts_with("unix:")) return text.size() > 5;
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const bool bare_ipv6 = text.find(':') != colon && !(text.front() == '[' && text[colon - 1] == ']');
  const std::optional<uint32_t> port = ParseNumber<uint32_t>(text.substr(colon + 1));
  return port && *port <= 65535 && !bare_ipv6;
}

Value Addresses() {
  return {[](std::string_view text, Config& config) -> std::optional<std::string> {
            for (const std::string& part : std::vector<std::string>(absl::StrSplit(absl::string_view(text.data(), text.size()), ','))) {
              const std::string address(absl::StripAsciiWhitespace(part));
              if (!IsAddress(address)) return "host:port, [ipv6]:port or unix:path, several with commas";
              config.listen.push_back(address);
            }
            return std::nullopt;
          },
          [](const Config& config) { return absl::StrJoin(config.listen, ","); }};
}

Value InstructionSetValue() {
  return {[](std::string_view text, Config& config) -> std::optional<std::string> {
            std::vector<std::string> names = {"best"};
            if (text == "best") {
              config.instruction_set = std::nullopt;
              return std::nullopt;
            }
            for (const InstructionSet isa : SupportedInstructionSets()) {
              names.emplace_back(Name(isa));
              if (text != names.back()) continue;
              config.instruction_set = isa;
              return std::nullopt;
            }
            return absl::StrCat("one of ", absl::StrJoin(names, ", "), " on this CPU");
          },
          [](const Config& config) {
            return std::string(config.instruction_set ? Name(*config.instruction_set) : "best");
          }};
}

Value Threads() {
  Value value = Count(&Config::threads, 1, 1024);
  return {[set = value.set](std::string_view text, Config& config) -> std::optional<std::string> {
            if (text == "cores") {
              config.threads = 0;
              return std::nullopt;
            }
            std::optional<std::string> accepted = set(text, config);
            if (accepted) *accepted += ", or cores";
            return accepted;
          },
          [](const Config& config) { return config.threads == 0 ? "cores" : absl::StrCat(config.threads); }};
}

const std::vector<Group>& Groups() {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  static const auto* const groups = new std::vector<Group>{
      {"Models",
       {{"model-root", "DIR", "directory of the models: <DIR>/<model>/<version>/; required", Text(&Config::model_root)},
        {"poll-interval", "DURATION", "how often the root is searched for new versions",
         Duration(&Config::poll_interval, milliseconds(10), hours(1))},
        {"ready-when", "WHEN", "health says SERVING once this many models are live: all, any, always",
         Choice<ReadyWhen>(&Config::ready_when,
                           {{"all", ReadyWhen::kAll}, {"any", ReadyWhen::kAny}, {"always", ReadyWhen::kAlways}})},
        {"instruction-set", "NAME", "vector instructions of the kernels: best, baseline, avx2, avx512",
         InstructionSetValue()}}},
      {"Network",
       {{"listen", "ADDRESS", "host:port, [ipv6]:port or unix:path; port 0 is any free one; repeat, or use commas",
         Addresses(), true},
        {"port-file", "FILE", "write the ports of the TCP listeners there, one a line, when ready to answer",
         Text(&Config::port_file)}}},
      {"Load",
       {{"threads", "N", "scoring threads; cores: one per core that affinity and CPU quota leave", Threads()},
        {"queue", "N", "requests that may wait for a thread; beyond it RESOURCE_EXHAUSTED",
         Count(&Config::queue, 1, 1u << 20)}}},
      {"Limits of one request (beyond them INVALID_ARGUMENT)",
       {{"max-request-bytes", "BYTES", "size of the message; beyond it RESOURCE_EXHAUSTED",
         Bytes(&Config::max_request_bytes, 1u << 10, 256u << 20)},
        {"max-candidates", "N", "candidates", Count(&Config::max_candidates, 1, 1u << 20)},
        {"max-behaviours", "N", "behaviours sent per sequence, before truncation",
         Count(&Config::max_behaviours, 1, 1u << 20)},
        {"max-list-ids", "N", "ids of one list column", Count(&Config::max_list_ids, 1, 1u << 24)},
        {"max-explained", "N", "candidates that one Explain explains", Count(&Config::max_explained, 1, 4096)}}},
      {"Shutdown (on SIGTERM; SIGINT skips the delay, a second signal skips what is being waited for)",
       {{"drain-delay", "DURATION", "go on answering after health said NOT_SERVING, until load balancers know",
         Duration(&Config::drain_delay, milliseconds(0), hours(1))},
        {"drain-timeout", "DURATION", "then wait at most this long for requests in flight",
         Duration(&Config::drain_timeout, milliseconds(0), hours(1))}}},
      {"Log (stderr)",
       {{"log-level", "LEVEL", "debug, info, warning, error",
         Choice<LogLevel>(&Config::log_level, {{"debug", LogLevel::kDebug},
                                               {"info", LogLevel::kInfo},
                                               {"warning", LogLevel::kWarning},
                                               {"error", LogLevel::kError}})},
        {"log-format", "FORMAT", "text (key=value), json",
         Choice<LogFormat>(&Config::log_format, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}})}}},
  };
  return *groups;
}

std::vector<const Setting*> AllSettings() {
  std::vector<const Setting*> all;
  for (const Group& group : Groups()) {
    for (const Setting& setting : group.settings) all.push_back(&setting);
  }
  return all;
}

const Setting* Find(std::string_view name) {
  const std::vector<const Setting*> all = AllSettings();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Setting* s) { return s->name == name; });
  return it == all.end() ? nullptr : *it;
}

// --- Where values come from ------------------------------------------------------------------------------------------

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
  if (name == kHelp) action = Invocation::Action::kHelp;
  else if (name == kVersion) action = Invocation::Action::kVersion;
  else if (name == kCheckConfig) action = Invocation::Action::kCheckConfig;
  else return false;
  return true;
}

absl::Status UnknownFlag(std::string_view argument, std::string_view name) {
  std::vector<std::string_view> names = SettingNames();
  names.insert(names.end(), {kConfig, kHelp, kVersion, kCheckConfig});
  return absl::InvalidArgumentError(
      absl::StrCat("flag ", Quote(argument), ": unknown", DidYouMean(name, names)));
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
    const Setting* setting = Find(name);
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
    } else if (const Setting* setting = Find(name)) {
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
  if (!in) return absl::InvalidArgumentError(absl::StrCat("config file ", path, ": cannot be read"));
  Values values;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    const std::string where = absl::StrCat(path, ":", ++number);
    const std::string_view text = line;
    const absl::string_view content = absl::StripAsciiWhitespace(absl::string_view(text.data(), text.find('#') == std::string_view::npos ? text.size() : text.find('#')));
    if (content.empty()) continue;
    const std::vector<std::string> parts = absl::StrSplit(content, absl::MaxSplits('=', 1));
    if (parts.size() != 2) return absl::InvalidArgumentError(absl::StrCat(where, ": expected key = value"));
    const std::string name(absl::StripAsciiWhitespace(parts[0]));
    const Setting* setting = Find(name);
    if (setting == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", Quote(name), " is unknown", DidYouMean(name, SettingNames())));
    }
    std::vector<Given>& given = values[setting->name];
    if (!given.empty() && !setting->repeatable) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", name, " stands there twice"));
    }
    given.push_back({std::string(absl::StripAsciiWhitespace(parts[1])), absl::StrCat("file ", where)});
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
  for (const Group& group : Groups()) {
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
         "Exit codes: 0 stopped by a signal with every request answered, or nothing to do; 1 could not start, or requests\n"
         "were cut off after --drain-timeout; 2 wrong usage or configuration.\n";
}

std::string EffectiveConfigText(const Invocation& invocation) {
  std::string out;
  for (const Invocation::Effective& setting : invocation.effective) {
    absl::StrAppendFormat(&out, "%-18s %-24s %s\n", setting.name, setting.value.empty() ? "-" : setting.value,
                          setting.origin);
  }
  return out;
}

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  const std::optional<uint64_t> ms = ParseWithUnit(text, kDurations);
  if (!ms) return std::nullopt;
  return std::chrono::milliseconds(static_cast<int64_t>(*ms));
}

std::optional<uint64_t> ParseBytes(std::string_view text) { return ParseWithUnit(text, kSizes); }

std::string FormatDuration(std::chrono::milliseconds duration) {
  return FormatWithUnit(static_cast<uint64_t>(duration.count()), kDurations);
}

std::string FormatBytes(uint64_t bytes) { return FormatWithUnit(bytes, kSizes); }

}  // namespace din
