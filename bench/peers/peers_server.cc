// A peer as a service: din.v1.ScoringService in front of ONNX Runtime or libtorch, with all that is around the model
// (admission, queue, threads, decoding, ranking, encoding) taken from din-server. What din-load then finds is the
// difference that the runtime makes. One scoring thread per core, each request on one thread.
//
//   peers_server ort-tiled|ort-split|ort-per-candidate|libtorch|dinserve SNAPSHOT LISTEN-ADDRESS [THREADS]
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/peers/scorer.h"
#include "model/status_macros.h"
#include "model_loader/load_model.h"
#include "model_loader/model_holder.h"
#include "proto/scoring.grpc.pb.h"
#include "server/admission_controller.h"
#include "server/model_metadata.h"
#include "server/score_request.h"
#include "server/scoring_pool.h"
#include "server/status.h"
#include "tests/model/raw_model.h"

namespace din::peers {
namespace {

std::unique_ptr<Scorer> MakeScorer(const std::string& name, const PeerModel& peer, const DinModel& ours) {
  const ScorerOptions options{.inputs = Inputs::kRows, .threads = 1};
  if (name == "ort-tiled") return MakeOrtScorer(peer, Form::kTiled, options);
  if (name == "ort-split") return MakeOrtScorer(peer, Form::kSplit, options);
  if (name == "ort-per-candidate") return MakeOrtScorer(peer, Form::kPerCandidate, options);
  if (name == "libtorch") return MakeTorchScorer(peer, options);
  if (name == "dinserve") return MakeDinScorer(ours);
  testing::Die(absl::StrCat("peers_server: no contestant \"", name, "\""));
}

// What every request uses; outlives them.
struct Bench {
  ModelHandle model;
  ModelRegistry registry;
  AdmissionController admission{{}};
  ScoringPool pool;
  // One per scoring thread, which takes the next free one when it first scores.
  std::vector<std::unique_ptr<Scorer>> scorers;
  std::atomic<size_t> taken{0};

  Bench(ModelHandle loaded, const PeerModel& peer, const std::string& name, int threads)
      : model(std::move(loaded)), pool({.threads = threads}) {
    registry.GetOrAdd(model->name).Swap(model);
    for (int t = 0; t < threads; ++t) scorers.push_back(MakeScorer(name, peer, *model->model));
  }
  Scorer& OfThisThread() {
    thread_local Scorer* mine = scorers[taken++].get();
    return *mine;
  }
};

// Deletes itself when gRPC is done with it.
class Call final : public grpc::ServerUnaryReactor, public ScoringJob {
 public:
  Call(Bench& bench, const v1::ScoreRequest& request, v1::ScoreResponse& response)
      : bench_(bench), request_(request), response_(response) {}

  void Start() {
    absl::StatusOr<Ticket> admitted = bench_.admission.TryAdmit({});
    if (!admitted.ok()) return End(admitted.status());
    ticket = *std::move(admitted);
    if (const absl::Status status = bench_.pool.Submit(this); !status.ok()) End(status);
  }
  void Run(ScoringMemory& memory) override { End(Answer(memory)); }
  void Refuse(const absl::Status& status) override { End(status); }

 private:
  absl::Status Answer(ScoringMemory& memory) {
    const DinModel& model = *bench_.model->model;
    DIN_RETURN_IF_ERROR(DecodeScoreRequest(request_, model, {}, memory.input));
    memory.scores.resize(memory.input.candidates);
    Scorer& scorer = bench_.OfThisThread();
    scorer.Clear();
    scorer.Add(MakePeerRequest(model.spec(), memory.input));
    scorer.Score(0, memory.scores);
    DIN_RETURN_IF_ERROR(CheckScores(memory.scores));
    Rank(memory.scores, request_.top_k(), memory.ranking);
    EncodeScoreResponse({request_, *bench_.model, memory.input, memory.scores, memory.ranking}, response_);
    return absl::OkStatus();
  }
  void End(const absl::Status& status) {
    ticket.Release();
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }

  Bench& bench_;
  const v1::ScoreRequest& request_;
  v1::ScoreResponse& response_;
};

class Service final : public v1::ScoringService::CallbackService {
 public:
  explicit Service(Bench& bench) : bench_(bench) {}

 private:
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext*, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    Call* call = new Call(bench_, *request, *response);
    call->Start();
    return call;
  }
  grpc::ServerUnaryReactor* GetModelMetadata(grpc::CallbackServerContext* context,
                                             const v1::GetModelMetadataRequest* request,
                                             v1::GetModelMetadataResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(AnswerGetModelMetadata(bench_.registry, *request, *response)));
    return reactor;
  }

  Bench& bench_;
};

int Main(const std::vector<std::string>& arguments) {
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  if (arguments.size() < 3 || arguments.size() > 4 ||
      (arguments.size() == 4 && !(absl::SimpleAtoi(arguments[3], &threads) && threads > 0))) {
    std::fputs(
        "peers_server ort-tiled|ort-split|ort-per-candidate|libtorch|dinserve SNAPSHOT LISTEN-ADDRESS [THREADS]\n",
        stderr);
    return 2;
  }
  ModelHandle model = testing::OrDie(LoadModelFrom(arguments[1], "peer", 1, {}));
  const PeerModel peer = MakePeerModel(model->snapshot->spec(), model->snapshot->tensors());
  Bench bench(std::move(model), peer, arguments[0], threads);
  Service service(bench);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(arguments[2], grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("%s is serving on %s with %d threads\n", arguments[0].c_str(), arguments[2].c_str(), threads);
  std::fflush(stdout);
  server->Wait();
  return 0;
}

}  // namespace
}  // namespace din::peers

int main(int argc, char** argv) { return din::peers::Main(std::vector<std::string>(argv + 1, argv + argc)); }
