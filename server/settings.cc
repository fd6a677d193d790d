#include "server/settings.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/units.h"

namespace din {
namespace {

template <typename Number>
std::optional<Number> ParseNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

SettingValue Text(std::string Config::*field) {
  return {[field](std::string_view text, Config& config) {
            config.*field = text;
            return std::optional<std::string>();
          },
          [field](const Config& config) { return config.*field; }};
}

SettingValue Count(uint64_t Config::*field, uint64_t least, uint64_t most) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<uint64_t> number = ParseNumber<uint64_t>(text);
            if (!number || *number < least || *number > most)
              return absl::StrCat("a number in [", least, ", ", most, "]");
            config.*field = *number;
            return std::nullopt;
          },
          [field](const Config& config) { return absl::StrCat(config.*field); }};
}

SettingValue Bytes(uint64_t Config::*field, uint64_t least, uint64_t most) {
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

SettingValue Duration(std::chrono::milliseconds Config::*field, std::chrono::milliseconds least,
                      std::chrono::milliseconds most) {
  return {[=](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<std::chrono::milliseconds> duration = ParseDuration(text);
            if (!duration || *duration < least || *duration > most) {
              return absl::StrCat("a duration (ms, s, m, h) in [", FormatDuration(least), ", ", FormatDuration(most),
                                  "]");
            }
            config.*field = *duration;
            return std::nullopt;
          },
          [field](const Config& config) { return FormatDuration(config.*field); }};
}

template <typename Enum>
SettingValue Choice(Enum Config::*field, std::vector<std::pair<std::string_view, Enum>> choices) {
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

// "none" is whatever the default has: no bound.
SettingValue DriftBound(double DriftBounds::*field) {
  return {[field](std::string_view text, Config& config) -> std::optional<std::string> {
            const std::optional<double> number = ParseNumber<double>(text);
            if (text != "none" && !(number && *number >= -1 && *number <= 1)) return "none, or a number in [-1, 1]";
            config.drift.*field = text == "none" ? DriftBounds().*field : *number;
            return std::nullopt;
          },
          [field](const Config& config) {
            return config.drift.*field == DriftBounds().*field ? "none" : absl::StrCat(config.drift.*field);
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

SettingValue Addresses() {
  return {[](std::string_view text, Config& config) -> std::optional<std::string> {
            for (const std::string_view part : SplitAt(text, ',')) {
              const std::string address(Stripped(part));
              if (!IsAddress(address)) return "host:port, [ipv6]:port or unix:path, several with commas";
              config.listen.push_back(address);
            }
            return std::nullopt;
          },
          [](const Config& config) { return absl::StrJoin(config.listen, ","); }};
}

SettingValue InstructionSetValue() {
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

SettingValue Threads() {
  SettingValue value = Count(&Config::threads, 1, 1024);
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

}  // namespace

std::string_view Stripped(std::string_view text) {
  const absl::string_view stripped = absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size()));
  return {stripped.data(), stripped.size()};
}

// At least one part.
std::vector<std::string_view> SplitAt(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != std::string_view::npos; text.remove_prefix(end + 1)) {
    parts.push_back(text.substr(0, end));
  }
  parts.push_back(text);
  return parts;
}

const std::vector<SettingGroup>& SettingGroups() {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  static const auto* const groups = new std::vector<SettingGroup>{
      {"Models",
       {{"model-root", "DIR", "directory of the models: <DIR>/<model>/<version>/; required", Text(&Config::model_root)},
        {"poll-interval", "DURATION", "how often the root is searched for new versions",
         Duration(&Config::poll_interval, milliseconds(10), hours(1))},
        {"drift-largest", "CHANGE",
         "refuse a version of which a golden case's score differs from the live one's by more, or which has no golden "
         "cases; none, or a number",
         DriftBound(&DriftBounds::largest_change)},
        {"drift-mean", "CHANGE", "the same for the mean change of all golden scores",
         DriftBound(&DriftBounds::mean_change)},
        {"drift-rank", "RHO", "refuse one that ranks the golden cases' candidates with less rank correlation",
         DriftBound(&DriftBounds::rank_correlation)},
        {"keep", "N", "previous versions of a model that stay in memory for a rollback; dropped when a load needs room",
         Count(&Config::keep, 0, 16)},
        {"memory-limit", "BYTES",
         "of this process, besides what cgroup and machine allow; a load that would pass it is refused; 0: none",
         Bytes(&Config::memory_limit, 0, uint64_t{1} << 50)},
        {"spare-memory", "yes|no",
         "keep the memory of a version that is gone for the next one of about its size, so that loads touch no new "
         "pages; up to twice the largest version's, given back when a load needs the room",
         Choice<bool>(&Config::spare_memory, {{"no", false}, {"yes", true}})},
        {"load-rate", "BYTES", "most that a load reads from disk in a second; 0: no limit",
         Bytes(&Config::load_rate, 0, uint64_t{1} << 40)},
        {"load-patience", "DURATION",
         "after so long with less than a tenth of a core, a load goes from the idle priority to nice 19; after as long "
         "again, to nice 10",
         Duration(&Config::load_patience, milliseconds(0), hours(1))},
        {"state-dir", "DIR", "where pins, labels, rollbacks and the last good versions survive a restart",
         Text(&Config::state_dir)},
        {"ready-when", "WHEN",
         "when health turns SERVING, and then stays so: when all models are live (a refused one holds it back, an "
         "unloaded one does not), when any is, or always",
         Choice<ReadyWhen>(&Config::ready_when,
                           {{"all", ReadyWhen::kAll}, {"any", ReadyWhen::kAny}, {"always", ReadyWhen::kAlways}})},
        {"allow-unverified", "yes|no", "serve versions that have no golden scores to reproduce",
         Choice<bool>(&Config::allow_unverified, {{"no", false}, {"yes", true}})},
        {"instruction-set", "NAME", "vector instructions of the kernels: best, baseline, avx2, avx512",
         InstructionSetValue()},
        {"precision", "NAME",
         "of scoring pairs of candidate and behaviour: model (what its spec says, else the fastest exact one), fp32, "
         "fp32-split, bf16 (where the "
         "spec "
         "has a tolerance)",
         Choice<std::optional<Precision>>(&Config::precision, {{"model", std::nullopt},
                                                               {"fp32", Precision::kFp32},
                                                               {"fp32-split", Precision::kFp32Split},
                                                               {"bf16", Precision::kBf16}})}}},
      {"Network",
       {{"listen", "ADDRESS", "host:port, [ipv6]:port or unix:path; port 0 is any free one; repeat, or use commas",
         Addresses(), true},
        {"admin-listen", "ADDRESS",
         "for dinctl pin, rollback, …: unix:path (mode 0600), or host:port with the three files below; empty: "
         "admin.sock in state-dir",
         Text(&Config::admin_listen)},
        {"admin-tls-cert", "FILE", "PEM certificate of the admin listener on TCP", Text(&Config::admin_tls_cert)},
        {"admin-tls-key", "FILE", "its PEM key", Text(&Config::admin_tls_key)},
        {"admin-tls-client-ca", "FILE", "PEM certificates of those who sign operators' certificates",
         Text(&Config::admin_tls_client_ca)},
        {"port-file", "FILE", "write the ports of the TCP listeners there, one a line, when ready to answer",
         Text(&Config::port_file)}}},
      {"Load",
       {{"threads", "N", "scoring threads; cores: one per core that affinity and CPU quota leave", Threads()},
        {"queue", "N", "requests that may wait for a thread; beyond it RESOURCE_EXHAUSTED",
         Count(&Config::queue, 1, 1u << 20)},
        {"share-requests", "WHETHER", "a large request is shared by threads that have nothing else to do: on, off",
         Choice<bool>(&Config::share_requests, {{"on", true}, {"off", false}})},
        {"pin-threads", "WHETHER",
         "each scoring thread stays on a core of its own: shared requests are faster where nothing else wants these "
         "cores: on, off",
         Choice<bool>(&Config::pin_threads, {{"on", true}, {"off", false}})}}},
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
  for (const SettingGroup& group : SettingGroups()) {
    for (const Setting& setting : group.settings) all.push_back(&setting);
  }
  return all;
}

const Setting* FindSetting(std::string_view name) {
  const std::vector<const Setting*> all = AllSettings();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Setting* s) { return s->name == name; });
  return it == all.end() ? nullptr : *it;
}

}  // namespace din
