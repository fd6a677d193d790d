#include "bench/swap/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "bench/load/clock.h"
#include "nlohmann/json.hpp"

namespace din::swap {
namespace {

std::optional<ModelEvent::Kind> KindOf(std::string_view event) {
  if (event == "model loading") return ModelEvent::Kind::kLoading;
  if (event == "model live") return ModelEvent::Kind::kLive;
  if (event == "model refused") return ModelEvent::Kind::kRefused;
  if (event == "model retired") return ModelEvent::Kind::kRetired;
  return std::nullopt;
}

int64_t WallToMonotonic() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return load::NowNs() - std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count();
}

}  // namespace

const char* Name(ModelEvent::Kind kind) {
  switch (kind) {
    case ModelEvent::Kind::kLoading:
      return "loading";
    case ModelEvent::Kind::kLive:
      return "live";
    case ModelEvent::Kind::kRefused:
      return "refused";
    case ModelEvent::Kind::kRetired:
      return "retired";
  }
  return "?";
}

absl::StatusOr<ModelEvent> ParseLogLine(const std::string& line, int64_t wall_to_monotonic_ns) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const std::optional<ModelEvent::Kind> kind = KindOf(json.value("event", ""));
  absl::Time time;
  std::string error;
  if (!kind) return absl::NotFoundError("about something else");
  if (!absl::ParseTime(absl::RFC3339_full, json.value("time", ""), &time, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("time: ", error));
  }
  return ModelEvent{.kind = *kind,
                    .at_ns = absl::ToUnixNanos(time) + wall_to_monotonic_ns,
                    .model = json.value("model", ""),
                    .version = json.value("version", int64_t{0}),
                    .reason = json.value("reason", "")};
}

Strain ReadStrain(pid_t server) {
  Strain strain{.at_ns = load::NowNs()};
  std::error_code gone;
  for (const auto& thread : std::filesystem::directory_iterator(absl::StrCat("/proc/", server, "/task"), gone)) {
    std::ifstream file(thread.path() / "stat");
    std::string line;
    if (!std::getline(file, line) || line.find("(score-") == std::string::npos) continue;
    // proc(5): faults are fields 10 and 12, counted from the state behind the name, which is field 3.
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    std::string skipped;
    for (int field = 3; field < 10; ++field) fields >> skipped;
    uint64_t minor = 0, major = 0;
    fields >> minor >> skipped >> major;
    strain.minor_faults += minor;
    strain.major_faults += major;
  }
  std::ifstream interrupts("/proc/interrupts");
  for (std::string line; std::getline(interrupts, line);) {
    std::istringstream fields(line);
    std::string name;
    fields >> name;
    if (name != "TLB:") continue;
    for (uint64_t of_core; fields >> of_core;) strain.shootdowns += of_core;
  }
  // proc(5): "cpu" and the sums of all cores; the eighth is stolen time.
  std::ifstream times("/proc/stat");
  std::string skipped;
  for (int field = 0; field < 8; ++field) times >> skipped;
  times >> strain.stolen;
  strain.stolen /= static_cast<double>(sysconf(_SC_CLK_TCK));
  return strain;
}

int64_t ReadPeakBytes(pid_t server) {
  std::ifstream status(absl::StrCat("/proc/", server, "/status"));
  for (std::string key; status >> key;) {
    int64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const std::vector<std::string>& arguments,
                                                                    const std::string& log) {
  std::vector<std::string> copies = arguments;
  std::vector<char*> pointers;
  for (std::string& argument : copies) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::NotFoundError(absl::StrCat(arguments[0], ": ", std::strerror(error)));
  return std::unique_ptr<ServerProcess>(new ServerProcess(pid, log));
}

ServerProcess::~ServerProcess() {
  if (running()) kill(pid_, SIGINT);
  for (int tries = 0; tries < 200 && running(); ++tries) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Kill();
}

void ServerProcess::Kill() {
  if (!running()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  gone_ = true;
}

bool ServerProcess::running() {
  if (!gone_) gone_ = waitpid(pid_, nullptr, WNOHANG) == pid_;
  return !gone_;
}

std::vector<ModelEvent> ServerProcess::TakeEvents() {
  std::ifstream file(log_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(read_));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<ModelEvent> events;
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    absl::StatusOr<ModelEvent> event = ParseLogLine(text.substr(begin, end - begin), WallToMonotonic());
    if (event.ok()) events.push_back(*std::move(event));
  }
  read_ += begin;
  return events;
}

}  // namespace din::swap
