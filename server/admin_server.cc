#include "server/admin_server.h"

#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "proto/admin.grpc.pb.h"
#include "server/model_metadata.h"
#include "server/status.h"

namespace din {
namespace {

constexpr std::chrono::milliseconds kProgressInterval{500};
// Each call holds a thread while it waits.
constexpr int kMostThreads = 32;
constexpr int kMostWatchers = 16;

int64_t UnixMs(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

// Whom a certificate names, or where the call comes from.
std::string Caller(const grpc::ServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    for (const grpc::string_ref& name : auth->GetPeerIdentity()) return std::string(name.data(), name.size());
  }
  return context.peer();
}

class AdminService final : public v1::AdminService::Service {
 public:
  explicit AdminService(const AdminServer::Options& options) : options_(options) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                         v1::GetStatusResponse* response) override {
    for (const ModelStatus& model : options_.models->Statuses()) EncodeModelStatus(model, *response->add_models());
    return Audited(*context, "GetStatus", {}, absl::OkStatus());
  }

  grpc::Status Load(grpc::ServerContext* context, const v1::OrderRequest* request,
                    v1::OrderResponse* response) override {
    return Order(*context, "Load", *request, *response, [&] { return options_.watcher->Load(request->model()); });
  }
  grpc::Status Pin(grpc::ServerContext* context, const v1::OrderRequest* request,
                   v1::OrderResponse* response) override {
    return Order(*context, "Pin", *request, *response,
                 [&] { return options_.watcher->Pin(request->model(), request->version()); });
  }
  grpc::Status Unpin(grpc::ServerContext* context, const v1::OrderRequest* request,
                     v1::OrderResponse* response) override {
    return Order(*context, "Unpin", *request, *response, [&] { return options_.watcher->Unpin(request->model()); });
  }
  grpc::Status Rollback(grpc::ServerContext* context, const v1::OrderRequest* request,
                        v1::OrderResponse* response) override {
    return Order(*context, "Rollback", *request, *response,
                 [&] { return options_.watcher->Rollback(request->model(), request->version()); });
  }
  grpc::Status SetLabel(grpc::ServerContext* context, const v1::OrderRequest* request,
                        v1::OrderResponse* response) override {
    return Order(*context, "SetLabel", *request, *response,
                 [&] { return options_.watcher->SetLabel(request->model(), request->label(), request->version()); });
  }
  grpc::Status Unload(grpc::ServerContext* context, const v1::OrderRequest* request,
                      v1::OrderResponse* response) override {
    return Order(*context, "Unload", *request, *response,
                 [&] { return options_.watcher->Unload(request->model(), request->version()); });
  }

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::Event>* writer) override {
    v1::OrderRequest audited;
    audited.set_model(request->model());
    if (watchers_.fetch_add(1) >= kMostWatchers) {
      watchers_.fetch_sub(1);
      return Audited(*context, "Watch", audited,
                     absl::ResourceExhaustedError(absl::StrCat("watchers: ", kMostWatchers, ", the limit")));
    }
    (void)Audited(*context, "Watch", audited, absl::OkStatus());
    Follow(*context, request->model(), *writer);
    watchers_.fetch_sub(1);
    return grpc::Status::OK;
  }

  // Calls that wait end soon.
  void Stop() { stopping_.store(true); }

 private:
  bool Over(const grpc::ServerContext& context) const { return stopping_.load() || context.IsCancelled(); }

  grpc::Status Order(const grpc::ServerContext& context, const char* call, const v1::OrderRequest& request,
                     v1::OrderResponse& response, const std::function<absl::Status()>& order) {
    const absl::Status ordered = order();
    const grpc::Status status = Audited(context, call, request, ordered);
    if (!ordered.ok()) return status;
    while (request.wait() && !options_.watcher->WaitUntilIdle(std::chrono::milliseconds(100))) {
      if (Over(context)) return ToGrpcStatus(absl::CancelledError("ordered, but not waited for"));
    }
    if (const auto model = options_.models->StatusOf(request.model())) {
      EncodeModelStatus(*model, *response.mutable_status());
    }
    return status;
  }

  grpc::Status Audited(const grpc::ServerContext& context, const char* call, const v1::OrderRequest& request,
                       const absl::Status& status) const {
    options_.log->Info("admin", {{"call", call},
                                 {"caller", Caller(context)},
                                 {"model", request.model()},
                                 {"version", request.version()},
                                 {"label", request.label()},
                                 {"result", status.ok() ? "OK" : std::string(status.ToString())}});
    return ToGrpcStatus(status);
  }

