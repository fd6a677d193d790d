#include "trainer/train.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/batch.h"
#include "trainer/embedding.h"
#include "trainer/model_din.h"
#include "trainer/torch.h"

namespace din {
namespace {

// A view: `values` must outlive the tensor.
torch::Tensor View(std::vector<int64_t>& values) {
  return torch::from_blob(values.data(), {static_cast<int64_t>(values.size())}, torch::kLong);
}
torch::Tensor View(std::vector<float>& values) {
  return torch::from_blob(values.data(), {static_cast<int64_t>(values.size())}, torch::kFloat);
}

Weight Copy(const torch::Tensor& tensor) {
  const torch::Tensor dense = tensor.detach().contiguous();
  return {dense.sizes().vec(), {dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel()}};
}

void CopyLayers(const std::string& prefix, const LayersImpl& layers, std::map<std::string, Weight>& out) {
  for (size_t i = 0; i < layers.linears.size(); ++i) {
    const std::string at = absl::StrCat(prefix, ".l", i);
    out[at + ".w"] = Copy(layers.linears[i]->weight);
    out[at + ".b"] = Copy(layers.linears[i]->bias);
    if (layers.dices.empty()) {
      out[at + ".act.alpha"] = Copy(layers.slopes[i]);
    } else {
      out[at + ".act.alpha"] = Copy(layers.dices[i]->alpha);
      out[at + ".act.mean"] = Copy(layers.dices[i]->mean);
      out[at + ".act.var"] = Copy(layers.dices[i]->var);
    }
  }
}

// The rows of one table that a mini-batch touches, as a leaf of the graph.
torch::Tensor Leaf(const EmbeddingTable& table, std::span<const int64_t> rows) {
  torch::Tensor leaf = torch::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(table.dim)});
  Gather(table, rows, {leaf.data_ptr<float>(), static_cast<size_t>(leaf.numel())});
  return leaf;
}

struct Checkpoint {
  std::vector<EmbeddingTable> tables;
  std::vector<torch::Tensor> dense;  // parameters, then buffers
};

}  // namespace

struct DinTrainer::Impl {
  Impl(const Dataset& data, const DinShape& shape, const TrainOptions& options)
      : data(data), shape(shape), options(options), builder(data, shape.max_history) {
    at::set_num_threads(options.threads);
    torch::manual_seed(options.seed);
    const size_t rows[kFields] = {data.items.size(), data.categories.size()};
    for (size_t field = 0; field < kFields; ++field) {
      tables.push_back(RandomTable(rows[field], shape.dim, options.initial_deviation, options.seed * kFields + field));
      table_optimisers.emplace_back(tables[field], RowAdam::Options{.learning_rate = options.learning_rate});
    }
    network = Din(shape);
    optimiser =
        std::make_unique<torch::optim::Adam>(network->parameters(), torch::optim::AdamOptions(options.learning_rate));
  }

  // Logits of the batch. `leaves` receives the touched rows of each table.
  torch::Tensor Forward(std::vector<torch::Tensor>& leaves, bool for_training) {
    std::vector<torch::Tensor> candidate;
    std::vector<torch::Tensor> behaviours;
    for (size_t field = 0; field < kFields; ++field) {
      leaves.push_back(Leaf(tables[field], batch.fields[field].distinct).set_requires_grad(for_training));
      candidate.push_back(torch::embedding(leaves[field], View(batch.fields[field].candidate)));
      behaviours.push_back(torch::embedding(leaves[field], View(batch.fields[field].behaviour)));
    }
    return network->forward({.candidate = torch::cat(candidate, 1),
                             .behaviours = torch::cat(behaviours, 1),
                             .begin = View(batch.begin),
                             .owner = View(batch.owner)});
  }

  // One mini-batch; its loss.
  double Step(std::span<const Sample> samples) {
    builder.Build(samples, batch);
    std::vector<torch::Tensor> leaves;
    const torch::Tensor loss =
        torch::binary_cross_entropy_with_logits(Forward(leaves, true), View(batch.labels), /*weight=*/{},
                                                /*pos_weight=*/{}, at::Reduction::Mean);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return value;
    optimiser->zero_grad();
    loss.backward();
    optimiser->step();
    for (size_t field = 0; field < kFields; ++field) {
      torch::Tensor gradient = leaves[field].grad().contiguous();
      const std::span<float> g(gradient.data_ptr<float>(), gradient.numel());
      const std::vector<int64_t>& rows = batch.fields[field].distinct;
      if (options.mba > 0) AddMiniBatchAware(tables[field], rows, occurrences[field], options.mba, g);
      table_optimisers[field].Step(tables[field], rows, g);
    }
    return value;
  }

  std::vector<float> Score(std::span<const Sample> samples) {
    const torch::NoGradGuard no_gradients;
    network->eval();
    std::vector<float> scores;
    scores.reserve(samples.size());
    constexpr size_t kBatch = 1024;
    for (size_t at = 0; at < samples.size(); at += kBatch) {
      builder.Build(samples.subspan(at, std::min(kBatch, samples.size() - at)), batch);
      std::vector<torch::Tensor> leaves;
      const torch::Tensor p = torch::sigmoid(Forward(leaves, false));
      scores.insert(scores.end(), p.data_ptr<float>(), p.data_ptr<float>() + p.numel());
    }
    return scores;
  }

