// From our errors to the wire's.
#pragma once

#include <grpcpp/support/status.h>

#include <exception>

#include "absl/status/status.h"

namespace din {

// The same code (both follow google.rpc.Code). The message is cut at 1 KiB: it travels in HTTP/2 trailers, for which
// clients allow 8 KiB, and a client that meets more reports RESOURCE_EXHAUSTED instead of what went wrong.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Of an exception that a request ran into: RESOURCE_EXHAUSTED for std::bad_alloc, INTERNAL with what() for the others.
absl::Status ToStatus(const std::exception& error);

}  // namespace din
