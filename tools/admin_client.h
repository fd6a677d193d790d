// A connection to the admin listener of din-server.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/admin.pb.h"
#include "tools/command.h"

namespace din {

// UNAVAILABLE: no server answered. One thread.
class AdminClient {
 public:
  enum class Order { kLoad, kPin, kUnpin, kRollback, kSetLabel, kUnload };

  // From --admin (else DIN_ADMIN, else the socket of the systemd unit), --timeout and the --tls options.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Create(const Arguments& arguments);
  ~AdminClient();

  absl::StatusOr<v1::OrderResponse> Send(Order order, const v1::OrderRequest& request);
  // Until the server ends, or `on_event` returns false. The timeout is not for this.
  absl::Status Watch(const v1::WatchRequest& request, const std::function<bool(const v1::Event&)>& on_event);

 private:
  struct Impl;
  explicit AdminClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "pinned 7; stable 7, canary 8; quarantined 9", or "latest".
std::string PolicyText(const v1::ModelStatus& status);
// What an operator should know beside the live version: what loads, and what was refused.
std::string StatusNote(const v1::ModelStatus& status);

}  // namespace din
