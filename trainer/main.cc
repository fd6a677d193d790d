// din-train: from data to trained snapshots. Subcommands, options and what they print; nothing else.
#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "trainer/demo_requests.h"
#include "trainer/export.h"
#include "trainer/metrics.h"
#include "trainer/movielens.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/samples.h"
#include "trainer/train.h"

namespace din {
namespace {

using Arguments = std::span<const std::string_view>;

bool WantsHelp(Arguments arguments) {
  for (std::string_view a : arguments) {
    if (a == "--help" || a == "-h") return true;
  }
  return false;
}

absl::Status Required(std::string_view name, const std::string& value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", std::string(name), " is missing"));
}

absl::StatusOr<Dataset> ReadData(const std::string& directory) {
  ReadReport report;
  absl::StatusOr<Dataset> data = ReadMovieLens(directory, report);
  if (!data.ok()) return data;
  std::printf("data: %zu events, %zu users, %zu items, %zu categories\n", data->events.size(), data->users(),
              data->items.size(), data->categories.size());
  if (report.bad_lines > 0) {
    std::printf("data: %zu bad lines left out, the first: %s\n", report.bad_lines, report.first_bad_line.c_str());
  }
  return data;
}

void PrintMetrics(const char* what, const Metrics& m) {
  std::printf(
      "%s: user AUC %.4f (%zu users, %zu of one class left out)  AUC %.4f  log loss %.4f  calibration %.3f  "
      "(%zu samples)\n",
      what, m.user_auc, m.users, m.one_class_users, m.auc, m.log_loss, m.calibration, m.samples);
}

// --- train ----------------------------------------------------------------------------------------------------------

struct TrainCommand {
  std::string data;
  std::string out;
  int64_t version = 1;
  int model = 0;
  int activation = 0;
  int protocol = 0;
  int product = 1;
  int golden = 20;
  int64_t seed = 1;
  int dim = 16;
  DinShape shape;
  TrainOptions train;
  SampleOptions samples;

