// din.v1.AdminService on a listener of its own.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model_loader/model_holder.h"
#include "model_loader/snapshot_watcher.h"
#include "server/event_feed.h"
#include "server/log.h"

namespace din {

// Answers on a few threads of its own, which may wait, so that an operator never takes one from the requests. Listening
// until it is destroyed; what is under way is then cancelled. Any thread.
class AdminServer {
 public:
  struct Options {
    // "unix:path": a socket that only this user may use (mode 0600). "host:port" needs all three files below.
    std::string listen;
    std::string tls_certificate;  // PEM files: the server's own,
    std::string tls_key;
    std::string tls_client_ca;  // and who signs those of the clients that are let in
    SnapshotWatcher* watcher = nullptr;
    const ModelRegistry* models = nullptr;
    const EventFeed* events = nullptr;
    Logger* log = nullptr;
  };

  // UNAVAILABLE names the address that could not be bound; PERMISSION_DENIED: TCP without client certificates.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const Options& options);
  ~AdminServer();

  const std::string& address() const;  // with the real port

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
