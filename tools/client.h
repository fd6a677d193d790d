// A connection to din-server. The only file of the tools that knows gRPC.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/scoring.pb.h"
#include "tools/command.h"

namespace din {

// Each call waits at most the timeout. UNAVAILABLE: no server answered. One thread.
class Client {
 public:
  // From --server (else DIN_SERVER, else 127.0.0.1:8500) and --timeout. INVALID_ARGUMENT for a timeout that is none.
  // Does not connect yet.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const Arguments& arguments);
  ~Client();

  const std::string& address() const;

  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request);
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::ExplainRequest& request);
  absl::StatusOr<v1::GetModelMetadataResponse> GetModelMetadata(const v1::GetModelMetadataRequest& request);
  // "SERVING", "NOT_SERVING", … of the whole server (""), or a model.
  absl::StatusOr<std::string> Health(const std::string& service);

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
