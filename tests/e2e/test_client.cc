#include "tests/e2e/test_client.h"

#include <google/protobuf/wrappers.pb.h>
#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/support/sync_stream.h>

#include <future>
#include <vector>

#include "proto/scoring.grpc.pb.h"

namespace din {
namespace {

using google::protobuf::Int32Value;
using google::protobuf::MessageLite;
using google::protobuf::StringValue;
using grpc::internal::RpcMethod;

using ReflectionStream = grpc::ClientReaderWriter<StringValue, StringValue>;

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// The enum of grpc.health.v1, whose messages are wrappers of one field (see tools/client.cc).
std::string HealthName(int value) {
  const char* const names[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  return value >= 0 && value < 4 ? names[value] : "?";
}

void SetTimeout(grpc::ClientContext& context, std::chrono::milliseconds timeout) {
  context.set_deadline(std::chrono::system_clock::now() + timeout);
}

}  // namespace

struct PendingScore::Impl {
  grpc::ClientContext context;
  v1::ScoreRequest request;
  v1::ScoreResponse response;
  std::promise<grpc::Status> done;
};

PendingScore::PendingScore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PendingScore::PendingScore(PendingScore&&) noexcept = default;
PendingScore::~PendingScore() = default;
void PendingScore::Cancel() { impl_->context.TryCancel(); }
absl::StatusOr<v1::ScoreResponse> PendingScore::Wait() {
  const grpc::Status status = impl_->done.get_future().get();
  if (!status.ok()) return FromGrpc(status);
  return impl_->response;
}

struct HealthWatch::Impl {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<Int32Value>> reader;
};

HealthWatch::HealthWatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HealthWatch::~HealthWatch() {
  impl_->context.TryCancel();
  (void)impl_->reader->Finish();
}
std::optional<std::string> HealthWatch::Next() {
  Int32Value status;
  if (!impl_->reader->Read(&status)) return std::nullopt;
  return HealthName(status.value());
}

struct TestClient::Impl {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::ScoringService::Stub> stub;
  std::vector<std::unique_ptr<grpc::ClientContext>> leaked;
  std::vector<std::unique_ptr<ReflectionStream>> streams;
};

TestClient::TestClient(const std::string& address) : impl_(std::make_unique<Impl>()) {
  // Never taken back: the library's end waits up to ten seconds for a connection that went with a message half sent.
  grpc_init();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  impl_->channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  impl_->stub = v1::ScoringService::NewStub(impl_->channel);
}
TestClient::~TestClient() {
  for (const auto& context : impl_->leaked) context->TryCancel();
  for (const auto& stream : impl_->streams) (void)stream->Finish();
}

absl::StatusOr<v1::ScoreResponse> TestClient::Score(const v1::ScoreRequest& request, Timeout timeout) {
  return StartScore(request, timeout).Wait();
}

PendingScore TestClient::StartScore(const v1::ScoreRequest& request, Timeout timeout) {
  auto call = std::make_unique<PendingScore::Impl>();
  SetTimeout(call->context, timeout);
  call->request = request;
  auto* c = call.get();
  impl_->stub->async()->Score(&c->context, &c->request, &c->response,
                              [c](const grpc::Status& status) { c->done.set_value(status); });
  return PendingScore(std::move(call));
}

absl::Status TestClient::ScoreBytes(const std::string& bytes, const std::string& compression) {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  if (compression == "gzip") context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  if (compression == "deflate") context.set_compression_algorithm(GRPC_COMPRESS_DEFLATE);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  const RpcMethod method("/din.v1.ScoringService/Score", RpcMethod::NORMAL_RPC);
  return FromGrpc(grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(impl_->channel.get(), method,
                                                                                        &context, request, &response));
}

absl::StatusOr<v1::ExplainResponse> TestClient::Explain(const v1::ExplainRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  v1::ExplainResponse response;
  const grpc::Status status = impl_->stub->Explain(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<v1::GetModelMetadataResponse> TestClient::GetModelMetadata(const std::string& model) {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  v1::GetModelMetadataRequest request;
  request.set_model(model);
  v1::GetModelMetadataResponse response;
  const grpc::Status status = impl_->stub->GetModelMetadata(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<std::string> TestClient::Health(const std::string& service) {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  StringValue request;
  request.set_value(service);
  Int32Value response;
  const RpcMethod method("/grpc.health.v1.Health/Check", RpcMethod::NORMAL_RPC);
  const grpc::Status status = grpc::internal::BlockingUnaryCall<StringValue, Int32Value, MessageLite, MessageLite>(
      impl_->channel.get(), method, &context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return HealthName(response.value());
}

std::unique_ptr<HealthWatch> TestClient::WatchHealth(const std::string& service) {
  auto watch = std::make_unique<HealthWatch::Impl>();
  SetTimeout(watch->context, std::chrono::seconds(60));
  StringValue request;
  request.set_value(service);
  const RpcMethod method("/grpc.health.v1.Health/Watch", RpcMethod::SERVER_STREAMING);
  watch->reader.reset(
      grpc::internal::ClientReaderFactory<Int32Value>::Create(impl_->channel.get(), method, &watch->context, request));
  return std::make_unique<HealthWatch>(std::move(watch));
}

// One ServerReflectionRequest{list_services: ""}: the stream of one message, so a unary call will do.
absl::StatusOr<std::string> TestClient::ListServices() {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  const std::string bytes("\x3a\x00", 2);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  const RpcMethod method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", RpcMethod::NORMAL_RPC);
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      impl_->channel.get(), method, &context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  std::vector<grpc::Slice> slices;
  (void)response.Dump(&slices);
  std::string out;
  for (const grpc::Slice& s : slices) out.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return out;
}

void TestClient::LeakReflectionStream() {
  impl_->leaked.push_back(std::make_unique<grpc::ClientContext>());
  const RpcMethod method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", RpcMethod::BIDI_STREAMING);
  impl_->streams.emplace_back(grpc::internal::ClientReaderWriterFactory<StringValue, StringValue>::Create(
      impl_->channel.get(), method, impl_->leaked.back().get()));
}

}  // namespace din
