// dinctl score, explain: requests to a server, answers for people.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "tools/client.h"
#include "tools/command.h"
#include "tools/render.h"

namespace din {
namespace {

constexpr int kBarWidth = 30;
constexpr uint64_t kMostRows = 1'000'000;

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) return absl::NotFoundError(std::strerror(errno));
  }
  std::istream& in = path == "-" ? std::cin : file;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

absl::StatusOr<v1::ScoreRequest> ReadRequest(const std::string& path) {
  DIN_ASSIGN_OR_RETURN(const std::string text, ReadAll(path));
  v1::ScoreRequest request;
  DIN_RETURN_IF_ERROR(ParseJson(text, path == "-" ? "standard input" : path, request));
  return request;
}

// The id at a row of a column of ids or keys; "" elsewhere.
std::string IdAt(const v1::Column& column, size_t row) {
  const auto i = static_cast<int>(row);
  if (i < column.ids_size()) return absl::StrCat(column.ids(i));
  if (i < column.keys_size()) return Printable(column.keys(i));
  return "";
}

std::string FirstIdAt(const google::protobuf::RepeatedPtrField<v1::Column>& columns, size_t row) {
  for (const v1::Column& column : columns) {
    if (std::string id = IdAt(column, row); !id.empty()) return id;
  }
  return "";
}

// What the caller calls the candidate: the name sent for it, else its first id.
std::string NameOf(const v1::ScoreRequest& request, uint32_t position) {
  const auto c = static_cast<int>(position);
  if (c < request.candidate_ids_size()) return absl::StrCat(request.candidate_ids(c));
  if (c < request.candidate_keys_size()) return Printable(request.candidate_keys(c));
  return FirstIdAt(request.candidates(), position);
}

void PrintRanking(const v1::ScoreRequest& request, const v1::ScoreResponse& response) {
  const std::unordered_set<uint32_t> unknown(response.out_of_vocabulary().begin(), response.out_of_vocabulary().end());
  const bool labels =
      std::any_of(response.labels().begin(), response.labels().end(), [](const auto& label) { return !label.empty(); });
  std::vector<Table::Column> columns = {{"rank", Align::kRight}, {"index", Align::kRight}, {"id", Align::kLeft}};
  if (labels) columns.push_back({"label", Align::kLeft});
  columns.insert(columns.end(), {{"score", Align::kRight}, {"", Align::kLeft}});
  Table table(std::move(columns));
  for (int rank = 0; rank < response.scores_size(); ++rank) {
    const uint32_t position = response.index(rank);
    std::vector<std::string> row = {absl::StrCat(rank + 1), absl::StrCat(position), NameOf(request, position)};
    if (labels) row.push_back(Printable(response.labels(rank)));
    row.push_back(absl::StrFormat("%.6f", response.scores(rank)));
    row.push_back(unknown.contains(static_cast<uint32_t>(rank)) ? "unknown id" : "");
    table.Add(std::move(row));
  }
  std::printf("model %s, version %lld, %d candidates ranked\n\n%s", response.model().c_str(),
              static_cast<long long>(response.version()), response.scores_size(), table.Text().c_str());
}

absl::StatusOr<int> Score(const Arguments& arguments) {
  DIN_ASSIGN_OR_RETURN(const uint64_t top, arguments.Number("top", 0, kMostRows));
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(arguments));
  const std::string& path = arguments.positional[0];
  absl::StatusOr<v1::ScoreRequest> request = ReadRequest(path);
  if (!request.ok()) return Fail(path, request.status());
  if (top > 0) request->set_top_k(static_cast<uint32_t>(top));
  if (!arguments.Has("json")) request->set_labels(true);
  const absl::StatusOr<v1::ScoreResponse> response = client->Score(*request);
  if (!response.ok()) return Fail("score", response.status());
  if (arguments.Has("json"))
    std::fputs(FormatJsonPretty(*response).c_str(), stdout);
  else
    PrintRanking(*request, *response);
  return kExitOk;
}

