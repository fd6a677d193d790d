// dinctl load, pin, unpin, rollback, label, unload, watch: orders to a server.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/quote.h"
#include "tools/admin_client.h"
#include "tools/command.h"
#include "tools/render.h"

namespace din {
namespace {

absl::StatusOr<int64_t> ParseVersion(const std::string& text) {
  int64_t version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error == std::errc() && end == text.data() + text.size() && version > 0) return version;
  return absl::InvalidArgumentError(absl::StrCat("version: ", Quote(text), ", expected a number from 1 on"));
}

void PrintModel(const v1::ModelStatus& model) {
  Table table({{"model"}, {"state"}, {"live", Align::kRight}, {"kept"}, {"policy"}, {"note"}});
  table.Add({Printable(model.model()), Printable(model.state()),
             model.live_version() == 0 ? "-" : absl::StrCat(model.live_version()),
             model.kept_versions().empty() ? "-" : absl::StrJoin(model.kept_versions(), ", "), PolicyText(model),
             StatusNote(model)});
  std::fputs(table.Text().c_str(), stdout);
}

// Sends an order and prints what came of it. `done` says whether that is what was wanted, once nothing is loading.
absl::StatusOr<int> Send(const Arguments& arguments, AdminClient::Order order, v1::OrderRequest request,
                         const std::function<bool(const v1::ModelStatus&)>& done) {
  request.set_model(arguments.positional[0]);
  request.set_wait(!arguments.Has("no-wait"));
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, AdminClient::Create(arguments));
  const absl::StatusOr<v1::OrderResponse> response = client->Send(order, request);
  if (!response.ok()) return Fail(request.model(), response.status());
  if (arguments.Has("json"))
    std::fputs(FormatJsonPretty(response->status()).c_str(), stdout);
  else
    PrintModel(response->status());
  return !request.wait() || done(response->status()) ? kExitOk : kExitFailed;
}

absl::StatusOr<int> Load(const Arguments& arguments) {
  return Send(arguments, AdminClient::Order::kLoad, {}, [](const v1::ModelStatus& m) { return m.live_version() != 0; });
}

absl::StatusOr<int> Pin(const Arguments& arguments) {
  v1::OrderRequest request;
  DIN_ASSIGN_OR_RETURN(const int64_t version, ParseVersion(arguments.positional[1]));
  request.set_version(version);
  return Send(arguments, AdminClient::Order::kPin, request,
              [version](const v1::ModelStatus& m) { return m.live_version() == version; });
}

absl::StatusOr<int> Unpin(const Arguments& arguments) {
  return Send(arguments, AdminClient::Order::kUnpin, {},
              [](const v1::ModelStatus& m) { return m.live_version() != 0; });
}

absl::StatusOr<int> Rollback(const Arguments& arguments) {
  v1::OrderRequest request;
  if (const std::optional<std::string> to = arguments.Get("to")) {
    DIN_ASSIGN_OR_RETURN(const int64_t version, ParseVersion(*to));
    request.set_version(version);
  }
  return Send(arguments, AdminClient::Order::kRollback, request, [&](const v1::ModelStatus& m) {
    if (request.version() != 0) return m.live_version() == request.version();
    // One number for each digest, the lowest: what is above any of them is still there.
    const auto left = [&](int64_t quarantined) { return quarantined > m.live_version(); };
    return m.live_version() != 0 && std::ranges::all_of(m.quarantined_versions(), left);
  });
}

absl::StatusOr<int> Label(const Arguments& arguments) {
  v1::OrderRequest request;
  const std::string& label = arguments.positional[1];
  request.set_label(label);
  if (arguments.positional[2] != "none") {
    DIN_ASSIGN_OR_RETURN(const int64_t version, ParseVersion(arguments.positional[2]));
    request.set_version(version);
  }
  return Send(arguments, AdminClient::Order::kSetLabel, request, [&](const v1::ModelStatus& m) {
    const int64_t version = request.version();
    return version == 0 || m.live_version() == version ||
           std::count(m.kept_versions().begin(), m.kept_versions().end(), version) > 0;
  });
}

absl::StatusOr<int> Unload(const Arguments& arguments) {
  v1::OrderRequest request;
  if (const std::optional<std::string> text = arguments.Get("version")) {
    DIN_ASSIGN_OR_RETURN(const int64_t version, ParseVersion(*text));
    request.set_version(version);
  }
  return Send(arguments, AdminClient::Order::kUnload, request, [](const v1::ModelStatus&) { return true; });
}

