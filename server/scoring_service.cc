#include "server/scoring_service.h"

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <chrono>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "server/explain.h"
#include "server/model_metadata.h"
#include "server/shared_scoring.h"
#include "server/status.h"

namespace din {
namespace {

// gRPC's deadlines are on the wall clock; a jump of that clock must not reach a request that is already here.
SteadyTime DeadlineOf(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return SteadyTime::max();
  return std::chrono::steady_clock::now() + (deadline - std::chrono::system_clock::now());
}

absl::Status Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  grpc::ByteBuffer shared = bytes;  // a reference: the reader wants one that it may change
  grpc::ProtoBufferReader reader(&shared);
  if (reader.status().ok() && message.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("message: ", bytes.Length(), " bytes, which are no ",
                                                 message.GetTypeName(), ": malformed, or a string that is not UTF-8"));
}

absl::Status Serialise(const google::protobuf::Message& message, grpc::ByteBuffer& bytes) {
  bool owned = false;
  const grpc::Status status =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(message, &bytes, &owned);
  return status.ok() ? absl::OkStatus() : absl::InternalError(status.error_message());
}

// One RPC from its handler to Finish. Deletes itself when gRPC is done with it, which is after Finish.
class Call : public grpc::ServerUnaryReactor, public ScoringJob {
 public:
  Call(const ScoringService::Options& service, std::atomic<int>& calls, const grpc::ByteBuffer& request,
       grpc::ByteBuffer& response)
      : service_(service), request_(request), response_(response), calls_(calls) {
    calls_.fetch_add(1, std::memory_order_relaxed);
  }
  ~Call() override { calls_.fetch_sub(1, std::memory_order_relaxed); }

  // Stops 1 to 3.
  void Start(const grpc::CallbackServerContext& context) {
    deadline = DeadlineOf(context);
    absl::StatusOr<Ticket> admitted = service_.admission.TryAdmit({.deadline = deadline, .cost = request_.Length()});
    if (!admitted.ok()) return End(admitted.status());
    ticket = *std::move(admitted);
    if (absl::Status status = service_.pool.Submit(this); !status.ok()) End(status);
  }

  void Run(ScoringMemory& memory) final {
    absl::Status status;
    try {
      status = Answer(memory);
    } catch (const std::exception& error) {  // one request's misfortune, not the server's end
      status = ToStatus(error);
    }
    End(status);
  }
  void Refuse(const absl::Status& status) final { End(status); }

 protected:
  // Stops 4 to 7, on a scoring thread.
  virtual absl::Status Answer(ScoringMemory& memory) = 0;

  // Stops 5 and 6. Leaves ranking and scores in `memory`.
  absl::Status ScoreAndRank(const v1::ScoreRequest& request, const DinModel& model, ScoringMemory& memory) const {
    DIN_RETURN_IF_ERROR(DecodeScoreRequest(request, model, service_.limits, memory.input));
    memory.scores.resize(memory.input.candidates);
    DIN_RETURN_IF_ERROR(ScoreShared(model, *this, service_.pool, memory, memory.scores));
    DIN_RETURN_IF_ERROR(CheckScores(request, memory.scores));
    Rank(memory.scores, request.top_k(), memory.ranking);
    return absl::OkStatus();
  }

  const ScoringService::Options& service_;
  const grpc::ByteBuffer& request_;
  grpc::ByteBuffer& response_;

 private:
  // The last use of this object: gRPC may delete it before Finish returns.
  void End(const absl::Status& status) {
    ticket.Release();
    Finish(ToGrpcStatus(status));
  }

  void OnCancel() override { cancelled.store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

  std::atomic<int>& calls_;
};

class ScoreCall final : public Call {
 public:
  using Call::Call;

 private:
  absl::Status Answer(ScoringMemory& memory) override {
    v1::ScoreRequest request;
    DIN_RETURN_IF_ERROR(Parse(request_, request));
    DIN_ASSIGN_OR_RETURN(const ModelHandle pinned,
                         PinModel(service_.models, request.model(), {request.version(), request.label()}));
    DIN_RETURN_IF_ERROR(ScoreAndRank(request, *pinned->model, memory));
    v1::ScoreResponse response;
    EncodeScoreResponse({request, *pinned, memory.input, memory.scores, memory.ranking}, response);
    return Serialise(response, response_);
  }
};

class ExplainCall final : public Call {
 public:
  using Call::Call;

 private:
  absl::Status Answer(ScoringMemory& memory) override {
    v1::ExplainRequest request;
    DIN_RETURN_IF_ERROR(Parse(request_, request));
    const v1::ScoreRequest& score = request.request();
    DIN_ASSIGN_OR_RETURN(const ModelHandle pinned,
                         PinModel(service_.models, score.model(), {score.version(), score.label()}));
    DIN_RETURN_IF_ERROR(ScoreAndRank(score, *pinned->model, memory));
    const ScoredRequest scored{score, *pinned, memory.input, memory.scores, memory.ranking};
    DIN_ASSIGN_OR_RETURN(const std::vector<uint32_t> candidates, CandidatesToExplain(request, scored, service_.limits));
    v1::ExplainResponse response;
    EncodeScoreResponse(scored, *response.mutable_response());
    for (const uint32_t candidate : candidates) {
      if (cancelled.load(std::memory_order_relaxed)) return absl::CancelledError("cancelled while explaining");
      ExplainCandidate(scored, candidate, memory.workspace, response);
    }
    EncodeBehaviourLabels(scored, response);
    return Serialise(response, response_);
  }
};

}  // namespace

grpc::ServerUnaryReactor* ScoringService::Score(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) {
  auto* call = new ScoreCall(options_, calls_, *request, *response);
  call->Start(*context);
  return call;
}

grpc::ServerUnaryReactor* ScoringService::Explain(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  auto* call = new ExplainCall(options_, calls_, *request, *response);
  call->Start(*context);
  return call;
}

grpc::ServerUnaryReactor* ScoringService::GetModelMetadata(grpc::CallbackServerContext* context,
                                                           const v1::GetModelMetadataRequest* request,
                                                           v1::GetModelMetadataResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(AnswerGetModelMetadata(options_.models, *request, *response)));
  return reactor;
}

}  // namespace din
