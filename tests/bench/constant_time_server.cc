// A ScoringService that answers every request right and at once, whatever its size: what is left is the load
// generator's own truth. Prints "port N" and serves until it is killed.
//
//   constant_time_server [--listen ADDRESS] [--unix PATH] [--tls DIRECTORY] [--refuse-every N] [--wrong-every N] [--swap-after N]
//
//   --listen ADDRESS   instead of a free port of 127.0.0.1
//   --unix PATH        listens there, too
//   --tls DIRECTORY    with its server.pem and server.key, for clients whose certificate comes from its ca.pem
//   --refuse-every N   every n-th answer is RESOURCE_EXHAUSTED
//   --wrong-every N    every n-th answer has a score above 1
//   --swap-after N     version 1 until n requests have come, then version 2
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include <grpcpp/grpcpp.h>

#include "proto/scoring.grpc.pb.h"

namespace din {
namespace {

struct Faults {
  uint64_t refuse_every = 0;
  uint64_t wrong_every = 0;
  uint64_t swap_after = 0;
};

class ConstantTimeService final : public v1::ScoringService::CallbackService {
 public:
  explicit ConstantTimeService(const Faults& faults) : faults_(faults) {}

 private:
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const uint64_t n = ++requests_;
    if (faults_.refuse_every > 0 && n % faults_.refuse_every == 0) {
      reactor->Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "as told"));
      return reactor;
    }
    response->set_model(request->model());
    response->set_version(faults_.swap_after > 0 && n > faults_.swap_after ? 2 : 1);
    for (int c = 0; c < request->candidate_ids_size(); ++c) {
      response->add_index(c);
      response->add_scores(1.0f / static_cast<float>(c + 2));
      response->add_candidate_ids(request->candidate_ids(c));
    }
    if (faults_.wrong_every > 0 && n % faults_.wrong_every == 0) response->set_scores(0, 1.5f);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerUnaryReactor* GetModelMetadata(grpc::CallbackServerContext* context, const v1::GetModelMetadataRequest*,
                                             v1::GetModelMetadataResponse* response) override {
    response->set_model("constant");
    response->set_version(1);
    v1::ModelSpec& spec = *response->mutable_spec();
    v1::IdMap& items = *spec.add_id_maps();
    items.set_name("items");
    items.set_id_type(v1::INT64);
    items.mutable_identity()->set_size(1'000'000);
    items.set_out_of_vocabulary(v1::IdMap::ZERO);
    spec.add_sequences()->set_name("clicks");
    for (const v1::Scope scope : {v1::CANDIDATE, v1::SEQUENCE}) {
      v1::Feature& feature = *spec.add_features();
      feature.set_name(scope == v1::CANDIDATE ? "item" : "clicked_item");
      feature.set_scope(scope);
      if (scope == v1::SEQUENCE) feature.set_sequence("clicks");
      feature.set_kind(v1::ID);
      feature.set_id_map("items");
      auto& info = *response->add_features();
      info.set_name(feature.name());
      info.set_required(true);
    }
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  const Faults faults_;
  std::atomic<uint64_t> requests_{0};
};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const std::string& directory) {
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = Read(directory + "/ca.pem");
  options.pem_key_cert_pairs.push_back({Read(directory + "/server.key"), Read(directory + "/server.pem")});
  return grpc::SslServerCredentials(options);
}

int Main(int argc, char** argv) {
  Faults faults;
  std::string address = "127.0.0.1:0";
  std::string unix_path;
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  for (int a = 1; a + 1 < argc; a += 2) {
    const std::string_view flag = argv[a];
    const uint64_t value = std::strtoull(argv[a + 1], nullptr, 10);
    if (flag == "--listen") address = argv[a + 1];
    if (flag == "--unix") unix_path = argv[a + 1];
    if (flag == "--tls") credentials = TlsCredentials(argv[a + 1]);
    if (flag == "--refuse-every") faults.refuse_every = value;
    if (flag == "--wrong-every") faults.wrong_every = value;
    if (flag == "--swap-after") faults.swap_after = value;
  }
  ConstantTimeService service(faults);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, credentials, &port);
  if (!unix_path.empty()) builder.AddListeningPort("unix:" + unix_path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("port %d\n", port);
  std::fflush(stdout);
  server->Wait();
  return 0;
}

}  // namespace
}  // namespace din

int main(int argc, char** argv) { return din::Main(argc, argv); }
