#include "trainer/model_options.h"

#include <cstdint>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "trainer/read_data.h"

namespace din {

void DataOptions::AddTo(Options& o) {
  o.Add("data", "directory or file: MovieLens, Amazon reviews, or an event log (TSV, CSV; .gz, .xz)", &data);
  o.AddChoice("protocol",
              "samples of the next item against untouched ones, of ratings >= 4, or of impressions and their labels",
              {"next-item", "ratings", "impressions"}, &protocol);
  AddFeaturesTo(o);
  o.Add("negatives", "untouched items beside each positive", &samples.negatives, 1, 100);
  o.Add("held-out", "part of the users that choose the epoch", &samples.held_out_users, 0, 0.9);
  o.Add("train-samples", "a random part of the training samples of this size, 0: all", &samples.most_training, 0,
        INT64_MAX);
}

void DataOptions::AddFeaturesTo(Options& o) {
  o.AddChoice("sequences", "one behaviour list, or one for each action", {"one", "by-action"}, &sequences);
  o.AddChoice("time-context", "hour and weekday as features", {"no", "yes"}, &time_context);
}

absl::StatusOr<Dataset> DataOptions::Read(Progress& progress) const {
  if (data.empty()) return absl::InvalidArgumentError("--data is missing");
  ReadReport report;
  absl::StatusOr<Dataset> read = ReadData(data, report, progress);
  if (!read.ok()) return read;
  if (sequences == 1) DIN_RETURN_IF_ERROR(SplitByAction(*read));
  if (time_context == 1) AddTimeContext(*read);
  std::printf("data: %zu events, %zu users, %zu items", read->events.size(), read->users(), read->items.size());
  for (size_t f = 1; f < read->fields(); ++f) {
    std::printf(", %zu %s", read->FieldRows(f), std::string(read->FieldName(f)).c_str());
  }
  if (!read->impressions.empty()) std::printf(", %zu impressions", read->impressions.size());
  std::printf("\n");
  if (report.bad_lines > 0) {
    std::printf("data: %zu bad lines left out, the first: %s\n", report.bad_lines, report.first_bad_line.c_str());
  }
  return read;
}

SampleOptions DataOptions::SamplesFor(uint64_t seed, int max_history) const {
  SampleOptions out = samples;
  out.protocol = static_cast<Protocol>(protocol);
  out.max_history = max_history;
  out.seed = seed;
  return out;
}

void TrainingOptions::AddVariantsTo(Options& o) {
  o.AddChoice("model", "network", {std::begin(kModelNames), std::end(kModelNames)}, &model);
  o.AddChoice("activation", "of hidden layers", {"dice", "prelu"}, &activation);
  o.AddChoice("product", "interest * candidate into DIN's tower, too", {"no", "yes"}, &product);
  o.Add("mba", "lambda of mini-batch aware regularisation, 0: none", &train.mba, 0, 1e6);
  o.Add("l2", "lambda of L2 on the rows that a batch touches, 0: none", &train.l2, 0, 1e6);
  o.Add("dropout", "part of a sample's ids that training leaves out", &train.dropout, 0, 0.99);
  o.Add("most-frequent", "values of each field that get an embedding, the most frequent, 0: all", &train.most_frequent,
        0, INT32_MAX);
  o.Add("seed", "of samples, initial weights and batches", &seed, 0, INT64_MAX);
}

void TrainingOptions::AddTo(Options& o) {
  o.Add("dim", "width of each field's embedding", &dim, 1, 512);
  o.Add("attention", "hidden units of the activation unit", &shape.attention);
  o.AddChoice("attention-input", "of the activation unit: [q, k, q-k, q*k], or [q, k, q*k]",
              {"with-difference", "paper"}, &attention_input);
  o.Add("tower", "hidden units of the tower", &shape.tower);
  o.AddChoice("pooling", "of behaviours, in all models but DIN", {"sum", "mean"}, &pooling);
  o.Add("history", "behaviours a sample looks back on", &shape.max_history, 1, 4096);
  o.Add("epochs", "at most", &train.epochs, 1, 10'000);
  o.Add("patience", "epochs without a better held-out AUC before it stops", &train.patience, 1, 10'000);
  o.Add("batch", "samples in a mini-batch", &train.batch, 1, 1 << 20);
  o.AddChoice("optimiser", "of all parameters", {"adam", "sgd"}, &optimiser);
  o.Add("learning-rate", "0: 0.002 for Adam, 1 for SGD", &learning_rate, 0, 1e9);
  o.Add("decay", "the learning rate is multiplied by this", &train.decay, 1e-6, 1);
  o.Add("decay-every", "after so many epochs", &train.decay_every, 1, 10'000);
  o.Add("initial-deviation", "of the embeddings", &train.initial_deviation, 1e-9, 10);
  o.Add("threads", "1: the same seed gives the same bits", &train.threads, 1, 256);
}

void TrainingOptions::Settle() {
  shape.model = static_cast<Model>(model);
  shape.dim = dim;
  shape.activation = static_cast<Activation>(activation);
  shape.attention_input = static_cast<AttentionInput>(attention_input);
  shape.pooling = static_cast<Pooling>(pooling);
  shape.product = product == 1;
  train.optimiser = static_cast<OptimiserKind>(optimiser);
  constexpr double kAdamRate = 2e-3;
  constexpr double kSgdRate = 1;  // the paper's public setting, with --decay 0.1 and --batch 32
  train.learning_rate = learning_rate > 0 ? learning_rate : optimiser == 0 ? kAdamRate : kSgdRate;
  train.seed = static_cast<uint64_t>(seed);
}

}  // namespace din
