// The gRPC server: listeners, health, reflection, and a graceful end.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model_loader/model_holder.h"
#include "server/request_limits.h"

namespace din {

// Owns admission, queue, scoring threads and the gRPC server around them. Every method from any thread, Drain once.
class Server {
 public:
  struct Options {
    std::vector<std::string> listen;  // "host:port" (port 0: any free one) or "unix:path"
    int threads = 1;
    size_t queue = 256;
    bool share_requests = true;
    bool pin_threads = false;
    size_t max_request_bytes = 4u << 20;
    RequestLimits limits;
    const ModelRegistry* models = nullptr;  // outlives the server
  };

  // Listening and answering when it returns, its health still NOT_SERVING. UNAVAILABLE names the address that could not
  // be bound.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Options& options);
  ~Server();

  // As in Options::listen, with the real ports. `ports`: those of TCP listeners, in their order.
  const std::vector<std::string>& addresses() const;
  const std::vector<int>& ports() const;

  // Health (grpc.health.v1, Check and Watch): "" and "din.v1.ScoringService" stand for the whole server, a model's name
  // for that model. Never SERVING again after BeginDrain.
  void SetReady(bool ready);
  void SetModelHealth(const std::string& model, bool serving);

  // Health turns NOT_SERVING, so that load balancers send nothing new; what still comes is answered.
  void BeginDrain();
  // Accepts nothing more and finishes what was accepted. False when that took longer than `timeout`, or until `hurry`,
  // asked every few milliseconds on the calling thread, said true; the rest is then answered with CANCELLED.
  bool Drain(std::chrono::milliseconds timeout, const std::function<bool()>& hurry);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
