#include "trainer/train.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <random>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"
#include "trainer/export.h"
#include "trainer/network.h"
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

std::span<float> Floats(const torch::Tensor& contiguous) {
  return {contiguous.data_ptr<float>(), static_cast<size_t>(contiguous.numel())};
}

Weight Copy(const torch::Tensor& tensor) {
  const torch::Tensor dense = tensor.detach().contiguous();
  return {dense.sizes().vec(), {Floats(dense).begin(), Floats(dense).end()}};
}

// Columns [begin, end) of a table.
Weight Columns(const TrainableTable& table, size_t begin, size_t end) {
  Weight out{{static_cast<int64_t>(table.rows), static_cast<int64_t>(end - begin)}, {}};
  out.values.reserve(table.rows * (end - begin));
  for (size_t row = 0; row < table.rows; ++row) {
    const auto part = table.Row(row).subspan(begin, end - begin);
    out.values.insert(out.values.end(), part.begin(), part.end());
  }
  return out;
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double SquaredNorm(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return sum;
}

// The labels and logits of the last few thousand samples, as the network saw them before it learnt from them.
class RecentScores {
 public:
  void Add(std::span<const float> labels, std::span<const float> logits) {
    constexpr size_t kKept = 1 << 14;
    if (labels_.size() >= kKept) {
      labels_.erase(labels_.begin(), labels_.begin() + kKept / 2);
      logits_.erase(logits_.begin(), logits_.begin() + kKept / 2);
    }
    labels_.insert(labels_.end(), labels.begin(), labels.end());
    logits_.insert(logits_.end(), logits.begin(), logits.end());
  }
  double Auc() const { return din::Auc(labels_, logits_); }

 private:
  std::vector<float> labels_;
  std::vector<float> logits_;
};

// Of what weights consist of: tables first, then parameters and buffers of the network.
using Weights = std::map<std::string, Weight>;

}  // namespace

struct Trainer::Impl {
  Impl(const Dataset& data, const Split& split, const ModelShape& shape, const TrainOptions& options)
      : data(data), split(split), shape(shape), options(options) {
    at::set_num_threads(options.threads);
    torch::manual_seed(options.seed);
    const Occurrences occurrences = CountOccurrences(data, split.train, shape.max_history);
    kept = KeepValues(data, occurrences, static_cast<size_t>(options.most_frequent));
    builder = std::make_unique<BatchBuilder>(data, kept, shape.max_history);
    for (size_t field = 0; field < data.fields(); ++field) {
      const auto random = static_cast<size_t>(shape.embedding_width());
      const size_t dim = random + static_cast<size_t>(shape.roles(field < data.item_fields()));
      tables.push_back(
          RandomTable(kept[field].rows, dim, random, options.initial_deviation, options.seed * data.fields() + field));
      table_optimisers.emplace_back(kept[field].rows, dim, RowOptimiser::Options{.kind = options.optimiser});
      counts.emplace_back(kept[field].rows);
      for (size_t value = 0; value < occurrences[field].size(); ++value) {
        const size_t row = kept[field].Row(static_cast<int32_t>(value));
        if (row < kept[field].rows) counts[field][row] = occurrences[field][value];
      }
    }
    network = MakeNetwork(shape);
    for (const torch::Tensor& p : network->parameters()) {
      dense_optimisers.emplace_back(1, static_cast<size_t>(p.numel()),
                                    RowOptimiser::Options{.kind = options.optimiser});
    }
  }

  // --- One mini-batch -----------------------------------------------------------------------------------------------