// One line: when, what, which.
void PrintEvent(const v1::Event& event) {
  const std::time_t seconds = event.time_ms() / 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  char time[32];
  std::strftime(time, sizeof(time), "%H:%M:%S", &local);
  std::string text = Printable(event.text(), 300);
  const v1::ModelStatus& status = event.status();
  if (event.kind() == "progress" && status.loading_total_bytes() > 0) {
    text = absl::StrFormat(
        "%.0f %% of %s",
        100.0 * static_cast<double>(status.loading_bytes()) / static_cast<double>(status.loading_total_bytes()),
        HumanBytes(status.loading_total_bytes()));
  } else if (event.kind() == "status") {
    text = absl::StrCat(status.state(), "  ", PolicyText(status), "  ", StatusNote(status));
  }
  std::printf("%s.%03d  %-11s %s%s  %s\n", time, static_cast<int>(event.time_ms() % 1000),
              Printable(event.kind()).c_str(), Printable(event.model()).c_str(),
              event.version() == 0 ? "" : absl::StrCat("/", event.version()).c_str(), text.c_str());
}

absl::StatusOr<int> Watch(const Arguments& arguments) {
  DIN_ASSIGN_OR_RETURN(const uint64_t most, arguments.Number("events", 0, INT64_MAX));
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> client, AdminClient::Create(arguments));
  v1::WatchRequest request;
  request.set_model(arguments.Get("model").value_or(""));
  uint64_t seen = 0;
  const absl::Status status = client->Watch(request, [&](const v1::Event& event) {
    if (arguments.Has("json"))
      std::puts(FormatJson(event).c_str());
    else
      PrintEvent(event);
    std::fflush(stdout);
    return most == 0 || ++seen < most;
  });
  return status.ok() ? kExitOk : Fail("watch", status);
}

constexpr CommandOption kNoWait = {"no-wait", nullptr, "do not wait for loads that follow from it"};

}  // namespace

std::vector<Command> AdminCommands() {
  return {
      {.name = "load",
       .arguments = "MODEL",
       .summary = "look for versions now, try again what was refused, take back unload",
       .details = "  dinctl load movielens\n",
       .positional = 1,
       .uses = Command::Uses::kAdmin,
       .options = {kNoWait},
       .run = Load},
      {.name = "pin",
       .arguments = "MODEL VERSION",
       .summary = "make a version live and leave it so, whatever is published",
       .details =
           "At once where the version is in memory. Exits 1 when it was refused: the order stands, and what was\n"
           "live stays.\n"
           "\n"
           "  dinctl pin movielens 7\n",
       .positional = 2,
       .uses = Command::Uses::kAdmin,
       .options = {kNoWait},
       .run = Pin},
      {.name = "unpin",
       .arguments = "MODEL",
       .summary = "back to the newest version; lifts the quarantine of what was rolled back",
       .details = "  dinctl unpin movielens\n",
       .positional = 1,
       .uses = Command::Uses::kAdmin,
       .options = {kNoWait},
       .run = Unpin},
      {.name = "rollback",
       .arguments = "MODEL",
       .summary = "go back to the version before the live one",
       .details =
           "At once where it is kept in memory (din-server --keep). The version that is left is not loaded again\n"
           "until unpin, or until something newer is live.\n"
           "\n"
           "  dinctl rollback movielens\n",
       .positional = 1,
       .uses = Command::Uses::kAdmin,
       .options = {{"to", "VERSION", "[the one that was live before]"}, kNoWait},
       .run = Rollback},
      {.name = "label",
       .arguments = "MODEL LABEL VERSION",
       .summary = "let a label point to a version, for requests that ask for it; none removes it",
       .details = "The label \"stable\" is also what goes live.\n"
                  "\n"
                  "  dinctl label movielens stable 7\n"
                  "  dinctl label movielens canary 8      # served to requests with \"label\": \"canary\"\n"
                  "  dinctl label movielens stable 8\n"
                  "  dinctl label movielens canary none\n",
       .positional = 3,
       .uses = Command::Uses::kAdmin,
       .options = {kNoWait},
       .run = Label},
      {.name = "unload",
       .arguments = "MODEL",
       .summary = "serve a model no more, until load; or drop one version that is kept",
       .details = "  dinctl unload movielens --version 6\n",
       .positional = 1,
       .uses = Command::Uses::kAdmin,
       .options = {{"version", "VERSION", "[the whole model]"}, kNoWait},
       .run = Unload},
      {.name = "watch",
       .arguments = "",
       .summary = "what happens to models, while it happens",
       .details = "  dinctl watch --model movielens\n",
       .positional = 0,
       .uses = Command::Uses::kAdmin,
       .options = {{"model", "NAME", "[all]"}, {"events", "N", "end after so many [0: never]"}},
       .run = Watch},
  };
}

}  // namespace din
