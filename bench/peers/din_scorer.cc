// dinserve itself, as a contestant.
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bench/peers/scorer.h"
#include "server/scoring_pool.h"
#include "server/shared_scoring.h"
#include "tests/model/random_request.h"

namespace din::peers {
namespace {

// One that nobody cancels. The thread that asks for scores works for it.
class Job final : public ScoringJob {
  void Run(ScoringMemory&) override {}
  void Refuse(const absl::Status&) override {}
};

class DinScorer final : public Scorer {
 public:
  // The calling thread, as in the other runtimes, and helpers.
  DinScorer(const DinModel& model, int threads) : model_(model) {
    if (threads > 1) helpers_.emplace(ScoringPool::Options{.threads = threads - 1});
  }

  void Add(const PeerRequest& request) override {
    requests_.push_back(testing::DecodeOrDie(model_.decoder(), AsColumns(model_.spec(), request)));
  }
  void Clear() override { requests_.clear(); }
  void Score(size_t request, std::span<float> scores) override {
    if (!helpers_) return model_.Score(requests_[request], memory_.workspace, scores);
    std::swap(memory_.input, requests_[request]);
    const absl::Status status = ScoreShared(model_, job_, *helpers_, memory_, scores);
    std::swap(memory_.input, requests_[request]);
    if (!status.ok()) testing::Die(status.ToString());
  }

 private:
  const DinModel& model_;
  std::vector<ScoringInput> requests_;
  Job job_;
  ScoringMemory memory_;
  std::optional<ScoringPool> helpers_;
};

}  // namespace

std::vector<float> Embed(const std::vector<PeerTable>& tables, const std::vector<std::vector<int64_t>>& rows) {
  std::vector<float> out;
  for (size_t r = 0; r < rows.front().size(); ++r) {
    for (size_t f = 0; f < tables.size(); ++f) {
      const auto row = tables[f].values.subspan(rows[f][r] * tables[f].dim, tables[f].dim);
      out.insert(out.end(), row.begin(), row.end());
    }
  }
  return out;
}

std::unique_ptr<Scorer> MakeDinScorer(const DinModel& model, int threads) {
  return std::make_unique<DinScorer>(model, threads);
}

}  // namespace din::peers