// --- explain ---------------------------------------------------------------------------------------------------------

struct Behaviours {
  const v1::Sequence* sent = nullptr;                           // nullptr: not in the request
  const v1::ExplainResponse::SequenceLabels* labels = nullptr;  // nullptr: no labels

  std::string Name(size_t position) const {
    const auto p = static_cast<int>(position);
    const std::string id = sent != nullptr ? FirstIdAt(sent->columns(), position) : "";
    if (labels == nullptr || p >= labels->labels_size() || labels->labels(p).empty()) return id;
    return Printable(labels->labels(p));
  }
};

Behaviours BehavioursOf(const v1::ScoreRequest& request, const v1::ExplainResponse& response,
                        const std::string& sequence) {
  Behaviours out;
  for (const v1::Sequence& sent : request.sequences()) {
    if (sent.name() == sequence) out.sent = &sent;
  }
  for (const auto& labels : response.labels()) {
    if (labels.sequence() == sequence) out.labels = &labels;
  }
  return out;
}

// The behaviours that count most, for or against, and a bar for each.
void PrintWeights(const v1::ExplainResponse::Weights& weights, const Behaviours& behaviours, size_t most) {
  const auto sent = static_cast<size_t>(weights.weights_size());
  const size_t attended = sent - static_cast<size_t>(weights.not_attended_size());
  std::printf("\n  attention %s on %s: %zu behaviours sent, %zu attended\n", weights.attention().c_str(),
              weights.sequence().c_str(), sent, attended);
  const std::unordered_set<uint32_t> left_out(weights.not_attended().begin(), weights.not_attended().end());
  std::vector<uint32_t> order;
  for (uint32_t p = 0; p < sent; ++p) {
    if (!left_out.contains(p)) order.push_back(p);
  }
  const auto size = [&](uint32_t p) { return std::abs(weights.weights(static_cast<int>(p))); };
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return size(a) > size(b); });
  const double largest = order.empty() ? 0 : size(order[0]);
  order.resize(std::min(order.size(), most));
  Table table(
      {{"  weight", Align::kRight}, {"", Align::kLeft}, {"position", Align::kRight}, {"behaviour", Align::kLeft}});
  for (const uint32_t p : order) {
    const float weight = weights.weights(static_cast<int>(p));
    table.Add({absl::StrFormat("%+.6f", weight), Bar(weight, largest, kBarWidth), absl::StrCat(p), behaviours.Name(p)});
  }
  if (!order.empty()) std::fputs(table.Text().c_str(), stdout);
  if (attended > order.size()) std::printf("  … and %zu more (--behaviours N)\n", attended - order.size());
  if (weights.padding_weight() != 0) std::printf("  padding took part with %+.6f\n", weights.padding_weight());
}

size_t Sent(const v1::Sequence& sequence) {
  if (sequence.columns().empty()) return 0;
  const v1::Column& first = sequence.columns(0);
  return static_cast<size_t>(std::max(first.ids_size(), first.keys_size()));
}

// What the user did last, the latest first.
void PrintRecent(const v1::ScoreRequest& request, const v1::ExplainResponse& response, size_t most) {
  for (const v1::Sequence& sequence : request.sequences()) {
    const size_t sent = Sent(sequence);
    const Behaviours behaviours = BehavioursOf(request, response, sequence.name());
    std::printf("%s: %zu behaviours%s\n", sequence.name().c_str(), sent, sent > 0 && most > 0 ? ", the latest:" : "");
    for (size_t i = 0; i < std::min(sent, most); ++i) std::printf("  %s\n", behaviours.Name(sent - 1 - i).c_str());
  }
  std::puts("");
}

