// A gRPC client for tests. Only its .cc knows gRPC, so that tests compile quickly.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/scoring.pb.h"

namespace din {

// A Score call under way.
class PendingScore {
 public:
  struct Impl;
  explicit PendingScore(std::unique_ptr<Impl> impl);
  PendingScore(PendingScore&&) noexcept;
  ~PendingScore();

  void Cancel();
  absl::StatusOr<v1::ScoreResponse> Wait();

 private:
  std::unique_ptr<Impl> impl_;
};

// A Watch call of grpc.health.v1.
class HealthWatch {
 public:
  struct Impl;
  explicit HealthWatch(std::unique_ptr<Impl> impl);
  ~HealthWatch();

  // The next status ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"), at most a minute away; nothing at the end.
  std::optional<std::string> Next();

 private:
  std::unique_ptr<Impl> impl_;
};

// Any thread.
class TestClient {
 public:
  explicit TestClient(const std::string& address);
  ~TestClient();

  using Timeout = std::chrono::milliseconds;
  static constexpr Timeout kLong{30'000};

  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request, Timeout timeout = kLong);
  PendingScore StartScore(const v1::ScoreRequest& request, Timeout timeout = kLong);
  // What becomes of a Score call whose message is these bytes; compressed when `compression` is "gzip" or "deflate".
  absl::Status ScoreBytes(const std::string& bytes, const std::string& compression = "");
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::ExplainRequest& request);
  absl::StatusOr<v1::GetModelMetadataResponse> GetModelMetadata(const std::string& model);
  absl::StatusOr<std::string> Health(const std::string& service);
  std::unique_ptr<HealthWatch> WatchHealth(const std::string& service);
  // The raw answer of grpc.reflection.v1alpha to list_services.
  absl::StatusOr<std::string> ListServices();
  // Opens a reflection stream and leaves it open, until the client goes away.
  void LeakReflectionStream();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace din
