#include "tests/e2e/program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace din {
namespace {

int ExitCode(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

const char* const kServerProgram = DIN_SERVER_PROGRAM;
const char* const kDinctlProgram = DINCTL_PROGRAM;

Program::Program(const std::string& path, const ProgramOptions& options) {
  WriteFile(directory_ / "in", options.input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, (directory_ / "in").c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, (directory_ / "out").c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (directory_ / "err").c_str(), O_WRONLY | O_CREAT, 0600);
  std::vector<std::string> arguments = options.arguments;
  arguments.insert(arguments.begin(), path);
  std::vector<std::string> environment = options.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const int error =
      posix_spawn(&pid_, path.c_str(), &actions, nullptr, Pointers(arguments).data(), Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << path;
}

Program::~Program() {
  if (!running()) return;
  kill(pid_, SIGKILL);
  Wait();
}

bool Program::running() {
  int status = 0;
  if (exit_code_ < 0 && waitpid(pid_, &status, WNOHANG) == pid_) exit_code_ = ExitCode(status);
  return exit_code_ < 0;
}

int Program::Wait() {
  int status = 0;
  if (exit_code_ < 0 && waitpid(pid_, &status, 0) == pid_) exit_code_ = ExitCode(status);
  return exit_code_;
}

std::string Program::Output() const { return ReadFile(directory_ / "out"); }
std::string Program::Errors() const { return ReadFile(directory_ / "err"); }

Finished Run(const std::string& path, const ProgramOptions& options) {
  Program program(path, options);
  const int exit_code = program.Wait();
  return {exit_code, program.Output(), program.Errors()};
}

}  // namespace din
