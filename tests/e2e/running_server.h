// din-server with a model root of its own, as a user starts it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "proto/scoring.pb.h"
#include "tests/e2e/program.h"

namespace din {

// The names of the golden cases in tests/golden.
std::vector<std::string> GoldenNames();
std::string GoldenDirectory(const std::string& name);

// A model root in a temporary directory.
class ModelRoot {
 public:
  // Publishes a snapshot as a version of `model`: copied under a temporary name, then renamed.
  void Publish(const std::string& snapshot, const std::string& model, int64_t version) const;
  // The same with a golden case.
  void PublishGolden(const std::string& golden, const std::string& model, int64_t version) const;
  // Publishes the shop of tests/server, with its scores as the definition has them.
  void PublishShop(int64_t version) const;
  void PublishShopWithoutGolden(int64_t version) const;
  // A golden case with one bit of its weights turned round.
  void PublishCorrupted(const std::string& golden, const std::string& model, int64_t version) const;

  const std::string& path() const { return directory_.path(); }

 private:
  void WriteShop(int64_t version, const std::vector<v1::GoldenCase>& golden) const;
  std::string Stage(const std::string& snapshot, const std::string& model, int64_t version) const;
  void Commit(const std::string& model, int64_t version) const;

  TempDirectory directory_;
};

// Listening when the constructor returns, else the test has failed. One thread.
class RunningServer {
 public:
  explicit RunningServer(const ModelRoot& root, const std::vector<std::string>& flags = {});

  const std::string& address() const { return address_; }
  pid_t pid() const { return program_.pid(); }
  size_t Threads() const;  // of the process, now
  std::string Log() const { return program_.Errors(); }
  // False when the log has no such text within a minute.
  bool LogSays(const std::string& text) const;
  void Signal(int signal);
  int Wait() { return program_.Wait(); }
  int Stop();  // SIGINT, which skips the delay; the exit code

 private:
  TempDirectory directory_;
  Program program_;
  std::string address_;
};

// Asks again and again, for at most a minute.
bool Eventually(const std::function<bool()>& condition);

// A golden request on the wire.
v1::ScoreRequest ToScoreRequest(const v1::GoldenCase& golden, const std::string& model);

}  // namespace din
