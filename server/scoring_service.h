// din.v1.ScoringService on gRPC's callback API. Heavy to include; only server.cc does.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>

#include "model_loader/model_holder.h"
#include "proto/scoring.grpc.pb.h"
#include "server/admission_controller.h"
#include "server/score_request.h"
#include "server/scoring_pool.h"

namespace din {

// A handler runs on one of gRPC's few shared threads, so it does no work: it takes a ticket and queues the request. A
// scoring thread does the rest and finishes the call (DESIGN.md, "One request, seven stops"). GetModelMetadata answers
// at once, so that an operator can see what is live while requests are being shed: it copies one message.
//
// Score and Explain get their messages as bytes and parse them on the scoring thread: parsed, a message of empty
// columns is seventy times its size, and only as many may be so large as there are threads, not as many as clients
// send.
class ScoringService final
    : public v1::ScoringService::WithRawCallbackMethod_Score<v1::ScoringService::WithRawCallbackMethod_Explain<
          v1::ScoringService::WithCallbackMethod_GetModelMetadata<v1::ScoringService::Service>>> {
 public:
  struct Options {
    const ModelRegistry& models;
    AdmissionController& admission;
    ScoringPool& pool;
    RequestLimits limits;
  };

  // What `options` refers to must outlive the gRPC server that the service is registered with.
  explicit ScoringService(const Options& options) : options_(options) {}

  // Score and Explain calls that are not over yet.
  int calls() const { return calls_.load(std::memory_order_relaxed); }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelMetadata(grpc::CallbackServerContext* context,
                                             const v1::GetModelMetadataRequest* request,
                                             v1::GetModelMetadataResponse* response) override;

 private:
  const Options options_;
  std::atomic<int> calls_ = 0;
};

}  // namespace din