  // The rows of one table that the mini-batch touches, as a leaf of the graph.
  torch::Tensor Leaf(size_t field, bool for_training) {
    const TrainableTable& table = tables[field];
    const std::vector<int64_t>& rows = batch.fields[field].distinct;
    torch::Tensor leaf = torch::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(table.dim)});
    Gather(table, rows, Floats(leaf));
    return leaf.set_requires_grad(for_training);
  }

  // The rows of the ids, some of them left out while training: the paper's dropout is of ids, not of units.
  torch::Tensor Look(const torch::Tensor& leaf, std::vector<int64_t>& ids, bool for_training) {
    torch::Tensor rows = torch::embedding(leaf, View(ids));
    if (!for_training || options.dropout == 0) return rows;
    const torch::Tensor stays = torch::rand({rows.size(0), 1}) >= options.dropout;
    return rows * (stays.to(torch::kFloat) / (1 - options.dropout));
  }

  // Logits of the batch. `leaves` receives the touched rows of each table.
  torch::Tensor Forward(std::vector<torch::Tensor>& leaves, bool for_training) {
    const size_t lists = data.sequences();
    const int64_t width = shape.embedding_width();
    struct Parts {
      std::vector<torch::Tensor> candidate, side;
      std::vector<std::vector<torch::Tensor>> behaviours;
    };
    Parts embedded{.behaviours = std::vector<std::vector<torch::Tensor>>(lists)};
    Parts wide = embedded;
    const auto split_row = [&](const torch::Tensor& rows, size_t role, std::vector<torch::Tensor>& embedding,
                               std::vector<torch::Tensor>& weight) {
      if (shape.has_embeddings()) embedding.push_back(shape.has_wide() ? rows.narrow(1, 0, width) : rows);
      if (shape.has_wide()) weight.push_back(rows.narrow(1, width + static_cast<int64_t>(role), 1));
    };
    for (size_t field = 0; field < data.fields(); ++field) {
      Batch::Rows& rows = batch.fields[field];
      leaves.push_back(Leaf(field, for_training));
      const bool of_item = field < data.item_fields();
      split_row(Look(leaves[field], rows.sample, for_training), 0, of_item ? embedded.candidate : embedded.side,
                of_item ? wide.candidate : wide.side);
      for (size_t s = 0; of_item && s < lists; ++s) {
        split_row(Look(leaves[field], rows.behaviours[s], for_training), 1 + s, embedded.behaviours[s],
                  wide.behaviours[s]);
      }
    }
    const auto join = [](const std::vector<torch::Tensor>& parts) {
      return parts.empty() ? torch::Tensor() : parts.size() == 1 ? parts[0] : torch::cat(parts, 1);
    };
    const auto vectors = [&](const Parts& parts) {
      NetworkInput::Vectors v{.candidate = join(parts.candidate), .side = join(parts.side)};
      for (const auto& list : parts.behaviours) v.behaviours.push_back(join(list));
      return v;
    };
    NetworkInput input{.embeddings = vectors(embedded), .wide = vectors(wide)};
    for (Batch::Owners& sequence : batch.sequences) {
      input.sequences.push_back({.begin = View(sequence.begin), .owner = View(sequence.owner)});
    }
    return network->forward(input);
  }

  void UpdateTable(size_t field, const torch::Tensor& leaf, double rate) {
    if (!leaf.grad().defined()) return;
    const torch::Tensor gradient = leaf.grad().contiguous();
    const std::span<float> g = Floats(gradient);
    const std::vector<int64_t>& rows = batch.fields[field].distinct;
    if (options.mba > 0) AddMiniBatchAware(tables[field], rows, counts[field], options.mba, g);
    if (options.l2 > 0) AddTouchedL2(tables[field], rows, options.l2, g);
    squared_gradient += SquaredNorm(g);
    table_optimisers[field].Step(tables[field].weights, rows, g, rate);
  }

  void UpdateDense(double rate) {
    constexpr int64_t kOnlyRow = 0;
    size_t i = 0;
    for (torch::Tensor& p : network->parameters()) {
      RowOptimiser& optimiser = dense_optimisers[i++];
      if (!p.grad().defined()) continue;
      const torch::Tensor gradient = p.grad().contiguous();
      squared_gradient += SquaredNorm(Floats(gradient));
      optimiser.Step(Floats(p), {&kOnlyRow, 1}, Floats(gradient), rate);
      p.mutable_grad().reset();
    }
  }

  // One mini-batch; its loss.
  double Step(std::span<const Sample> samples, double rate) {
    builder->Build(samples, batch);
    std::vector<torch::Tensor> leaves;
    const torch::Tensor logits = Forward(leaves, true);
    const torch::Tensor loss = torch::binary_cross_entropy_with_logits(logits, View(batch.labels), /*weight=*/{},
                                                                       /*pos_weight=*/{}, at::Reduction::Mean);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return value;
    recent.Add(batch.labels, Floats(logits.detach().contiguous()));
    loss.backward();
    squared_gradient = 0;
    for (size_t field = 0; field < data.fields(); ++field) UpdateTable(field, leaves[field], rate);
    UpdateDense(rate);
    return value;
  }

  std::vector<float> Score(std::span<const Sample> samples) {
    const torch::NoGradGuard no_gradients;
    network->eval();
    std::vector<float> scores;
    scores.reserve(samples.size());
    constexpr size_t kBatch = 1024;
    for (size_t at = 0; at < samples.size(); at += kBatch) {
      builder->Build(samples.subspan(at, std::min(kBatch, samples.size() - at)), batch);
      std::vector<torch::Tensor> leaves;
      const torch::Tensor p = torch::sigmoid(Forward(leaves, false)).contiguous();
      scores.insert(scores.end(), Floats(p).begin(), Floats(p).end());
    }
    return scores;
  }

  // --- State --------------------------------------------------------------------------------------------------------

  struct Saved {
    std::vector<TrainableTable> tables;
    std::vector<std::pair<std::string, torch::Tensor>> dense;  // parameters, then buffers
  };

  std::vector<std::pair<std::string, torch::Tensor>> Dense() const {
    std::vector<std::pair<std::string, torch::Tensor>> dense;
    for (const auto& p : network->named_parameters()) dense.emplace_back(p.key(), p.value().detach());
    for (const auto& b : network->named_buffers()) dense.emplace_back(b.key(), b.value());
    return dense;
  }

  Saved Save() const {
    Saved saved{tables, Dense()};
    for (auto& [name, tensor] : saved.dense) tensor = tensor.clone();
    return saved;
  }

  void PutBack(const Saved& saved) {
    const torch::NoGradGuard no_gradients;
    tables = saved.tables;
    const auto dense = Dense();  // views of the network's own memory
    for (size_t i = 0; i < dense.size(); ++i) dense[i].second.copy_(saved.dense[i].second);
  }

  // Calls visit(name, floats, shape) for everything that a checkpoint holds: now.*, best.*, adam.*.
  template <typename Visit>
  void VisitArrays(Saved& best, const Visit& visit) {
    const auto weights = [&](const std::string& when, std::vector<TrainableTable>& of_tables, const auto& dense) {
      for (size_t f = 0; f < of_tables.size(); ++f) {
        TrainableTable& t = of_tables[f];
        visit(absl::StrCat(when, ".table.", std::string(data.FieldName(f))), t.weights,
              {static_cast<int64_t>(t.rows), static_cast<int64_t>(t.dim)});
      }
      for (const auto& [name, tensor] : dense)
        visit(absl::StrCat(when, ".", name), Floats(tensor), tensor.sizes().vec());
    };
    weights("now", tables, Dense());
    weights("best", best.tables, best.dense);
    VisitOptimisers([&](const std::string& name, RowOptimiser::State& state) {
      visit(absl::StrCat("adam.first.", name), state.first_moment, {static_cast<int64_t>(state.first_moment.size())});
      visit(absl::StrCat("adam.second.", name), state.second_moment,
            {static_cast<int64_t>(state.second_moment.size())});
    });
  }

  template <typename Visit>
  void VisitOptimisers(const Visit& visit) {
    for (size_t f = 0; f < tables.size(); ++f) {
      visit(absl::StrCat("table.", std::string(data.FieldName(f))), table_optimisers[f].state());
    }
    size_t i = 0;
    for (const auto& p : network->named_parameters()) visit(p.key(), dense_optimisers[i++].state());
  }

  absl::Status WriteCheckpointTo(const std::string& path, const std::string& how) {
    Checkpoint out{.options = how};
    VisitArrays(best, [&](const std::string& name, std::span<const float> values, std::vector<int64_t> extents) {
      out.arrays[name] = {std::move(extents), {values.begin(), values.end()}};
    });
    VisitOptimisers([&](const std::string& name, RowOptimiser::State& state) { out.counts[name] = state.steps; });
    Weight& epochs = out.arrays["epochs"];
    epochs.shape = {static_cast<int64_t>(report.epochs.size()), 3};
    for (const EpochReport& e : report.epochs) {
      for (const double v : {e.loss, e.held_out_auc, e.held_out_log_loss})
        epochs.values.push_back(static_cast<float>(v));
    }
    out.counts["best_epoch"] = {report.best_epoch};
    return WriteCheckpoint(path, out);
  }

  absl::Status Restore(const Checkpoint& from) {
    const torch::NoGradGuard no_gradients;
    absl::Status status;
    const auto misfit = [&](const std::string& name) {
      if (status.ok()) {
        status = absl::InvalidArgumentError(
            absl::StrCat("checkpoint: ", name, " is missing or of another size: other data or options?"));
      }
    };
    best = Save();
    VisitArrays(best, [&](const std::string& name, std::span<float> values, const std::vector<int64_t>&) {
      const auto at = from.arrays.find(name);
      if (at == from.arrays.end() || at->second.values.size() != values.size()) return misfit(name);
      std::ranges::copy(at->second.values, values.begin());
    });
    VisitOptimisers([&](const std::string& name, RowOptimiser::State& state) {
      const auto at = from.counts.find(name);
      if (at == from.counts.end() || at->second.size() != state.steps.size()) return misfit(name);
      state.steps = at->second;
    });
    const auto epochs = from.arrays.find("epochs");
    const auto best_epoch = from.counts.find("best_epoch");
    if (epochs == from.arrays.end() || best_epoch == from.counts.end() || best_epoch->second.size() != 1) {
      misfit("epochs");
    }
    DIN_RETURN_IF_ERROR(status);
    report.best_epoch = best_epoch->second[0];
    for (size_t i = 0; i + 2 < epochs->second.values.size(); i += 3) {
      const float* v = &epochs->second.values[i];
      report.epochs.push_back({.loss = v[0], .held_out_auc = v[1], .held_out_log_loss = v[2]});
    }
    return absl::OkStatus();
  }

  // --- Epochs -------------------------------------------------------------------------------------------------------

  double Rate(int epoch) const {
    return options.learning_rate * std::pow(options.decay, (epoch - 1) / options.decay_every);
  }

  // Mean loss of the epoch. Its order and its dropout follow from the seed and its number alone, so a training that
  // goes on from a checkpoint goes on as if it had never stopped.
  absl::StatusOr<double> Epoch(int epoch, const std::string& last, int first_epoch, Progress& progress) {
    network->train();
    const uint64_t seed = options.seed * 1'000'003 + static_cast<uint64_t>(epoch);
    torch::manual_seed(seed);
    std::mt19937_64 random(seed);
    std::vector<Sample> samples = split.train;
    std::shuffle(samples.begin(), samples.end(), random);
    const double rate = Rate(epoch);
    const size_t size = static_cast<size_t>(options.batch);
    const size_t batches = (samples.size() + size - 1) / size;
    double sum = 0;
    for (size_t b = 0; b < batches; ++b) {
      const double loss = Step(std::span(samples).subspan(b * size, std::min(size, samples.size() - b * size)), rate);
      if (!std::isfinite(loss)) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "loss is %g at epoch %d, batch %d of %d, learning rate %g; a lower --learning-rate may help", loss, epoch,
            b + 1, batches, rate));
      }
      sum += loss;
      const double part = static_cast<double>(b + 1) / static_cast<double>(batches);
      progress.Update((epoch - first_epoch + part) / (options.epochs - first_epoch + 1), [&] {
        return absl::StrFormat("epoch %d/%d  loss %.4f  train AUC %.4f  gradient %.3g%s", epoch, options.epochs,
                               sum / static_cast<double>(b + 1), recent.Auc(), std::sqrt(squared_gradient), last);
      });
    }
    return sum / static_cast<double>(batches);
  }

  const Dataset& data;
  const Split& split;
  const ModelShape shape;
  const TrainOptions options;
  std::vector<KeptValues> kept;
  std::unique_ptr<BatchBuilder> builder;
  Batch batch;
  std::vector<TrainableTable> tables;         // by field: [embedding | weights of the wide part]
  std::vector<std::vector<uint32_t>> counts;  // by field and row: n_j
  std::vector<RowOptimiser> table_optimisers;
  std::shared_ptr<Network> network;
  std::vector<RowOptimiser> dense_optimisers;  // by parameter
  double squared_gradient = 0;                 // of the last step
  RecentScores recent;
  Saved best;
  FitReport report;
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

