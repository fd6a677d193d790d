// Every setting of din-server, said once: flags, environment and file all go through one table.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/instruction_set.h"
#include "kernels/precision.h"
#include "model_loader/drift.h"
#include "server/log.h"
#include "server/request_limits.h"

namespace din {

// When the server calls itself ready (health of "" and "din.v1.ScoringService").
enum class ReadyWhen {
  kAll,     // every model in the root has a live version, and there is one
  kAny,     // some model has a live version
  kAlways,  // as soon as it listens
};

struct Config {
  std::string model_root;
  std::vector<std::string> listen = {"127.0.0.1:8500"};
  std::string port_file;  // empty: none
  uint64_t threads = 0;   // 0: as many as usable cores
  uint64_t queue = 256;
  bool share_requests = true;
  bool pin_threads = false;
  uint64_t max_request_bytes = 4u << 20;
  uint64_t max_candidates = 4096;
  uint64_t max_behaviours = 16384;
  uint64_t max_list_ids = 65536;
  uint64_t max_explained = 64;
  std::chrono::milliseconds poll_interval{1000};
  bool allow_unverified = false;
  DriftBounds drift;
  uint64_t keep = 1;
  uint64_t memory_limit = 0;  // bytes of this process; 0: only what cgroup and machine allow
  bool spare_memory = true;
  uint64_t load_rate = 0;     // bytes a second; 0: as fast as it goes
  std::chrono::milliseconds load_patience{5000};
  std::string state_dir;     // empty: none
  std::string admin_listen;  // empty: the socket admin.sock in state_dir
  std::string admin_tls_cert;
  std::string admin_tls_key;
  std::string admin_tls_client_ca;
  std::optional<InstructionSet> instruction_set;  // none: the best that the CPU has
  std::optional<Precision> precision;             // none: what each model's spec says
  ReadyWhen ready_when = ReadyWhen::kAll;
  std::chrono::milliseconds drain_delay{2000};
  std::chrono::milliseconds drain_timeout{10'000};
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;

  RequestLimits limits() const;
};

// What a command line asks for.
struct Invocation {
  enum class Action { kServe, kHelp, kVersion, kCheckConfig };
  Action action = Action::kServe;
  Config config;
  // One per setting, in the table's order: for --check-config.
  struct Effective {
    std::string_view name;
    std::string value;
    std::string origin;  // "default", "file din.conf:3", "environment DIN_SERVER_QUEUE", "flag"
  };
  std::vector<Effective> effective;
};

// Precedence: flag > environment (DIN_SERVER_<NAME>) > file (--config) > default. `arguments` without the program's
// name; `environment` as `environ` has it. INVALID_ARGUMENT names the setting, where it stands, the value and what is
// accepted; for an unknown name the nearest one.
absl::StatusOr<Invocation> ParseInvocation(std::span<const char* const> arguments,
                                           std::span<const char* const> environment);

// The text of --help: settings by group, with units and defaults.
std::string HelpText();
// The text of --check-config.
std::string EffectiveConfigText(const Invocation& invocation);

}  // namespace din
