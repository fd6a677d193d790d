// A peer as a service: din.v1.ScoringService in front of ONNX Runtime or libtorch, with all that is around the model
// (admission, queue, threads, decoding, ranking, encoding) taken from din-server. What din-load then finds is the
// difference that the runtime makes. One scoring thread per core, and each request on one of them, but that dinserve
// shares a large one with a thread that is idle, as din-server does.
//
//   peers_server CONTESTANT SNAPSHOT LISTEN-ADDRESS [THREADS]
//   peers_server contestants SNAPSHOT      prints their names: dinserve, in its default; dinserve-PRECISION, each other
//                                          one that this CPU has; and the peers
//   peers_server expect SNAPSHOT CANDIDATES BEHAVIOURS
//                                          prints requests with the scores of dinserve in fp32, for din-load --expect
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/peers/scorer.h"
#include "kernels/precision.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/load_model.h"
#include "model_loader/model_holder.h"
#include "proto/scoring.grpc.pb.h"
#include "server/admission_controller.h"
#include "server/model_metadata.h"
#include "server/score_request.h"
#include "server/scoring_pool.h"
#include "server/shared_scoring.h"
#include "server/status.h"
#include "tests/model/raw_model.h"

namespace din::peers {
namespace {

std::unique_ptr<Scorer> MakeScorer(const std::string& name, const PeerModel& peer) {
  const ScorerOptions options{.inputs = Inputs::kRows, .threads = 1};
  if (name.starts_with("dinserve")) return nullptr;  // scores in place, not as a peer
  if (name == "ort-tiled") return MakeOrtScorer(peer, Form::kTiled, options);
  if (name == "ort-split") return MakeOrtScorer(peer, Form::kSplit, options);
  if (name == "ort-per-candidate") return MakeOrtScorer(peer, Form::kPerCandidate, options);
  if (name == "libtorch") return MakeTorchScorer(peer, options);
  testing::Die(absl::StrCat("peers_server: no contestant \"", name, "\""));
}

// What every request uses; outlives them.
struct Bench {
  ModelHandle model;
  ModelRegistry registry;
  AdmissionController admission{{}};
  ScoringPool pool;
  // One per scoring thread, which takes the next free one when it first scores; null for dinserve.
  std::vector<std::unique_ptr<Scorer>> scorers;
  std::atomic<size_t> taken{0};

  Bench(ModelHandle loaded, const PeerModel& peer, const std::string& name, int threads)
      : model(std::move(loaded)), pool({.threads = threads}) {
    registry.GetOrAdd(model->name).Swap(model);
    for (int t = 0; t < threads; ++t) scorers.push_back(MakeScorer(name, peer));
  }
  Scorer* OfThisThread() {
    thread_local Scorer* const mine = scorers[taken++].get();
    return mine;
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
    if (Scorer* const peer = bench_.OfThisThread()) {
      peer->Clear();
      peer->Add(MakePeerRequest(model.spec(), memory.input));
      peer->Score(0, memory.scores);
    } else {
      DIN_RETURN_IF_ERROR(ScoreShared(model, *this, bench_.pool, memory, memory.scores));
    }
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

constexpr char kUsage[] =
    "peers_server CONTESTANT SNAPSHOT LISTEN-ADDRESS [THREADS]\n"
    "peers_server contestants SNAPSHOT\n"
    "peers_server expect SNAPSHOT CANDIDATES BEHAVIOURS\n";
constexpr Precision kPrecisions[] = {Precision::kFp32, Precision::kFp32Split, Precision::kBf16};

int PrintContestants(const std::string& snapshot) {
  const ModelHandle loaded = testing::OrDie(LoadModelFrom(snapshot, "peer", 1, {}));
  std::puts("dinserve");
  for (const Precision precision : kPrecisions) {
    if (!Supports(BestInstructionSet(), precision) || precision == loaded->model->precision()) continue;
    std::printf("dinserve-%s\n", std::string(Name(precision)).c_str());
  }
  std::puts("ort-split\nort-per-candidate\nort-tiled\nlibtorch");
  return 0;
}

// Of ids that all know.
int PrintExpected(const std::string& snapshot, size_t candidates, size_t behaviours) {
  constexpr int kRequests = 8;
  const ModelHandle loaded = testing::OrDie(LoadModelFrom(snapshot, "peer", 1, {.precision = Precision::kFp32}));
  const DinModel& model = *loaded->model;
  const PeerModel peer = MakePeerModel(model.spec(), loaded->snapshot->tensors());
  const std::unique_ptr<Scorer> scorer = MakeDinScorer(model, 1);
  std::mt19937_64 rng(1);
  std::vector<float> scores(candidates);
  for (int r = 0; r < kRequests; ++r) {
    const PeerRequest request = DrawRequest(peer, candidates, behaviours, rng);
    scorer->Clear();
    scorer->Add(request);
    scorer->Score(0, scores);
    v1::GoldenCase golden = AsColumns(model.spec(), request);
    golden.set_id(absl::StrCat("request-", r));
    golden.set_tolerance(1e-5);
    golden.mutable_scores()->Add(scores.begin(), scores.end());
    std::puts(FormatJson(golden).c_str());
  }
  return 0;
}

// In the precision that the name ends with.
ModelHandle Load(const std::string& contestant, const std::string& snapshot) {
  LoadOptions options;
  for (const Precision precision : kPrecisions) {
    if (contestant == absl::StrCat("dinserve-", std::string(Name(precision)))) options.precision = precision;
  }
  if (contestant.starts_with("dinserve-") && !options.precision) {
    testing::Die(absl::StrCat("peers_server: no contestant \"", contestant, "\""));
  }
  ModelHandle model = testing::OrDie(LoadModelFrom(snapshot, "peer", 1, options));
  if (!model->precision_note.empty()) testing::Die(absl::StrCat("peers_server: ", model->precision_note));
  return model;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() == 2 && arguments[0] == "contestants") return PrintContestants(arguments[1]);
  size_t candidates = 0, behaviours = 0;
  if (arguments.size() == 4 && arguments[0] == "expect" && absl::SimpleAtoi(arguments[2], &candidates) &&
      absl::SimpleAtoi(arguments[3], &behaviours) && candidates > 0 && behaviours > 0) {
    return PrintExpected(arguments[1], candidates, behaviours);
  }
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  if (arguments.size() < 3 || arguments.size() > 4 || arguments[0] == "expect" ||
      (arguments.size() == 4 && !(absl::SimpleAtoi(arguments[3], &threads) && threads > 0))) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  ModelHandle model = Load(arguments[0], arguments[1]);
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