  void Follow(const grpc::ServerContext& context, const std::string& model, grpc::ServerWriter<v1::Event>& writer) {
    const auto write_statuses = [&](const char* kind, bool loading_only) {
      for (const ModelStatus& status : options_.models->Statuses()) {
        if ((!model.empty() && status.name != model) || (loading_only && status.loading_version == 0)) continue;
        v1::Event event;
        event.set_time_ms(UnixMs(std::chrono::system_clock::now()));
        event.set_kind(kind);
        event.set_model(status.name);
        event.set_version(loading_only ? status.loading_version : status.live_version);
        EncodeModelStatus(status, *event.mutable_status());
        if (!writer.Write(event)) return false;
      }
      return true;
    };
    uint64_t next = options_.events->NextNumber();
    if (!write_statuses("status", /*loading_only=*/false)) return;
    auto last_progress = std::chrono::steady_clock::now();
    while (!Over(context)) {
      for (const EventFeed::Entry& entry : options_.events->From(next, std::chrono::milliseconds(100))) {
        next = entry.number + 1;
        if (!model.empty() && entry.event.model != model) continue;
        if (!writer.Write(Encode(entry))) return;
      }
      if (std::chrono::steady_clock::now() - last_progress < kProgressInterval) continue;
      last_progress = std::chrono::steady_clock::now();
      if (!write_statuses("progress", /*loading_only=*/true)) return;
    }
  }

  v1::Event Encode(const EventFeed::Entry& entry) const {
    v1::Event event;
    event.set_time_ms(UnixMs(entry.time));
    event.set_kind(Name(entry.event.kind));
    event.set_model(entry.event.model);
    event.set_version(entry.event.version);
    event.set_text(entry.event.status.ok() ? entry.event.text : std::string(entry.event.status.message()));
    if (const auto status = options_.models->StatusOf(entry.event.model)) {
      EncodeModelStatus(*status, *event.mutable_status());
    }
    return event;
  }

  const AdminServer::Options options_;
  std::atomic<int> watchers_ = 0;
  std::atomic<bool> stopping_ = false;
};

absl::StatusOr<std::string> ReadPem(const char* setting, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in && !text.empty()) return text;
  return absl::NotFoundError(absl::StrCat(setting, ": ", path, " cannot be read, or is empty"));
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TcpCredentials(const AdminServer::Options& options) {
  if (options.tls_certificate.empty() || options.tls_key.empty() || options.tls_client_ca.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("admin-listen: ", options.listen,
                     " is TCP, which needs client certificates: admin-tls-cert, admin-tls-key and admin-tls-client-ca; "
                     "or use unix:path"));
  }
  grpc::SslServerCredentialsOptions ssl(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  DIN_ASSIGN_OR_RETURN(pair.private_key, ReadPem("admin-tls-key", options.tls_key));
  DIN_ASSIGN_OR_RETURN(pair.cert_chain, ReadPem("admin-tls-cert", options.tls_certificate));
  DIN_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("admin-tls-client-ca", options.tls_client_ca));
  ssl.pem_key_cert_pairs.push_back(std::move(pair));
  return grpc::SslServerCredentials(ssl);
}

}  // namespace

struct AdminServer::Impl {
  explicit Impl(const Options& options) : service(options) {}

  AdminService service;
  std::unique_ptr<grpc::Server> grpc;
  std::string address;
};

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const Options& options) {
  const bool is_unix = absl::StartsWith(options.listen, "unix:");
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!is_unix) {
    DIN_ASSIGN_OR_RETURN(credentials, TcpCredentials(options));
  }
  constexpr size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;
  if (is_unix && options.listen.size() - 5 > kLongestPath) {
    return absl::InvalidArgumentError(absl::StrCat("admin-listen: ", options.listen, ": ", options.listen.size() - 5,
                                                   " bytes of path > limit ", kLongestPath));
  }
  auto impl = std::make_unique<Impl>(options);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(grpc::ResourceQuota("din-admin").SetMaxThreads(kMostThreads));
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.SetMaxReceiveMessageSize(64 << 10);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.RegisterService(&impl->service);
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  // The socket must never exist with more rights than these, so it is made with them.
  const mode_t before = umask(S_IXUSR | S_IRWXG | S_IRWXO);
  impl->grpc = builder.BuildAndStart();
  umask(before);
  if (impl->grpc == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("admin-listen: cannot bind ", options.listen));
  }
  impl->address =
      is_unix ? options.listen : absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

AdminServer::~AdminServer() {
  impl_->service.Stop();
  impl_->grpc->Shutdown(std::chrono::system_clock::now());
  impl_->grpc->Wait();
}

const std::string& AdminServer::address() const { return impl_->address; }

}  // namespace din
