// A din-server of our own, and what it logs about its models.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace din::swap {

struct ModelEvent {
  enum class Kind { kLoading, kLive, kRefused, kRetired };
  Kind kind = Kind::kLoading;
  int64_t at_ns = 0;  // on load::NowNs()'s clock; the log has milliseconds
  std::string model;
  int64_t version = 0;
  std::string reason;  // of kRefused
};
const char* Name(ModelEvent::Kind);

// None when the line is about something else. `wall_to_monotonic_ns` is added to the line's wall-clock time.
absl::StatusOr<ModelEvent> ParseLogLine(const std::string& line, int64_t wall_to_monotonic_ns);

// What the machine did to the threads that score, since they began.
struct Strain {
  int64_t at_ns = 0;  // on load::NowNs()'s clock
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
  uint64_t shootdowns = 0;  // of TLBs, of the whole machine: the kernel counts no threads there
  double stolen = 0;        // core-seconds that a hypervisor took of the whole machine, in ticks of 10 ms
};
Strain ReadStrain(pid_t server);

// The most that the process has had in memory, in bytes; 0 when it is gone.
int64_t ReadPeakBytes(pid_t server);

// Stopped, and if need be killed, at the end. One thread.
class ServerProcess {
 public:
  // `arguments` begin with the program. Standard error goes to `log`.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const std::vector<std::string>& arguments,
                                                              const std::string& log);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  // As a crash does, and returns when it is gone.
  void Kill();
  // What happened since the last call.
  std::vector<ModelEvent> TakeEvents();

 private:
  ServerProcess(pid_t pid, std::string log) : pid_(pid), log_(std::move(log)) {}

  pid_t pid_;
  bool gone_ = false;
  const std::string log_;
  size_t read_ = 0;  // bytes of the log
};

}  // namespace din::swap
