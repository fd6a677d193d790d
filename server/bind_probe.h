// Whether this process may listen on an address, asked before anything expensive is done.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace din {

// Binds "host:port", "[ipv6]:port" or "unix:path" and lets go of it. gRPC binds late, after minutes of loading models,
// tells no reason, and takes the socket file of a live server away from it. UNAVAILABLE: the address, and the system's
// reason. Somebody may still be faster than gRPC.
absl::Status ProbeBind(const std::string& address);

}  // namespace din
