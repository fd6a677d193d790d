// dinctl verify, inspect, diff, seal: snapshots on disk, without a server.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/instruction_set.h"
#include "model/resolved_spec.h"
#include "model_loader/delta.h"
#include "model_loader/json.h"
#include "model_loader/load_model.h"
#include "model_loader/snapshot.h"
#include "model_loader/snapshot_writer.h"
#include "tools/command.h"
#include "tools/render.h"

namespace din {
namespace {

// --- verify ----------------------------------------------------------------------------------------------------------

// oneDNN fixes its instruction set once per process, so each one is verified in a process of its own.
int InChild(const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int exit_code = work();
    std::fflush(nullptr);
    _exit(exit_code);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    return Fail("verify", absl::InternalError("cannot run a child process"));
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  return Fail("verify", absl::InternalError(absl::StrCat("killed by signal ", WTERMSIG(status))));
}

int VerifyOn(InstructionSet isa, const std::string& directory, bool json) {
  LimitDenseInstructionSet(isa);
  const std::string name(Name(isa));
  LoadOptions options;
  options.instruction_set = isa;
  const absl::StatusOr<ModelHandle> model = LoadModelFrom(directory, "model", 1, options);
  if (!model.ok()) return Fail(name, model.status());
  const Snapshot& snapshot = *(*model)->snapshot;
  const std::string precision(Name((*model)->model->precision()));
  if (json) {
    std::printf(
        "{\"instruction_set\": \"%s\", \"precision\": \"%s\", \"digest\": \"%s\", \"golden_cases\": %zu, "
        "\"largest_error\": %.9g}\n",
        name.c_str(), precision.c_str(), snapshot.digest().c_str(), snapshot.golden().size(),
        (*model)->largest_golden_error);
  } else {
    const std::string& note = (*model)->precision_note;
    std::printf("%-10s %zu golden cases, largest error %.3g in %s%s\n", name.c_str(), snapshot.golden().size(),
                (*model)->largest_golden_error, precision.c_str(),
                note.empty() ? "" : absl::StrCat(" (", Printable(note, 300), ")").c_str());
  }
  return kExitOk;
}

absl::StatusOr<int> Verify(const Arguments& arguments) {
  const std::string& directory = arguments.positional[0];
  const bool json = arguments.Has("json");
  const absl::StatusOr<Manifest> manifest = ReadManifest(directory, {});
  if (!manifest.ok()) return Fail(directory, manifest.status());
  if (manifest->unverified) {
    return Fail(directory, absl::FailedPreconditionError("published without golden cases: nothing to verify it by"));
  }
  if (!json) std::printf("snapshot   %s\ndigest     %s\n", directory.c_str(), manifest->digest.c_str());
  for (const InstructionSet isa : SupportedInstructionSets()) {
    const int exit_code = InChild([&] { return VerifyOn(isa, directory, json); });
    if (exit_code != kExitOk) return exit_code;
  }
  if (!json) std::puts("verified");
  return kExitOk;
}

// --- inspect ---------------------------------------------------------------------------------------------------------

std::string Activations(const google::protobuf::RepeatedPtrField<v1::Layer>& layers) {
  return absl::StrJoin(layers, " → ", [](std::string* out, const v1::Layer& layer) {
    absl::StrAppend(out, layer.units(), " ", v1::Activation::Kind_Name(layer.activation().kind()));
  });
}

std::string Names(const google::protobuf::RepeatedPtrField<v1::VectorRef>& vectors) {
  return absl::StrJoin(vectors, ", ", [](std::string* out, const v1::VectorRef& vector) {
    absl::StrAppend(out, Printable(vector.name()));
  });
}

void PrintFiles(const Manifest& manifest) {
  uint64_t bytes = 0;
  Table files({{"file"}, {"bytes", Align::kRight}, {"sha256 root"}});
  for (const ManifestFile& file : manifest.files) {
    bytes += file.size;
    files.Add({Printable(file.name), absl::StrCat(file.size), file.root_sha256.substr(0, 16)});
  }
  if (!manifest.base.empty()) std::printf("base    %s\n", manifest.base.c_str());
  std::printf("digest  %s\nformat  %u%s\nbytes   %llu (%s)\n\n%s", manifest.digest.c_str(), manifest.format,
              manifest.unverified ? ", unverified: without golden cases" : "", static_cast<unsigned long long>(bytes),
              HumanBytes(bytes).c_str(), files.Text().c_str());
}

void PrintFeatures(const v1::ModelSpec& spec) {
  Table features({{"feature"}, {"scope"}, {"kind"}, {"id map"}, {"side table"}});
  for (const v1::Feature& f : spec.features()) {
    const std::string scope =
        f.scope() == v1::SEQUENCE ? absl::StrCat("SEQUENCE ", Printable(f.sequence())) : v1::Scope_Name(f.scope());
    const std::string kind = f.kind() == v1::DENSE ? absl::StrCat("DENSE ", f.width()) : v1::FeatureKind_Name(f.kind());
    features.Add(
        {Printable(f.name()), scope, kind, Printable(f.id_map()),
         f.has_side() ? absl::StrCat(Printable(f.side().side_table()), " by ", Printable(f.side().key())) : ""});
  }
  std::printf("\n%s", features.Text().c_str());
}

void PrintNetwork(const v1::ModelSpec& spec) {
  std::puts("");
  for (const v1::SequenceSpec& s : spec.sequences()) {
    std::printf("sequence  %s: %s %u\n", Printable(s.name()).c_str(), v1::Keep_Name(s.keep()).c_str(), s.max_length());
  }
  for (const v1::Attention& a : spec.attentions()) {
    std::printf("attention %s on %s: %s → 1, %s\n", Printable(a.name()).c_str(), Printable(a.sequence()).c_str(),
                Activations(a.layers()).c_str(), v1::Attention::Normalise_Name(a.normalise()).c_str());
  }
  for (const v1::SequencePool& p : spec.sequence_pools()) {
    std::printf("pool      %s on %s: %s\n", Printable(p.name()).c_str(), Printable(p.sequence()).c_str(),
                v1::SequencePool::Kind_Name(p.kind()).c_str());
  }
  for (const v1::Interaction& i : spec.interactions()) {
    std::printf("interaction %s of %s: %s\n", Printable(i.name()).c_str(), Names(i.vectors()).c_str(),
                v1::Interaction::Kind_Name(i.kind()).c_str());
  }
  for (const v1::PreTower& p : spec.pre_towers()) {
    std::printf("pre-tower %s: %s\n", Printable(p.name()).c_str(), Activations(p.layers()).c_str());
  }
  const v1::Tower& tower = spec.tower();
  if (!tower.input().empty()) {
    std::printf("tower     %s%s%u\n", Activations(tower.layers()).c_str(), tower.layers().empty() ? "" : " → ",
                tower.classes());
  }
  if (!tower.wide().empty()) std::printf("wide      %s\n", Names(tower.wide()).c_str());
}

void PrintTensors(const TensorMap& tensors) {
  Table table({{"tensor"}, {"type and shape"}, {"bytes", Align::kRight}});
  for (const auto& [name, tensor] : tensors) {
    table.Add({Printable(name, 100), Describe(tensor), absl::StrCat(tensor.bytes)});
  }
  std::printf("\n%s", table.Text().c_str());
}

absl::StatusOr<int> Inspect(const Arguments& arguments) {
  const std::string& directory = arguments.positional[0];
  const absl::StatusOr<Manifest> manifest = ReadManifest(directory, {});
  if (!manifest.ok()) return Fail(directory, manifest.status());
  const absl::StatusOr<std::unique_ptr<const Snapshot>> snapshot = OpenWithBases(directory, {.most_overlaid = 0});
  if (!snapshot.ok()) return Fail(directory, snapshot.status());
  const v1::ModelSpec& spec = (*snapshot)->spec();
  if (arguments.Has("json")) {
    std::fputs(FormatJsonPretty(spec).c_str(), stdout);
    return kExitOk;
  }
  if (!spec.description().empty()) std::printf("%s\n\n", Printable(spec.description(), 500).c_str());
  PrintFiles(*manifest);
  PrintFeatures(spec);
  PrintNetwork(spec);
  PrintTensors((*snapshot)->tensors());
  std::printf("\n%zu golden cases\n", (*snapshot)->golden().size());
  if (const auto resolved = ResolveSpec(spec); !resolved.ok()) return Fail("model.json", resolved.status());
  return kExitOk;
}

// --- diff ------------------------------------------------------------------------------------------------------------

// "models/ads/12" -> the model's directory and the version.
absl::Status SplitVersion(const std::string& directory, std::string& model, int64_t& version) {
  const size_t slash = directory.rfind('/');
  const std::string name = slash == std::string::npos ? directory : directory.substr(slash + 1);
  model = slash == std::string::npos ? "." : directory.substr(0, slash);
  if (absl::SimpleAtoi(name, &version) && version > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("OUT: \"", directory, "\" does not end in a version, such as models/ads/12"));
}

absl::StatusOr<int> Diff(const Arguments& arguments) {
  const std::string &base_directory = arguments.positional[0], &next_directory = arguments.positional[1];
  std::string model;
  int64_t version = 0;
  if (absl::Status status = SplitVersion(arguments.positional[2], model, version); !status.ok()) return status;
  const auto base = OpenWithBases(base_directory, {.most_overlaid = 0});
  if (!base.ok()) return Fail(base_directory, base.status());
  const auto next = OpenWithBases(next_directory, {.most_overlaid = 0});
  if (!next.ok()) return Fail(next_directory, next.status());
  const auto difference = DiffTensors((*base)->tensors(), (*next)->tensors());
  if (!difference.ok()) return Fail(next_directory, difference.status());
  const absl::Status written = WriteSnapshot(model, version,
                                             {.spec = (*next)->spec(),
                                              .tensors = difference->tensors,
                                              .golden = (*next)->golden(),
                                              .unverified = (*next)->unverified(),
                                              .base = (*base)->digest()});
  if (!written.ok()) return Fail(arguments.positional[2], written);
  const absl::StatusOr<Manifest> manifest = ReadManifest(arguments.positional[2], {});
  if (!manifest.ok()) return Fail(arguments.positional[2], manifest.status());
  uint64_t bytes = 0, whole = 0;
  for (const ManifestFile& file : manifest->files) bytes += file.size;
  for (const auto& [name, tensor] : (*next)->tensors()) whole += tensor.bytes;
  if (arguments.Has("json")) {
    std::printf("{\"digest\": \"%s\", \"base\": \"%s\", \"bytes\": %llu, \"full_bytes\": %llu}\n",
                manifest->digest.c_str(), manifest->base.c_str(), static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(whole));
    return kExitOk;
  }
  Table table({{"tensor"}, {"changed"}});
  for (const auto& [name, rows] : difference->changed_rows) {
    table.Add({Printable(name, 100), absl::StrCat(rows, " of ", (*next)->tensors().at(name).shape[0], " rows")});
  }
  for (const auto& [name, tensor] : difference->tensors) {
    if ((*next)->tensors().contains(name)) table.Add({Printable(name, 100), "all of it"});
  }
  std::printf("base    %s\ndigest  %s\nbytes   %s, in full %s\n\n%s\n%zu tensors are the same\n",
              manifest->base.c_str(), manifest->digest.c_str(), HumanBytes(bytes).c_str(), HumanBytes(whole).c_str(),
              table.Text().c_str(), difference->unchanged);
  return kExitOk;
}

// --- seal ------------------------------------------------------------------------------------------------------------

absl::StatusOr<int> Seal(const Arguments& arguments) {
  const std::string& directory = arguments.positional[0];
  if (const absl::Status status = SealSnapshot(directory, arguments.Has("unverified")); !status.ok()) {
    return Fail(directory, status);
  }
  const absl::StatusOr<Manifest> manifest = ReadManifest(directory, {});
  if (!manifest.ok()) return Fail(directory, manifest.status());
  if (arguments.Has("json"))
    std::printf("{\"digest\": \"%s\"}\n", manifest->digest.c_str());
  else
    std::printf("sealed %zu files, digest %s\n", manifest->files.size(), manifest->digest.c_str());
  return kExitOk;
}

}  // namespace

std::vector<Command> SnapshotCommands() {
  return {
      {.name = "verify",
       .arguments = "DIR",
       .summary = "check a snapshot as the server would, on every instruction set of this CPU",
       .details =
           "Digests, sizes, headers, spec and tensors are checked, and the golden cases must give their scores.\n"
           "Exits 0 only when all of it holds.\n"
           "\n"
           "  dinctl verify models/movielens/3\n",
       .positional = 1,
       .uses = Command::Uses::kNothing,
       .options = {},
       .run = Verify},
      {.name = "inspect",
       .arguments = "DIR",
       .summary = "show what a snapshot holds: files, features, layers, tensors",
       .details = "--json prints the ModelSpec.\n"
                  "\n"
                  "  dinctl inspect models/movielens/3\n",
       .positional = 1,
       .uses = Command::Uses::kNothing,
       .options = {},
       .run = Inspect},
      {.name = "diff",
       .arguments = "BASE NEW OUT",
       .summary = "write OUT, a delta: what turns the version in BASE into the one in NEW",
       .details =
           "OUT is MODEL/VERSION, not there yet, and is published whole or not at all. It holds the rows and tensors\n"
           "that changed, and the golden cases of NEW; served over BASE, it gives the scores of NEW bit for bit. A\n"
           "server takes it only while BASE is live: after a delta, the next one's BASE is that delta, which must\n"
           "stand beside the versions that it is built on.\n"
           "\n"
           "  dinctl diff models/ads/11 staging/ads/12 models/ads/12\n",
       .positional = 3,
       .uses = Command::Uses::kNothing,
       .options = {},
       .run = Diff},
      {.name = "seal",
       .arguments = "DIR",
       .summary = "write manifest.json over model.json, *.safetensors and golden.jsonl",
       .details = "For snapshots that other tools laid out. The manifest is what makes a version complete: seal the\n"
                  "directory under a temporary name, then rename it into the model root.\n"
                  "\n"
                  "  dinctl seal models/movielens/.tmp-3 && mv models/movielens/.tmp-3 models/movielens/3\n",
       .positional = 1,
       .uses = Command::Uses::kNothing,
       .options = {{"unverified", nullptr, "allow no golden cases; din-server then wants --allow-unverified yes"}},
       .run = Seal},
  };
}

}  // namespace din