absl::Status CheckMemory(const Dataset& data, const ModelShape& shape, const TrainOptions& options, bool checkpoints,
                         const MemoryBudget& budget) {
  uint64_t need = 0, rows_in_all = 0;
  for (size_t field = 0; field < data.fields(); ++field) {
    size_t rows = data.FieldRows(field);
    if (options.most_frequent > 0) rows = std::min(rows, static_cast<size_t>(options.most_frequent));
    const auto dim = static_cast<size_t>(shape.embedding_width() + shape.roles(field < data.item_fields()));
    const size_t weights = dim * sizeof(float);
    const size_t state = 2 * weights + RowOptimiser::BytesPerRow(options.optimiser, dim);  // now, and of the best epoch
    constexpr size_t kWords = 3;  // n_j, and two of the batch builder
    need += rows * (state + (checkpoints ? state : weights) + kWords * sizeof(uint32_t));
    rows_in_all += rows;
  }
  const uint64_t free = budget.limit - std::min(budget.used, budget.limit);
  if (need <= free) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("embeddings: %d rows need %d bytes to train, %d are free; lower --dim, keep fewer ids by "
                      "--most-frequent, or use --optimiser sgd, which keeps no moments",
                      rows_in_all, need, free));
}

Trainer::Trainer(const Dataset& data, const Split& split, const ModelShape& shape, const TrainOptions& options)
    : impl_(std::make_unique<Impl>(data, split, shape, options)) {}