  Checkpoint Save() const {
    Checkpoint saved{tables, {}};
    for (const torch::Tensor& t : network->parameters()) saved.dense.push_back(t.detach().clone());
    for (const torch::Tensor& t : network->buffers()) saved.dense.push_back(t.clone());
    return saved;
  }

  void Restore(const Checkpoint& saved) {
    const torch::NoGradGuard no_gradients;
    tables = saved.tables;
    size_t i = 0;
    for (torch::Tensor& t : network->parameters()) t.copy_(saved.dense[i++]);
    for (torch::Tensor& t : network->buffers()) t.copy_(saved.dense[i++]);
  }

  // Mean loss of the epoch.
  absl::StatusOr<double> Epoch(int epoch, std::span<const Sample> samples, const std::string& last,
                               Progress& progress) {
    network->train();
    const size_t batches = (samples.size() + options.batch - 1) / options.batch;
    double sum = 0;
    for (size_t b = 0; b < batches; ++b) {
      const size_t at = b * options.batch;
      const double loss = Step(samples.subspan(at, std::min<size_t>(options.batch, samples.size() - at)));
      if (!std::isfinite(loss)) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "loss is %g at epoch %d, batch %d of %d, learning rate %g; a lower --learning-rate may help", loss, epoch,
            b + 1, batches, options.learning_rate));
      }
      sum += loss;
      const double done = (epoch - 1 + static_cast<double>(b + 1) / static_cast<double>(batches)) / options.epochs;
      progress.Update(done, absl::StrFormat("epoch %d/%d  loss %.4f%s", epoch, options.epochs,
                                            sum / static_cast<double>(b + 1), last));
    }
    return sum / static_cast<double>(batches);
  }

  const Dataset& data;
  const DinShape shape;
  const TrainOptions options;
  BatchBuilder builder;
  Batch batch;
  std::vector<EmbeddingTable> tables;
  std::vector<RowAdam> table_optimisers;
  std::vector<uint32_t> occurrences[kFields];
  Din network{nullptr};
  std::unique_ptr<torch::optim::Adam> optimiser;
};

double MatrixGflops() {
  constexpr int64_t kSide = 256;
  const torch::NoGradGuard no_gradients;
  const torch::Tensor a = torch::ones({kSide, kSide});
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 4; ++i) {
    const auto start = std::chrono::steady_clock::now();
    torch::mm(a, a);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * kSide * kSide * kSide / best * 1e-9;
}

DinTrainer::DinTrainer(const Dataset& data, const DinShape& shape, const TrainOptions& options)
    : impl_(std::make_unique<Impl>(data, shape, options)) {}
DinTrainer::~DinTrainer() = default;

absl::StatusOr<FitReport> DinTrainer::Fit(const Split& split, Progress& progress) {
  if (split.train.empty()) return absl::InvalidArgumentError("training: no samples");
  Impl& impl = *impl_;
  Occurrences counts = CountOccurrences(impl.data, split.train, impl.shape.max_history);
  impl.occurrences[kItemField] = std::move(counts.items);
  impl.occurrences[kCategoryField] = std::move(counts.categories);

  std::vector<Sample> samples = split.train;
  std::mt19937_64 random(impl.options.seed);
  FitReport report;
  Checkpoint best;
  std::string last;
  const double start = progress.seconds();
  for (int epoch = 1; epoch <= impl.options.epochs; ++epoch) {
    std::shuffle(samples.begin(), samples.end(), random);
    const absl::StatusOr<double> loss = impl.Epoch(epoch, samples, last, progress);
    if (!loss.ok()) return loss.status();
    report.epochs = epoch;
    const Metrics held_out = Evaluate(split.held_out, impl.Score(split.held_out));
    const bool better =
        report.best_epoch == 0 || split.held_out.empty() || held_out.user_auc > report.held_out.user_auc;
    if (better) {
      report.best_epoch = epoch;
      report.held_out = held_out;
      best = impl.Save();
    }
    last = absl::StrFormat("  held-out AUC %.4f", held_out.user_auc);
    progress.Line(absl::StrFormat("epoch %d/%d  loss %.4f%s  log loss %.4f  %.1f s%s", epoch, impl.options.epochs,
                                  *loss, last, held_out.log_loss, progress.seconds() - start,
                                  better ? "" : "  (not better)"));
    if (epoch - report.best_epoch >= impl.options.patience) break;
  }
  impl.Restore(best);
  report.seconds = progress.seconds() - start;
  return report;
}

std::vector<float> DinTrainer::Score(std::span<const Sample> samples) { return impl_->Score(samples); }

std::map<std::string, Weight> DinTrainer::Weights() const {
  constexpr const char* kTables[kFields] = {"table.item", "table.category"};
  std::map<std::string, Weight> weights;
  for (size_t field = 0; field < kFields; ++field) {
    const EmbeddingTable& table = impl_->tables[field];
    weights[kTables[field]] = {{static_cast<int64_t>(table.rows), static_cast<int64_t>(table.dim)}, table.weights};
  }
  DinImpl& network = *impl_->network;
  CopyLayers("att0", *network.attention, weights);
  weights["att0.out.w"] = Copy(network.attention_out->weight);
  weights["att0.out.b"] = Copy(network.attention_out->bias);
  CopyLayers("tower", *network.tower, weights);
  weights["head.w"] = Copy(network.head->weight);
  weights["head.b"] = Copy(network.head->bias);
  return weights;
}

}  // namespace din
