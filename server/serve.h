// The life of the process: load what is there, listen, follow the model root, drain.
#pragma once

#include "server/config.h"
#include "server/log.h"

namespace din {

// SIGTERM and SIGINT must be blocked by the caller, before any thread starts: they are waited for here, on the calling
// thread. Returns the process's exit code (HelpText says which).
int Serve(const Config& config, Logger& log);

}  // namespace din