  Options Describe() {
    Options o;
    o.Add("data", "directory: Rdata.rdx and .rdb of r-cran-dslabs, or ratings.csv and movies.csv", &data);
    o.Add("out", "model directory MODEL_ROOT/NAME; the snapshot becomes a version in it", &out);
    o.Add("version", "of the snapshot", &version, 1, INT64_MAX);
    o.AddChoice("model", "network", {"din"}, &model);
    o.AddChoice("activation", "of hidden layers", {"dice", "prelu"}, &activation);
    o.AddChoice("protocol", "samples of the next item against untouched ones, or of ratings >= 4",
                {"next-item", "ratings"}, &protocol);
    o.Add("dim", "width of each field's embedding", &dim, 1, 512);
    o.Add("attention", "hidden units of the activation unit", &shape.attention);
    o.Add("tower", "hidden units of the tower", &shape.tower);
    o.AddChoice("product", "interest * candidate into the tower, too", {"no", "yes"}, &product);
    o.Add("history", "behaviours a sample looks back on", &shape.max_history, 1, 4096);
    o.Add("negatives", "untouched items beside each positive", &samples.negatives, 1, 100);
    o.Add("held-out", "part of the users that choose the epoch", &samples.held_out_users, 0, 0.9);
    o.Add("epochs", "at most", &train.epochs, 1, 10'000);
    o.Add("patience", "epochs without a better held-out AUC before it stops", &train.patience, 1, 10'000);
    o.Add("batch", "samples in a mini-batch", &train.batch, 1, 1 << 20);
    o.Add("learning-rate", "of Adam", &train.learning_rate, 1e-9, 1e9);
    o.Add("mba", "lambda of mini-batch aware regularisation, 0: none", &train.mba, 0, 1e6);
    o.Add("seed", "of samples, initial weights and batches", &seed, 0, INT64_MAX);
    o.Add("threads", "1: the same seed gives the same bits", &train.threads, 1, 256);
    o.Add("golden", "golden requests in the snapshot", &golden, 1, 10'000);
    return o;
  }

  void Settle() {
    shape.dim = dim;
    shape.activation = activation == 0 ? Activation::kDice : Activation::kPRelu;
    shape.product = product == 1;
    samples.protocol = protocol == 0 ? Protocol::kNextItem : Protocol::kRatings;
    samples.max_history = shape.max_history;
    samples.seed = train.seed = static_cast<uint64_t>(seed);
  }
};

// Debian's libtorch takes its matrix products from whatever BLAS is installed, by default the slow reference one.
void WarnOfSlowMatrices() {
  constexpr double kSlow =
      10;  // Gflop/s; one core reaches about 3 with the reference BLAS and 50 or more with OpenBLAS
  const double rate = MatrixGflops();
  if (rate >= kSlow) return;
  std::fprintf(stderr,
               "din-train: matrix products run at %.1f Gflop/s; with OpenBLAS training is several times faster: "
               "apt-get install libopenblas0-openmp\n",
               rate);
}

// Told before the training, not after it.
absl::Status CheckDestination(const std::string& model_directory, int64_t version) {
  const std::filesystem::path path = std::filesystem::path(model_directory) / absl::StrCat(version);
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat(path.string(), ": there already; choose another --version"));
  }
  std::filesystem::create_directories(model_directory, error);
  if (error) return absl::UnavailableError(absl::StrCat(model_directory, ": ", error.message()));
  return absl::OkStatus();
}

absl::Status Train(Arguments arguments) {
  TrainCommand command;
  const Options options = command.Describe();
  if (WantsHelp(arguments)) {
    std::printf("din-train train --data DIR --out MODEL_ROOT/NAME [options]\n%s", options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("data", command.data));
  DIN_RETURN_IF_ERROR(Required("out", command.out));
  DIN_RETURN_IF_ERROR(CheckDestination(command.out, command.version));
  command.Settle();

  DIN_ASSIGN_OR_RETURN(const Dataset data, ReadData(command.data));
  const Split split = MakeSamples(data, command.samples);
  std::printf("samples: %zu to train, %zu of held-out users to choose the epoch, %zu to test\n", split.train.size(),
              split.held_out.size(), split.test.size());
  std::fflush(stdout);

  DinTrainer trainer(data, command.shape, command.train);
  WarnOfSlowMatrices();
  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const FitReport report, trainer.Fit(split, progress));
  std::printf("trained: %d epochs in %.1f s, epoch %d kept\n", report.epochs, report.seconds, report.best_epoch);
  const Metrics test = Evaluate(split.test, trainer.Score(split.test));
  PrintMetrics("held out", report.held_out);
  PrintMetrics("test", test);

  const ExportOptions destination{
      .model_directory = command.out,
      .version = command.version,
      .description = absl::StrFormat("DIN trained by din-train: %d events, %d epochs, seed %d, test user AUC %.4f",
                                     data.events.size(), report.best_epoch, command.seed, test.user_auc),
      .golden_cases = command.golden,
      .seed = command.train.seed};
  DIN_RETURN_IF_ERROR(Export(
      data, command.shape, trainer.Weights(), split.test,
      [&](std::span<const Sample> samples) { return trainer.Score(samples); }, destination));
  std::printf("published: %s/%lld\n", command.out.c_str(), static_cast<long long>(command.version));
  return absl::OkStatus();
}

// --- demo-requests --------------------------------------------------------------------------------------------------

absl::Status DemoRequests(Arguments arguments) {
  std::string directory;
  int64_t seed = 1;
  DemoRequestOptions request;
  Options options;
  options.Add("data", "directory, as for train", &directory);
  options.Add("out", "directory for user-<id>.json and next.tsv", &request.out);
  options.Add("model", "name that the requests ask for", &request.model);
  options.Add("users", "how many", &request.users, 1, 100'000);
  options.Add("candidates", "of each request", &request.candidates, 1, 4096);
  options.Add("history", "behaviours of each request, the most recent", &request.max_history, 1, 4096);
  options.Add("seed", "of users and candidates", &seed, 0, INT64_MAX);
  if (WantsHelp(arguments)) {
    std::printf("din-train demo-requests --data DIR --out DIR [options]\n%s", options.Help().c_str());
    return absl::OkStatus();
  }
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  DIN_RETURN_IF_ERROR(Required("data", directory));
  DIN_RETURN_IF_ERROR(Required("out", request.out));
  request.seed = static_cast<uint64_t>(seed);
  DIN_ASSIGN_OR_RETURN(const Dataset data, ReadData(directory));
  DIN_RETURN_IF_ERROR(WriteDemoRequests(data, request));
  std::printf("requests: %s\n", request.out.c_str());
  return absl::OkStatus();
}

// --------------------------------------------------------------------------------------------------------------------

struct Subcommand {
  std::string_view name;
  std::string_view help;
  absl::Status (*run)(Arguments);
};

constexpr Subcommand kSubcommands[] = {
    {"train", "trains a model and publishes it as a snapshot", Train},
    {"demo-requests", "writes score requests of real users", DemoRequests},
};

std::string Usage() {
  std::string text = "usage: din-train SUBCOMMAND [options]; din-train SUBCOMMAND --help\n";
  for (const Subcommand& s : kSubcommands) absl::StrAppendFormat(&text, "  %-15s %s\n", s.name, s.help);
  return text;
}

absl::Status Run(Arguments arguments) {
  if (arguments.empty()) return absl::InvalidArgumentError("a subcommand is missing\n" + Usage());
  std::vector<std::string_view> names;
  for (const Subcommand& s : kSubcommands) {
    if (s.name == arguments[0]) return s.run(arguments.subspan(1));
    names.push_back(s.name);
  }
  if (WantsHelp(arguments.first(1))) {
    std::fputs(Usage().c_str(), stdout);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown subcommand ", std::string(arguments[0]), "; did you mean ",
                                                 std::string(Nearest(arguments[0], names)), "?"));
}

}  // namespace
}  // namespace din

// Every mini-batch allocates the same tens of megabytes again; by default the C library gives such blocks back to the
// kernel each time and faults them in anew, a third of the training time.
static void KeepMemory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT32_MAX);
  mallopt(M_TOP_PAD, 64 << 20);
}

// By default OpenMP's threads spin while they wait for each other; with one other busy process on the machine that made
// training five times slower. libgomp reads the policy when it is loaded, before main: so start again with it set.
static void WaitWithoutSpinning(char** argv) {
  constexpr char kPolicy[] = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr || setenv(kPolicy, "passive", 0) != 0) return;
  execv("/proc/self/exe", argv);  // where that fails, spinning is only slow
}

// Exit codes: 0 done, 1 failed, 2 the command line is wrong.
int main(int argc, char** argv) {
  WaitWithoutSpinning(argv);
  KeepMemory();
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  absl::Status status;
  try {
    status = din::Run(arguments);
  } catch (const std::exception& e) {  // libtorch and the standard library report by exceptions: out of memory, mostly
    status = absl::InternalError(e.what());
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "din-train: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}
