#include "tools/client.h"

#include <google/protobuf/wrappers.pb.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "proto/scoring.grpc.pb.h"

namespace din {
namespace {

constexpr std::chrono::milliseconds kConnectPatience{500};

}  // namespace

struct Client::Impl {
  std::string address;
  std::chrono::milliseconds timeout{5000};
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::ScoringService::Stub> stub;

  template <typename Response, typename Function>
  absl::StatusOr<Response> Call(const Function& function) {
    grpc::ClientContext context;
    const auto now = std::chrono::system_clock::now();
    context.set_deadline(now + timeout);
    // Nothing has been sent yet, so a connection may be tried again: a server that is being restarted is there soon.
    channel->WaitForConnected(now + std::min(timeout, kConnectPatience));
    Response response;
    const grpc::Status status = function(context, response);
    if (status.ok()) return response;
    // A deadline that passed before there was a connection says nothing about the server but that it is not there.
    const bool connected = channel->GetState(false) == GRPC_CHANNEL_READY;
    const bool unreachable = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && !connected;
    const auto code = unreachable ? absl::StatusCode::kUnavailable : static_cast<absl::StatusCode>(status.error_code());
    return absl::Status(code, absl::StrCat(address, ": ", status.error_message()));
  }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const Arguments& arguments) {
  auto impl = std::make_unique<Impl>();
  const char* from_environment = std::getenv("DIN_SERVER");
  impl->address = arguments.Get("server").value_or(from_environment != nullptr ? from_environment : "127.0.0.1:8500");
  DIN_ASSIGN_OR_RETURN(impl->timeout, arguments.Timeout(impl->timeout));
  grpc::ChannelArguments channel;
  channel.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());  // an explanation may be large
  channel.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  channel.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  impl->channel = grpc::CreateCustomChannel(impl->address, grpc::InsecureChannelCredentials(), channel);
  impl->stub = v1::ScoringService::NewStub(impl->channel);
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

const std::string& Client::address() const { return impl_->address; }

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request) {
  return impl_->Call<v1::ScoreResponse>([&](grpc::ClientContext& context, v1::ScoreResponse& response) {
    return impl_->stub->Score(&context, request, &response);
  });
}

absl::StatusOr<v1::ExplainResponse> Client::Explain(const v1::ExplainRequest& request) {
  return impl_->Call<v1::ExplainResponse>([&](grpc::ClientContext& context, v1::ExplainResponse& response) {
    return impl_->stub->Explain(&context, request, &response);
  });
}

absl::StatusOr<v1::GetModelMetadataResponse> Client::GetModelMetadata(const v1::GetModelMetadataRequest& request) {
  return impl_->Call<v1::GetModelMetadataResponse>(
      [&](grpc::ClientContext& context, v1::GetModelMetadataResponse& response) {
        return impl_->stub->GetModelMetadata(&context, request, &response);
      });
}

// grpc.health.v1 without its proto, which Debian does not ship: HealthCheckRequest is one string and
// HealthCheckResponse one enum, both field 1, which is what these wrappers are on the wire.
absl::StatusOr<std::string> Client::Health(const std::string& service) {
  google::protobuf::StringValue request;
  request.set_value(service);
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check", grpc::internal::RpcMethod::NORMAL_RPC);
  const auto response = impl_->Call<google::protobuf::Int32Value>(
      [&](grpc::ClientContext& context, google::protobuf::Int32Value& response) {
        return grpc::internal::BlockingUnaryCall<google::protobuf::StringValue, google::protobuf::Int32Value,
                                                 google::protobuf::MessageLite, google::protobuf::MessageLite>(
            impl_->channel.get(), method, &context, request, &response);
      });
  if (!response.ok()) return response.status();
  switch (response->value()) {
    case 1:
      return "SERVING";
    case 2:
      return "NOT_SERVING";
    default:
      return absl::StrCat("UNKNOWN (", response->value(), ")");
  }
}

}  // namespace din
