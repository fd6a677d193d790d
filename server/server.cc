#include "server/server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/scoring_service.h"

namespace din {
namespace {

// What messages on their way in may take together, before they are admitted; beyond it gRPC slows connections down.
constexpr size_t kTransportBytes = 512u << 20;
// Bounds what clients can pile up in front of admission; more wait in the client. Metadata is never used here.
constexpr int kStreamsPerConnection = 1024;
constexpr int kMetadataBytes = 16 << 10;
// Every open reflection stream holds one of gRPC's synchronous threads, for as long as its client likes; beyond this
// many a stream gets RESOURCE_EXHAUSTED. Scoring and health use none of them.
constexpr int kSyncThreads = 32;
// Finds peers that vanished without a word.
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// Clients may look for a dead server often, but not flood it with pings.
constexpr int kShortestPingIntervalMs = 5'000;

// A call is not seen before its message is complete, so a moment without calls is not yet the end of them.
constexpr auto kQuiet = std::chrono::milliseconds(50);

void SetBounds(const Server::Options& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_request_bytes));
  // gRPC unpacks all of a message before it looks at the limit, and 4 MiB of gzip can hold 4 GiB.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetResourceQuota(grpc::ResourceQuota("din").Resize(kTransportBytes).SetMaxThreads(kSyncThreads));
  // Without this a second server on the same port would silently take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kShortestPingIntervalMs);
  // Only reflection uses gRPC's synchronous threads.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

// gRPC 1.51 has a few threads that poll connections and run callbacks. Each of them, after a second without a callback,
// sleeps for 100 ms and looks at nothing, and when all do, the next request waits for them. A call to ourselves now and
// then (20 us of CPU) keeps one awake.
class KeepAwake {
 public:
  explicit KeepAwake(grpc::Server& server) : stub_(server.InProcessChannel({})), thread_([this] { Run(); }) {}
  ~KeepAwake() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  KeepAwake(const KeepAwake&) = delete;
  KeepAwake& operator=(const KeepAwake&) = delete;

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(250), [this] { return ending_; })) {
      lock.unlock();
      Call();
      lock.lock();
    }
  }

  void Call() {
    grpc::ClientContext context;
    const grpc::Slice empty;  // HealthCheckRequest{}: of the whole server
    grpc::ByteBuffer request(&empty, 1), response;
    std::promise<void> done;
    stub_.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                    [&](const grpc::Status&) { done.set_value(); });
    done.get_future().wait();
  }

  grpc::GenericStub stub_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;
};

bool IsUnix(const std::string& address) { return absl::StartsWith(address, "unix:"); }

}  // namespace

// In this order: gRPC goes first, so nothing that a call uses goes before it.
struct Server::Impl {
  // False when scoring calls are left at `end`, or when `hurry` said true.
  bool WaitUntilQuiet(std::chrono::steady_clock::time_point end, const std::function<bool()>& hurry) const;

  explicit Impl(const Options& options)
      : admission({.queue = options.queue}),
        pool({.threads = options.threads,
              .queue = options.queue,
              .share = options.share_requests,
              .pin = options.pin_threads}),
        service({.models = *options.models, .admission = admission, .pool = pool, .limits = options.limits}) {}

  AdmissionController admission;
  ScoringPool pool;
  ScoringService service;
  std::unique_ptr<grpc::Server> grpc;
  std::optional<KeepAwake> keep_awake;
  std::vector<std::string> addresses;
  std::vector<int> ports;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options) {
  // Both are process-wide and must come before the builder.
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // Without this every request with a string that is not UTF-8 writes lines of its own to stderr.
  google::protobuf::SetLogHandler(nullptr);

  auto impl = std::make_unique<Impl>(options);
  grpc::ServerBuilder builder;
  SetBounds(options, builder);
  builder.RegisterService(&impl->service);
  std::vector<int> bound(options.listen.size(), 0);
  for (size_t i = 0; i < options.listen.size(); ++i) {
    builder.AddListeningPort(options.listen[i], grpc::InsecureServerCredentials(), &bound[i]);
  }
  impl->grpc = builder.BuildAndStart();
  for (size_t i = 0; i < options.listen.size(); ++i) {
    const std::string& address = options.listen[i];
    if (bound[i] == 0) {
      return absl::UnavailableError(
          absl::StrCat("listen: cannot bind ", address, ": taken since it was looked at; gRPC's log has more"));
    }
    if (IsUnix(address)) {
      impl->addresses.push_back(address);
      continue;
    }
    impl->addresses.push_back(absl::StrCat(address.substr(0, address.rfind(':')), ":", bound[i]));
    impl->ports.push_back(bound[i]);
  }
  if (impl->grpc == nullptr) return absl::InternalError("listen: gRPC did not start");
  impl->keep_awake.emplace(*impl->grpc);
  auto server = std::unique_ptr<Server>(new Server(std::move(impl)));
  server->SetReady(false);
  return server;
}

Server::~Server() {
  impl_->keep_awake.reset();
  impl_->grpc->Shutdown(std::chrono::system_clock::now());
  impl_->grpc->Wait();
}

const std::vector<std::string>& Server::addresses() const { return impl_->addresses; }
const std::vector<int>& Server::ports() const { return impl_->ports; }

void Server::SetReady(bool ready) {
  grpc::HealthCheckServiceInterface& health = *impl_->grpc->GetHealthCheckService();
  health.SetServingStatus("", ready);
  health.SetServingStatus(v1::ScoringService::service_full_name(), ready);
}

void Server::SetModelHealth(const std::string& model, bool serving) {
  impl_->grpc->GetHealthCheckService()->SetServingStatus(model, serving);
}

void Server::BeginDrain() { impl_->grpc->GetHealthCheckService()->Shutdown(); }

bool Server::Impl::WaitUntilQuiet(std::chrono::steady_clock::time_point end, const std::function<bool()>& hurry) const {
  auto quiet_since = std::chrono::steady_clock::now();
  for (auto now = quiet_since; now < end && !hurry(); now = std::chrono::steady_clock::now()) {
    if (service.calls() > 0)
      quiet_since = now;
    else if (now - quiet_since >= kQuiet)
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return service.calls() == 0;
}

bool Server::Drain(std::chrono::milliseconds timeout, const std::function<bool()>& hurry) {
  impl_->keep_awake.reset();
  const auto end = std::chrono::steady_clock::now() + timeout;
  // Tells clients to go elsewhere (GOAWAY), then waits for every call, and among them are the Watch calls of health
  // clients, which never end. So scoring calls are waited for here, and when they are done, the rest is cancelled.
  std::thread shutdown([&] { impl_->grpc->Shutdown(std::chrono::system_clock::now() + timeout); });
  const bool finished = impl_->WaitUntilQuiet(end, hurry);
  grpc_server_cancel_all_calls(impl_->grpc->c_server());
  shutdown.join();
  impl_->grpc->Wait();
  return finished;
}

}  // namespace din
