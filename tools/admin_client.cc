#include "tools/admin_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"
#include "proto/admin.grpc.pb.h"
#include "tools/render.h"

namespace din {
namespace {

constexpr char kDefaultAddress[] = "unix:/var/lib/din-server/admin.sock";
// Longer than for a request: an order may wait for a load.
constexpr std::chrono::milliseconds kDefaultTimeout{600'000};

absl::StatusOr<std::string> ReadPem(const Arguments& arguments, const char* option) {
  std::string text;
  const std::optional<std::string> path = arguments.Get(option);
  if (!path) return text;
  std::ifstream in(*path, std::ios::binary);
  text.assign(std::istreambuf_iterator<char>(in), {});
  if (in && !text.empty()) return text;
  return absl::InvalidArgumentError(absl::StrCat("--", option, ": ", Quote(*path), " cannot be read, or is empty"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const Arguments& arguments) {
  grpc::SslCredentialsOptions ssl;
  DIN_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem(arguments, "tls-ca"));
  DIN_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadPem(arguments, "tls-cert"));
  DIN_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadPem(arguments, "tls-key"));
  if (ssl.pem_root_certs.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(ssl);
}

}  // namespace

struct AdminClient::Impl {
  std::string address;
  std::chrono::milliseconds timeout = kDefaultTimeout;
  std::unique_ptr<v1::AdminService::Stub> stub;

  absl::Status ToStatus(const grpc::Status& status) const {
    if (status.ok()) return absl::OkStatus();
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        absl::StrCat(address, ": ", status.error_message()));
  }
};

AdminClient::AdminClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminClient::~AdminClient() = default;

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Create(const Arguments& arguments) {
  auto impl = std::make_unique<Impl>();
  const char* const from_environment = std::getenv("DIN_ADMIN");
  impl->address = arguments.Get("admin").value_or(from_environment != nullptr ? from_environment : kDefaultAddress);
  DIN_ASSIGN_OR_RETURN(impl->timeout, arguments.Timeout(impl->timeout));
  DIN_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> credentials, Credentials(arguments));
  grpc::ChannelArguments channel;
  channel.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  impl->stub = v1::AdminService::NewStub(grpc::CreateCustomChannel(impl->address, credentials, channel));
  return std::unique_ptr<AdminClient>(new AdminClient(std::move(impl)));
}

absl::StatusOr<v1::OrderResponse> AdminClient::Send(Order order, const v1::OrderRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + impl_->timeout);
  v1::OrderResponse response;
  grpc::Status status;
  switch (order) {
    case Order::kLoad:
      status = impl_->stub->Load(&context, request, &response);
      break;
    case Order::kPin:
      status = impl_->stub->Pin(&context, request, &response);
      break;
    case Order::kUnpin:
      status = impl_->stub->Unpin(&context, request, &response);
      break;
    case Order::kRollback:
      status = impl_->stub->Rollback(&context, request, &response);
      break;
    case Order::kSetLabel:
      status = impl_->stub->SetLabel(&context, request, &response);
      break;
    case Order::kUnload:
      status = impl_->stub->Unload(&context, request, &response);
      break;
  }
  if (!status.ok()) return impl_->ToStatus(status);
  return response;
}

absl::Status AdminClient::Watch(const v1::WatchRequest& request,
                                const std::function<bool(const v1::Event&)>& on_event) {
  grpc::ClientContext context;
  const auto reader = impl_->stub->Watch(&context, request);
  bool enough = false;
  for (v1::Event event; !enough && reader->Read(&event);) enough = !on_event(event);
  if (enough) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return enough ? absl::OkStatus() : impl_->ToStatus(status);
}

std::string PolicyText(const v1::ModelStatus& status) {
  std::vector<std::string> parts;
  if (status.unloaded()) parts.push_back("unloaded");
  if (status.pinned_version() != 0) parts.push_back(absl::StrCat("pinned ", status.pinned_version()));
  std::map<std::string, int64_t> labels(status.labels().begin(), status.labels().end());
  for (const auto& [label, version] : labels) parts.push_back(absl::StrCat(Printable(label), " ", version));
  if (!status.quarantined_versions().empty()) {
    parts.push_back(absl::StrCat("quarantined ", absl::StrJoin(status.quarantined_versions(), ", ")));
  }
  return parts.empty() ? "latest" : absl::StrJoin(parts, "; ");
}

std::string StatusNote(const v1::ModelStatus& status) {
  std::vector<std::string> parts;
  if (status.loading_version() != 0) {
    std::string how_far = status.verifying() ? "verifying" : "loading";
    if (!status.verifying() && status.loading_total_bytes() > 0) {
      absl::StrAppend(&how_far, ", ", 100 * status.loading_bytes() / status.loading_total_bytes(), " % of ",
                      HumanBytes(status.loading_total_bytes()));
    }
    if (status.loading_starved()) absl::StrAppend(&how_far, ", starved of a core");
    parts.push_back(absl::StrCat("version ", status.loading_version(), " is ", how_far));
  }
  if (!status.retiring_versions().empty()) {
    parts.push_back(absl::StrCat("retiring ", absl::StrJoin(status.retiring_versions(), ", ")));
  }
  if (!status.incomplete_versions().empty()) {
    parts.push_back(absl::StrCat("without a manifest.json: ", absl::StrJoin(status.incomplete_versions(), ", "),
                                 " (see dinctl seal)"));
  }
  if (status.refused_version() != 0) {
    parts.push_back(
        absl::StrCat("version ", status.refused_version(), " was refused: ", Printable(status.refused_reason(), 300)));
  }
  const auto stable = status.labels().find("stable");
  const bool pinned = status.pinned_version() != 0;
  const int64_t ordered = pinned ? status.pinned_version() : stable != status.labels().end() ? stable->second : 0;
  const bool heard_of =
      ordered == status.live_version() || ordered == status.loading_version() || ordered == status.refused_version();
  if (ordered != 0 && !heard_of && !status.unloaded()) {
    parts.push_back(absl::StrCat("version ", ordered, pinned ? ", which is pinned," : ", which is labelled stable,",
                                 " is not loaded; is it in the model root?"));
  }
  if (parts.empty() && status.live_version() == 0 && !status.unloaded()) return "no complete version was found";
  return absl::StrJoin(parts, "; ");
}

}  // namespace din