void PrintExplanation(const v1::ExplainRequest& request, const v1::ExplainResponse& response, size_t most,
                      size_t recent) {
  PrintRecent(request.request(), response, recent);
  PrintRanking(request.request(), response.response());
  for (const v1::ExplainResponse::Candidate& candidate : response.candidates()) {
    const std::string id = NameOf(request.request(), candidate.index());
    std::printf("\nwhy candidate %u%s%s%s%s scores %.6f\n", candidate.index(), id.empty() ? "" : ", id ", id.c_str(),
                candidate.label().empty() ? "" : ", ", Printable(candidate.label()).c_str(), candidate.score());
    for (const v1::ExplainResponse::Weights& weights : candidate.attentions()) {
      PrintWeights(weights, BehavioursOf(request.request(), response, weights.sequence()), most);
    }
    if (candidate.attentions().empty()) std::puts("\n  the model has no attention: its pooling is the same for all");
  }
}

absl::StatusOr<int> Explain(const Arguments& arguments) {
  DIN_ASSIGN_OR_RETURN(const uint64_t top, arguments.Number("top", 0, kMostRows));
  DIN_ASSIGN_OR_RETURN(const uint64_t most, arguments.Number("behaviours", 10, kMostRows));
  DIN_ASSIGN_OR_RETURN(const uint64_t recent, arguments.Number("recent", 5, kMostRows));
  DIN_ASSIGN_OR_RETURN(const std::vector<uint32_t> candidates, arguments.Numbers("candidates"));
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(arguments));
  const std::string& path = arguments.positional[0];
  absl::StatusOr<v1::ScoreRequest> score = ReadRequest(path);
  if (!score.ok()) return Fail(path, score.status());
  v1::ExplainRequest request;
  *request.mutable_request() = *std::move(score);
  if (top > 0) request.mutable_request()->set_top_k(static_cast<uint32_t>(top));
  if (!arguments.Has("json")) request.mutable_request()->set_labels(true);
  request.mutable_candidates()->Add(candidates.begin(), candidates.end());
  const absl::StatusOr<v1::ExplainResponse> response = client->Explain(request);
  if (!response.ok()) return Fail("explain", response.status());
  if (arguments.Has("json"))
    std::fputs(FormatJsonPretty(*response).c_str(), stdout);
  else
    PrintExplanation(request, *response, most, recent);
  return kExitOk;
}

}  // namespace

std::vector<Command> ScoreCommands() {
  return {
      {.name = "score",
       .arguments = "REQUEST",
       .summary = "rank the candidates of a request by predicted CTR",
       .details = "REQUEST is a file, or - for standard input, with a din.v1.ScoreRequest in JSON:\n"
                  "\n"
                  "  {\"model\": \"movielens\",\n"
                  "   \"sequences\": [{\"name\": \"history\",\n"
                  "                  \"columns\": [{\"name\": \"history_item\", \"ids\": [1, 2571, 480]}]}],\n"
                  "   \"candidates\": [{\"name\": \"item\", \"ids\": [1196, 260, 2628]}]}\n"
                  "\n"
                  "  dinctl score request.json --top 10\n"
                  "\n"
                  "`dinctl metadata --example` prints a request to start from.\n",
       .positional = 1,
       .uses = Command::Uses::kServer,
       .options = {{"top", "N", "only the N best [top_k of the request, else all]"}},
       .run = Score},
      {.name = "explain",
       .arguments = "REQUEST",
       .summary = "show which behaviours speak for a candidate",
       .details = "Scores REQUEST (see dinctl score --help) and shows, for the best candidate or those asked for, how\n"
                  "much weight the model's attention gave each behaviour.\n"
                  "\n"
                  "  dinctl explain request.json --candidates 0,3 --behaviours 5\n",
       .positional = 1,
       .uses = Command::Uses::kServer,
       .options = {{"candidates", "I,J,…", "positions in the request [the best one]"},
                   {"behaviours", "N", "show the N weightiest [10]"},
                   {"recent", "N", "show the N latest [5]"},
                   {"top", "N", "rank only the N best [top_k of the request, else all]"}},
       .run = Explain},
  };
}

}  // namespace din
