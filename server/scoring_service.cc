#include "server/scoring_service.h"

#include <chrono>
#include <new>
#include <utility>
#include <vector>

#include "model/status_macros.h"
#include "server/explain.h"
#include "server/model_metadata.h"
#include "server/status.h"

namespace din {
namespace {

// gRPC's deadlines are on the wall clock; a jump of that clock must not reach a request that is already here.
SteadyTime DeadlineOf(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return SteadyTime::max();
  return std::chrono::steady_clock::now() + (deadline - std::chrono::system_clock::now());
}

// One RPC from its handler to Finish. Deletes itself when gRPC is done with it, which is after Finish.
class Call : public grpc::ServerUnaryReactor, public ScoringJob {
 public:
  Call(const ScoringService::Options& service, std::atomic<int>& calls) : service_(service), calls_(calls) {
    calls_.fetch_add(1, std::memory_order_relaxed);
  }
  ~Call() override { calls_.fetch_sub(1, std::memory_order_relaxed); }

  // Stops 1 to 3.
  void Start(const grpc::CallbackServerContext& context, const v1::ScoreRequest& request) {
    deadline = DeadlineOf(context);
    absl::StatusOr<Ticket> admitted = service_.admission.TryAdmit({.deadline = deadline, .cost = CostOf(request)});
    if (!admitted.ok()) return End(admitted.status());
    ticket = *std::move(admitted);
    if (absl::Status status = service_.pool.Submit(this); !status.ok()) End(status);
  }

  void Run(ScoringMemory& memory) final {
    absl::Status status;
    try {
      status = Answer(memory);
    } catch (const std::bad_alloc&) {  // one request's misfortune, not the server's end
      status = absl::ResourceExhaustedError("memory: not enough for this request");
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
    model.Score(memory.input, memory.workspace, memory.scores);
    DIN_RETURN_IF_ERROR(CheckScores(memory.scores));
    Rank(memory.scores, request.top_k(), memory.ranking);
    return absl::OkStatus();
  }

  const ScoringService::Options& service_;

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
  ScoreCall(const ScoringService::Options& service, std::atomic<int>& calls, const v1::ScoreRequest& request,
            v1::ScoreResponse& response)
      : Call(service, calls), request_(request), response_(response) {}

 private:
  absl::Status Answer(ScoringMemory& memory) override {
    DIN_ASSIGN_OR_RETURN(const ModelHandle pinned, PinModel(service_.models, request_.model(), request_.version()));
    DIN_RETURN_IF_ERROR(ScoreAndRank(request_, *pinned->model, memory));
    EncodeScoreResponse({request_, *pinned, memory.input, memory.scores, memory.ranking}, response_);
    return absl::OkStatus();
  }

  const v1::ScoreRequest& request_;
  v1::ScoreResponse& response_;
};

class ExplainCall final : public Call {
 public:
  ExplainCall(const ScoringService::Options& service, std::atomic<int>& calls, const v1::ExplainRequest& request,
              v1::ExplainResponse& response)
      : Call(service, calls), request_(request), response_(response) {}

 private:
  absl::Status Answer(ScoringMemory& memory) override {
    const v1::ScoreRequest& score = request_.request();
    DIN_ASSIGN_OR_RETURN(const ModelHandle pinned, PinModel(service_.models, score.model(), score.version()));
    DIN_RETURN_IF_ERROR(ScoreAndRank(score, *pinned->model, memory));
    const ScoredRequest scored{score, *pinned, memory.input, memory.scores, memory.ranking};
    DIN_ASSIGN_OR_RETURN(const std::vector<uint32_t> candidates,
                         CandidatesToExplain(request_, scored, service_.limits));
    EncodeScoreResponse(scored, *response_.mutable_response());
    for (const uint32_t candidate : candidates) {
      if (cancelled.load(std::memory_order_relaxed)) return absl::CancelledError("cancelled while explaining");
      ExplainCandidate(scored, candidate, memory.workspace, response_);
    }
    EncodeBehaviourLabels(scored, response_);
    return absl::OkStatus();
  }

  const v1::ExplainRequest& request_;
  v1::ExplainResponse& response_;
};

}  // namespace

grpc::ServerUnaryReactor* ScoringService::Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                                v1::ScoreResponse* response) {
  auto* call = new ScoreCall(options_, calls_, *request, *response);
  call->Start(*context, *request);
  return call;
}

grpc::ServerUnaryReactor* ScoringService::Explain(grpc::CallbackServerContext* context,
                                                  const v1::ExplainRequest* request, v1::ExplainResponse* response) {
  auto* call = new ExplainCall(options_, calls_, *request, *response);
  call->Start(*context, request->request());
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
