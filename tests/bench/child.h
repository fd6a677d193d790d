// A program that a test starts, stops and reads.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace din::testing {

// Killed when it goes out of scope. One thread.
class Child {
 public:
  // `arguments` begin with the path of the program. Its standard output can be read; its standard error is ours.
  explicit Child(const std::vector<std::string>& arguments);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  std::string ReadLine();  // without its end; "" at the end of the output
  std::string ReadRest();
  int Wait();  // exit code; 128 + signal when it was killed

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

// The program `name` that was built beside the test.
std::string Beside(const std::string& name);

}  // namespace din::testing
