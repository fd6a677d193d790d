// dinserve itself, as a contestant.
#include <vector>

#include "bench/peers/scorer.h"
#include "tests/model/random_request.h"

namespace din::peers {
namespace {

// The id of a row is the row: the reference shapes map ids by identity.
v1::GoldenCase AsColumns(const v1::ModelSpec& spec, const PeerRequest& request) {
  v1::GoldenCase columns;
  v1::Sequence& sequence = *columns.add_sequences();
  sequence.set_name(spec.sequences(0).name());
  size_t candidate = 0, behaviour = 0, user = 0;
  for (const v1::Feature& feature : spec.features()) {
    v1::Column* column = nullptr;
    const int64_t* row = nullptr;
    size_t count = 1;
    if (feature.scope() == v1::CANDIDATE) {
      column = columns.add_candidates(), row = request.candidate_rows[candidate++].data(), count = request.candidates;
    } else if (feature.scope() == v1::SEQUENCE) {
      column = sequence.add_columns(), row = request.behaviour_rows[behaviour++].data(), count = request.behaviours;
    } else {
      column = columns.add_features(), row = &request.user_rows[user++];
    }
    column->set_name(feature.name());
    column->mutable_ids()->Add(row, row + count);
  }
  return columns;
}

class DinScorer final : public Scorer {
 public:
  explicit DinScorer(const DinModel& model) : model_(model) {}

  void Add(const PeerRequest& request) override {
    requests_.push_back(testing::DecodeOrDie(model_.decoder(), AsColumns(model_.spec(), request)));
  }
  void Clear() override { requests_.clear(); }
  void Score(size_t request, std::span<float> scores) override { model_.Score(requests_[request], workspace_, scores); }

 private:
  const DinModel& model_;
  std::vector<ScoringInput> requests_;
  Workspace workspace_;
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

std::unique_ptr<Scorer> MakeDinScorer(const DinModel& model) { return std::make_unique<DinScorer>(model); }

}  // namespace din::peers