Trainer::~Trainer() = default;

absl::Status Trainer::Restore(const Checkpoint& checkpoint) { return impl_->Restore(checkpoint); }

absl::StatusOr<FitReport> Trainer::Fit(Progress& progress, const std::string& checkpoint_path,
                                       const std::string& options) {
  Impl& impl = *impl_;
  FitReport& report = impl.report;
  if (impl.split.train.empty()) return absl::InvalidArgumentError("training: no samples");
  progress.Restart();
  const double cpu = CpuSeconds();
  const int epochs = impl.options.epochs;
  const int first = static_cast<int>(report.epochs.size()) + 1;
  std::string last;
  if (report.best_epoch > 0 && first <= epochs) progress.Line(absl::StrFormat("going on from epoch %d", first - 1));
  for (int epoch = first; epoch <= epochs && epoch - 1 - report.best_epoch < impl.options.patience; ++epoch) {
    DIN_ASSIGN_OR_RETURN(const double loss, impl.Epoch(epoch, last, first, progress));
    const Metrics held_out = Evaluate(impl.split.held_out, impl.Score(impl.split.held_out));
    if (!impl.split.held_out.empty() && !std::isfinite(held_out.log_loss)) {  // the last step went astray
      return absl::FailedPreconditionError(absl::StrFormat(
          "held-out log loss is %g after epoch %d, learning rate %g; a lower --learning-rate may help",
          held_out.log_loss, epoch, impl.Rate(epoch)));
    }
    double best_auc = -1;
    if (report.best_epoch > 0) best_auc = report.epochs[report.best_epoch - 1].held_out_auc;
    const auto auc = static_cast<float>(held_out.user_auc);  // as a checkpoint keeps it
    report.epochs.push_back({loss, auc, held_out.log_loss});
    const bool better = report.best_epoch == 0 || impl.split.held_out.empty() || auc > best_auc;
    if (better) {
      report.best_epoch = epoch;
      impl.best = impl.Save();
    }
    last = absl::StrFormat("  held-out AUC %.4f", held_out.user_auc);
    progress.Line(absl::StrFormat("epoch %d/%d  loss %.4f%s  log loss %.4f  %.1f s%s", epoch, epochs, loss, last,
                                  held_out.log_loss, progress.seconds(), better ? "" : "  (not better)"));
    if (!checkpoint_path.empty()) DIN_RETURN_IF_ERROR(impl.WriteCheckpointTo(checkpoint_path, options));
  }
  impl.PutBack(impl.best);
  report.held_out = Evaluate(impl.split.held_out, impl.Score(impl.split.held_out));
  report.seconds = progress.seconds();
  report.cpu_seconds = CpuSeconds() - cpu;
  return report;
}

