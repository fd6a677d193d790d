// din-server: flags, signals, Serve.
#include <malloc.h>
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

// What a request allocates must not make it wait for anybody.
void TuneHeap() {
  // glibc lets threads share arenas of the heap once there are eight for each core, which gRPC's threads reach on a
  // small machine. A request that shared one with the loading thread would wait for a lock whose holder has no core:
  // for up to 11 s in an experiment on a busy machine. Arenas that nobody needs cost nothing.
  mallopt(M_ARENA_MAX, 1024);
  // An arena that grows, shrinks or maps takes the lock of the address space, which whoever loads or frees a model
  // takes, too. So it begins with room for two of the largest messages, of which only what is used takes memory, and
  // keeps it; a block larger than a message is still mapped by itself.
  mallopt(M_TOP_PAD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
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
  TuneHeap();
  BlockSignals();
  din::Logger log({.level = invocation->config.log_level, .format = invocation->config.log_format});
  return din::Serve(invocation->config, log);
}
