// din-server: flags, signals, Serve.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <span>

#include "server/config.h"
#include "server/log.h"
#include "server/serve.h"

namespace {

// For every thread that is started from here on; Serve waits for them.
void BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a log reader that went away
}

std::span<const char* const> Environment() {
  size_t n = 0;
  while (environ[n] != nullptr) ++n;
  return {environ, n};
}

}  // namespace

int main(int argc, char** argv) {
  using Action = din::Invocation::Action;
  const auto invocation = din::ParseInvocation({argv + 1, static_cast<size_t>(argc - 1)}, Environment());
  if (!invocation.ok()) {
    std::fprintf(stderr, "din-server: %s\n", std::string(invocation.status().message()).c_str());
    std::fprintf(stderr, "din-server --help lists every setting\n");
    return 2;
  }
  switch (invocation->action) {
    case Action::kHelp:
      std::fputs(din::HelpText().c_str(), stdout);
      return 0;
    case Action::kVersion:
      std::puts("din-server " DIN_VERSION);
      return 0;
    case Action::kCheckConfig:
      std::fputs(din::EffectiveConfigText(*invocation).c_str(), stdout);
      return 0;
    case Action::kServe:
      break;
  }
  BlockSignals();
  din::Logger log({.level = invocation->config.log_level, .format = invocation->config.log_format});
  return din::Serve(invocation->config, log);
}
