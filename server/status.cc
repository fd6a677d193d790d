#include "server/status.h"

#include <new>
#include <string>
#include <string_view>

namespace din {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  constexpr size_t kLongest = 1024;
  std::string_view message(status.message().data(), status.message().size());
  if (message.size() > kLongest) {
    size_t end = kLongest;
    while (end > 0 && (message[end] & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
    message = message.substr(0, end);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(message));
}

absl::Status ToStatus(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return absl::ResourceExhaustedError("memory: not enough for this request");
  }
  return absl::InternalError(error.what());
}

}  // namespace din
