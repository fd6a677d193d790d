#include "server/bind_probe.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

absl::Status CannotBind(const std::string& address, std::string_view why) {
  return absl::UnavailableError(absl::StrCat("listen: cannot bind ", address, ": ", std::string(why)));
}

// Closes itself.
class Socket {
 public:
  explicit Socket(int family) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // 0, or errno.
  int Bind(const sockaddr* name, socklen_t size) const {
    const int on = 1;  // as gRPC does: what a dead server left in TIME_WAIT is no obstacle
    if (fd_ < 0 || setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) return errno;
    return bind(fd_, name, size) == 0 ? 0 : errno;
  }
  bool Connects(const sockaddr* name, socklen_t size) const { return fd_ >= 0 && connect(fd_, name, size) == 0; }

 private:
  const int fd_;
};

absl::Status ProbeUnix(const std::string& address, const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return CannotBind(address, absl::StrCat("path of ", path.size(), " bytes > limit ", sizeof(name.sun_path) - 1));
  }
  path.copy(name.sun_path, path.size());
  if (Socket(AF_UNIX).Connects(reinterpret_cast<const sockaddr*>(&name), sizeof(name))) {
    return CannotBind(address, "a server is listening there");
  }
  const std::string parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent;
  if (access(directory.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return CannotBind(address, absl::StrCat("directory ", directory, ": ", std::strerror(errno)));
}

}  // namespace

absl::Status ProbeBind(const std::string& address) {
  if (address.starts_with("unix:")) return ProbeUnix(address, address.substr(5));
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const char* const port = address.c_str() + colon + 1;
  int unknown = getaddrinfo(host.c_str(), port, &hints, &found);
  // Without /etc/hosts only gRPC's own resolver knows what that is (RFC 6761).
  if (unknown != 0 && host == "localhost") unknown = getaddrinfo("127.0.0.1", port, &hints, &found);
  if (unknown != 0) {
    return CannotBind(address, gai_strerror(unknown));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> names(found, freeaddrinfo);
  int error = 0;
  for (const addrinfo* name = found; name != nullptr; name = name->ai_next) {
    error = Socket(name->ai_family).Bind(name->ai_addr, name->ai_addrlen);
    if (error == 0) return absl::OkStatus();
  }
  return CannotBind(address, std::strerror(error));
}

}  // namespace din
