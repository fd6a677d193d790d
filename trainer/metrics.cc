#include "trainer/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace din {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// AUC of the samples that `order` names; sorts `order` by score, unless one is no number and none can be sorted.
double AucOf(std::span<size_t> order, const auto& label, std::span<const float> scores) {
  if (std::ranges::any_of(order, [&](size_t i) { return std::isnan(scores[i]); })) return kNone;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  double right_pairs = 0;
  double negatives_below = 0;
  double positives = 0;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    double tied_positives = 0;
    for (; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end) tied_positives += label(order[end]);
    const double tied_negatives = static_cast<double>(end - begin) - tied_positives;
    right_pairs += tied_positives * (negatives_below + tied_negatives / 2);
    positives += tied_positives;
    negatives_below += tied_negatives;
    begin = end;
  }
  return positives > 0 && negatives_below > 0 ? right_pairs / (positives * negatives_below) : kNone;
}

std::vector<size_t> AllOf(size_t n) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

// `order` ascends by score.
std::vector<Metrics::Decile> Deciles(std::span<const size_t> order, std::span<const Sample> samples,
                                     std::span<const float> scores) {
  constexpr size_t kParts = 10;
  std::vector<Metrics::Decile> deciles;
  if (order.size() < kParts) return deciles;
  for (size_t part = 0; part < kParts; ++part) {
    const size_t begin = order.size() * part / kParts;
    const size_t end = order.size() * (part + 1) / kParts;
    double predicted = 0, observed = 0;
    for (const size_t i : order.subspan(begin, end - begin)) {
      predicted += scores[i];
      observed += samples[i].label;
    }
    const auto n = static_cast<double>(end - begin);
    deciles.push_back({predicted / n, observed / n});
  }
  return deciles;
}

}  // namespace

double RelaImpr(double auc, double base_auc) { return ((auc - 0.5) / (base_auc - 0.5) - 1) * 100; }

double Auc(std::span<const float> labels, std::span<const float> scores) {
  std::vector<size_t> order = AllOf(labels.size());
  return AucOf(
      order, [&](size_t i) { return labels[i]; }, scores);
}

Metrics Evaluate(std::span<const Sample> samples, std::span<const float> scores) {
  const auto label = [&](size_t i) { return samples[i].label; };
  Metrics m{.samples = samples.size()};
  std::vector<size_t> order = AllOf(samples.size());

  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return samples[a].user < samples[b].user; });
  double weighted = 0;
  double impressions = 0;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    while (end < order.size() && samples[order[end]].user == samples[order[begin]].user) ++end;
    const double auc = AucOf(std::span(order).subspan(begin, end - begin), label, scores);
    if (std::isnan(auc)) {
      ++m.one_class_users;
    } else {
      ++m.users;
      weighted += static_cast<double>(end - begin) * auc;
      impressions += static_cast<double>(end - begin);
    }
    begin = end;
  }
  m.user_auc = m.users > 0 ? weighted / impressions : kNone;
  m.auc = AucOf(order, label, scores);  // and leaves them ordered by score
  m.deciles = Deciles(order, samples, scores);

  double loss = 0, predicted = 0, observed = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    constexpr double kLeast = 1e-12;  // keeps one wrong certainty from being an infinite loss
    const double p = std::clamp<double>(scores[i], kLeast, 1 - kLeast);
    loss -= label(i) > 0 ? std::log(p) : std::log1p(-p);
    predicted += scores[i];
    observed += label(i);
  }
  m.log_loss = samples.empty() ? kNone : loss / static_cast<double>(samples.size());
  m.calibration = observed > 0 ? predicted / observed : kNone;
  return m;
}

}  // namespace din
