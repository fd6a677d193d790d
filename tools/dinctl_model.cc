// dinctl metadata, status: what a server serves.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "tools/admin_client.h"
#include "tools/client.h"
#include "tools/command.h"
#include "tools/render.h"

namespace din {
namespace {

using FeatureInfo = v1::GetModelMetadataResponse::FeatureInfo;

void PrintMetadata(const v1::GetModelMetadataResponse& model) {
  std::printf("model        %s\n", Printable(model.model()).c_str());
  std::printf("version      %lld\n", static_cast<long long>(model.version()));
  std::printf("digest       %s\n", Printable(model.digest(), 64).c_str());
  if (!model.spec().description().empty()) {
    std::printf("description  %s\n", Printable(model.spec().description(), 200).c_str());
  }
  std::printf("golden       %u cases, largest error %.3g on %s\n", model.golden_cases(), model.largest_golden_error(),
              Printable(model.instruction_set()).c_str());
  std::printf(
      "precision    %s, asked for: %s%s\n", Printable(model.precision()).c_str(),
      Printable(model.precision_asked()).c_str(),
      model.precision_note().empty() ? "" : absl::StrCat(" (", Printable(model.precision_note(), 300), ")").c_str());
  std::printf("memory       %s\n\n", HumanBytes(model.memory_bytes()).c_str());
  Table table({{"feature"}, {"in"}, {"kind"}, {"ids"}, {"width", Align::kRight}, {"rows", Align::kRight}, {""}});
  for (const FeatureInfo& f : model.features()) {
    const std::string in = f.scope() == v1::USER        ? "features"
                           : f.scope() == v1::CANDIDATE ? "candidates"
                                                        : absl::StrCat("sequence ", Printable(f.sequence()));
    const bool ids = f.kind() != v1::DENSE;
    table.Add({Printable(f.name()), in, v1::FeatureKind_Name(f.kind()), ids ? v1::IdType_Name(f.id_type()) : "",
               ids ? "" : absl::StrCat(f.width()), ids ? absl::StrCat(f.rows()) : "",
               f.required() ? "required" : "from a side table when left out"});
  }
  std::fputs(table.Text().c_str(), stdout);
}

// An id that the feature's map is likely to know.
void AddExampleId(const v1::ModelSpec& spec, const FeatureInfo& info, v1::Column& column) {
  if (info.id_type() == v1::STRING) {
    column.add_keys("a");
    return;
  }
  int64_t id = 1;
  for (const v1::Feature& feature : spec.features()) {
    if (feature.name() != info.name()) continue;
    for (const v1::IdMap& map : spec.id_maps()) {
      if (map.name() == feature.id_map() && map.has_identity()) id = map.identity().first();
    }
  }
  column.add_ids(id);
}

// One row of every required feature.
v1::ScoreRequest ExampleRequest(const v1::GetModelMetadataResponse& model) {
  v1::ScoreRequest request;
  request.set_model(model.model());
  for (const v1::SequenceSpec& sequence : model.spec().sequences()) request.add_sequences()->set_name(sequence.name());
  for (const FeatureInfo& info : model.features()) {
    if (!info.required()) continue;
    v1::Column* column = nullptr;
    if (info.scope() == v1::USER) column = request.add_features();
    if (info.scope() == v1::CANDIDATE) column = request.add_candidates();
    for (v1::Sequence& sequence : *request.mutable_sequences()) {
      if (info.scope() == v1::SEQUENCE && sequence.name() == info.sequence()) column = sequence.add_columns();
    }
    if (column == nullptr) continue;
    column->set_name(info.name());
    if (info.kind() == v1::DENSE) {
      for (uint32_t i = 0; i < info.width(); ++i) column->add_values(0.5f);
      continue;
    }
    AddExampleId(model.spec(), info, *column);
    if (info.kind() == v1::ID_LIST && info.scope() != v1::USER) {
      column->add_offsets(0);
      column->add_offsets(1);
    }
  }
  return request;
}

absl::StatusOr<int> Metadata(const Arguments& arguments) {
  DIN_ASSIGN_OR_RETURN(const uint64_t version, arguments.Number("version", 0, INT64_MAX));
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(arguments));
  v1::GetModelMetadataRequest request;
  request.set_model(arguments.Get("model").value_or(""));
  request.set_version(static_cast<int64_t>(version));
  const absl::StatusOr<v1::GetModelMetadataResponse> model = client->GetModelMetadata(request);
  if (!model.ok()) return Fail("metadata", model.status());
  if (model->model().empty()) {
    std::string names;
    for (const std::string& name : model->models()) absl::StrAppend(&names, names.empty() ? "" : ", ", Printable(name));
    return Fail("metadata",
                absl::InvalidArgumentError(absl::StrCat("--model: not given, and not exactly one is served: ", names)));
  }
  if (arguments.Has("example"))
    std::fputs(FormatJsonPretty(ExampleRequest(*model)).c_str(), stdout);
  else if (arguments.Has("json"))
    std::fputs(FormatJsonPretty(*model).c_str(), stdout);
  else
    PrintMetadata(*model);
  return kExitOk;
}

// --- status ----------------------------------------------------------------------------------------------------------

struct ModelStatusRow {
  std::string name;
  std::string health;
  v1::ModelStatus status;
  absl::StatusOr<v1::GetModelMetadataResponse> metadata;
};

void PrintStatus(const std::string& address, const std::string& server, const std::vector<ModelStatusRow>& rows) {
  std::printf("server %s: %s\n\n", address.c_str(), server.c_str());
  Table table({{"model"},
               {"health"},
               {"version", Align::kRight},
               {"kept"},
               {"policy"},
               {"digest"},
               {"golden", Align::kRight},
               {"largest error", Align::kRight},
               {"kernels"},
               {"memory", Align::kRight},
               {""}});
  for (const ModelStatusRow& row : rows) {
    if (!row.metadata.ok()) {
      const std::string error = Printable(std::string(row.metadata.status().message()), 300);
      table.Add({Printable(row.name), row.health, "-", "-", PolicyText(row.status), "-", "-", "-", "-", "-",
                 row.status.live_version() == 0 ? StatusNote(row.status) : error});
      continue;
    }
    const v1::GetModelMetadataResponse& m = *row.metadata;
    table.Add({Printable(row.name), row.health, absl::StrCat(m.version()),
               row.status.kept_versions().empty() ? "-" : absl::StrJoin(row.status.kept_versions(), ", "),
               PolicyText(row.status), m.digest().substr(0, 12), absl::StrCat(m.golden_cases()),
               absl::StrFormat("%.2g", m.largest_golden_error()), Printable(m.instruction_set()),
               HumanBytes(m.memory_bytes()), StatusNote(row.status)});
  }
  std::fputs(table.Text().c_str(), stdout);
}

void PrintStatusJson(const std::string& server, const std::vector<ModelStatusRow>& rows) {
  std::printf("{\"server\": \"%s\", \"models\": [", server.c_str());
  for (size_t i = 0; i < rows.size(); ++i) {
    const ModelStatusRow& row = rows[i];
    v1::GetModelMetadataResponse model;
    if (row.metadata.ok()) model = *row.metadata;
    model.set_model(row.name);
    model.clear_spec();
    model.clear_features();
    model.clear_models();
    model.clear_statuses();
    std::printf("%s\n  {\"health\": \"%s\", \"status\": %s, \"metadata\": %s}", i == 0 ? "" : ",", row.health.c_str(),
                FormatJson(row.status).c_str(), FormatJson(model).c_str());
  }
  std::puts("\n]}");
}

absl::StatusOr<int> Status(const Arguments& arguments) {
  DIN_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(arguments));
  const absl::StatusOr<std::string> server = client->Health("");
  if (!server.ok()) return Fail("status", server.status());
  const absl::StatusOr<v1::GetModelMetadataResponse> overview = client->GetModelMetadata({});
  if (!overview.ok()) return Fail("status", overview.status());
  std::vector<ModelStatusRow> rows;
  bool all_serve = *server == "SERVING";
  for (const v1::ModelStatus& status : overview->statuses()) {
    const std::string& name = status.model();
    v1::GetModelMetadataRequest request;
    request.set_model(name);
    const absl::StatusOr<std::string> health = client->Health(name);
    rows.push_back({name, health.ok() ? *health : std::string(health.status().message()), status,
                    client->GetModelMetadata(request)});
    all_serve = all_serve && rows.back().health == "SERVING";
  }
  if (arguments.Has("json"))
    PrintStatusJson(*server, rows);
  else
    PrintStatus(client->address(), *server, rows);
  return all_serve ? kExitOk : kExitFailed;
}

}  // namespace

std::vector<Command> ModelCommands() {
  return {
      {.name = "metadata",
       .arguments = "",
       .summary = "what a model wants in a request, and where it comes from",
       .details = "  dinctl metadata --model movielens\n"
                  "  dinctl metadata --model movielens --example > request.json\n",
       .positional = 0,
       .uses = Command::Uses::kServer,
       .options = {{"model", "NAME", "[the only one served]"},
                   {"version", "N", "[the live one]"},
                   {"example", nullptr, "print a request with one row of every required feature, in JSON"}},
       .run = Metadata},
      {.name = "status",
       .arguments = "",
       .summary = "health and live version of every model",
       .details = "Exits 0 when the server and every model are SERVING, else 1.\n"
                  "\n"
                  "  dinctl status --server ads-scoring-3:8500\n",
       .positional = 0,
       .uses = Command::Uses::kServer,
       .options = {},
       .run = Status},
  };
}

}  // namespace din
