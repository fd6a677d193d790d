// Programs as a shell would run them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {

extern const char* const kServerProgram;
extern const char* const kDinctlProgram;

struct ProgramOptions {
  std::vector<std::string> arguments;    // without the program itself
  std::vector<std::string> environment;  // "NAME=value", besides the test's own
  std::string input;
};

// A running child process. Killed at the end if it still runs. One thread.
class Program {
 public:
  Program(const std::string& path, const ProgramOptions& options);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  // Waits for the end: the exit code, or 128 + the signal.
  int Wait();
  std::string Output() const;  // standard output so far
  std::string Errors() const;  // standard error so far

 private:
  TempDirectory directory_;
  pid_t pid_ = -1;
  int exit_code_ = -1;  // -1: still runs, as far as we know
};

struct Finished {
  int exit_code = 0;
  std::string output;
  std::string errors;
};
Finished Run(const std::string& path, const ProgramOptions& options);

}  // namespace din
