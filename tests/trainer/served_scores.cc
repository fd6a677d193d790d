// The whole test set of a training, scored by libtorch and by a server over gRPC, one request for each user and moment.
//   served_scores --checkpoint FILE --server HOST:PORT --model NAME [--version N] [--data DIR] [--tolerance X]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"
#include "model/status_macros.h"
#include "tests/e2e/running_server.h"
#include "tests/e2e/test_client.h"
#include "trainer/export.h"
#include "trainer/options.h"
#include "trainer/progress.h"
#include "trainer/restore.h"
#include "trainer/served_scores.h"

namespace din {
namespace {

absl::Status Verify(std::span<const std::string_view> arguments) {
  std::string checkpoint, data_path, server, name;
  int64_t version = 0;
  double tolerance = 1e-5;
  Options options;
  options.Add("checkpoint", "of din-train train", &checkpoint);
  options.Add("data", "where the data of the training are now, when they have moved", &data_path);
  options.Add("server", "HOST:PORT of a din-server", &server);
  options.Add("model", "its name there", &name);
  options.Add("version", "0: the live one", &version, 0, INT64_MAX);
  options.Add("tolerance", "largest difference of two scores", &tolerance, 0, 1);
  DIN_RETURN_IF_ERROR(options.Parse(arguments));
  Progress progress(stderr);
  DIN_ASSIGN_OR_RETURN(const auto restored, Restore(checkpoint, data_path, progress));
  const Dataset& data = *restored->data;
  const std::span<const Sample> test = restored->split.test;

  TestClient client(server);
  std::vector<float> served(test.size());
  size_t requests = 0;
  progress.Restart();
  for (size_t begin = 0, end = 0; begin < test.size(); begin = end) {
    while (end < test.size() && SameRequest(data, test[begin], test[end])) ++end;
    v1::ScoreRequest request =
        ToScoreRequest(MakeCase(data, test.subspan(begin, end - begin), restored->shape.max_history), name);
    request.set_version(version);
    DIN_ASSIGN_OR_RETURN(const v1::ScoreResponse response, client.Score(request));
    std::vector<bool> is_scored(end - begin);
    for (int rank = 0; rank < std::min(response.index_size(), response.scores_size()); ++rank) {
      if (response.index(rank) >= is_scored.size()) break;
      served[begin + response.index(rank)] = response.scores(rank);
      is_scored[response.index(rank)] = true;
    }
    if (response.version() == 0 || std::ranges::count(is_scored, false) > 0) {
      return absl::InternalError(absl::StrFormat("request %d: not every candidate has a score", requests));
    }
    ++requests;
    progress.Update(static_cast<double>(end) / static_cast<double>(test.size()),
                    [&] { return absl::StrFormat("%d requests", requests); });
  }
  std::printf("%s served by %s: %zu requests\n", name.c_str(), server.c_str(), requests);
  return CompareServed(test, restored->trainer->Score(test), served, tolerance);
}

}  // namespace
}  // namespace din

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  const absl::Status status = din::Verify(arguments);
  if (status.ok()) return 0;
  std::fprintf(stderr, "served_scores: %s\n", std::string(status.message()).c_str());
  return 1;
}