std::vector<float> Trainer::Score(std::span<const Sample> samples) { return impl_->Score(samples); }

void Trainer::RoundEmbeddings(DataType type) {
  const auto width = static_cast<size_t>(impl_->shape.embedding_width());
  if (width < 2) return;
  for (TrainableTable& table : impl_->tables) {
    for (size_t row = 0; row < table.rows; ++row) {
      for (float& v : table.Row(row).first(width)) v = Rounded(type, v);
    }
  }
}

std::span<const KeptValues> Trainer::kept() const { return impl_->kept; }

std::map<std::string, Weight> Trainer::Weights() const {
  const Impl& impl = *impl_;
  std::map<std::string, Weight> weights;
  const auto width = static_cast<size_t>(impl.shape.embedding_width());
  for (size_t field = 0; field < impl.data.fields(); ++field) {
    const TrainableTable& table = impl.tables[field];
    if (width > 0) weights["table." + TableName(impl.data, field)] = Columns(table, 0, width);
    for (size_t role = 0; width + role < table.dim; ++role) {
      weights["table." + WideTableName(impl.data, field, role)] = Columns(table, width + role, width + role + 1);
    }
  }
  for (const auto& [name, tensor] : impl.Dense()) weights[name] = Copy(tensor);
  return weights;
}

}  // namespace din
