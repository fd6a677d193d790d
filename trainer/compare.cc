#include "trainer/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// JSON has no NaN.
Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(); }
double Number(const Json& json) { return json.is_number() ? json.get<double>() : kNone; }

Json ToJson(const RunResult& run) {
  Json epochs = Json::array();
  for (const EpochReport& e : run.epochs) {
    epochs.push_back({{"loss", Number(e.loss)},
                      {"held_out_auc", Number(e.held_out_auc)},
                      {"held_out_log_loss", Number(e.held_out_log_loss)}});
  }
  return {{"variant", run.variant},
          {"seed", run.seed},
          {"best_epoch", run.best_epoch},
          {"test",
           {{"user_auc", Number(run.test.user_auc)},
            {"users", run.test.users},
            {"one_class_users", run.test.one_class_users},
            {"auc", Number(run.test.auc)},
            {"log_loss", Number(run.test.log_loss)},
            {"calibration", Number(run.test.calibration)},
            {"samples", run.test.samples}}},
          {"seconds", run.seconds},
          {"cpu_seconds", run.cpu_seconds},
          {"epochs", epochs}};
}

Json ToJson(const Estimate& e) { return {{"mean", Number(e.mean)}, {"half", Number(e.half)}}; }

const char* Name(Comparison::Verdict verdict) {
  switch (verdict) {
    case Comparison::kBase:
      return "the base";
    case Comparison::kAhead:
      return "ahead";
    case Comparison::kBehind:
      return "behind";
    case Comparison::kTie:
      return "tie";
  }
  return "";
}

// user AUC by variant and seed.
using Aucs = std::map<std::string, std::map<uint64_t, double>>;

// a - b for the seeds that both have.
std::vector<double> Differences(const std::map<uint64_t, double>& a, const std::map<uint64_t, double>& b) {
  std::vector<double> out;
  for (const auto& [seed, auc] : a) {
    if (const auto other = b.find(seed); other != b.end()) out.push_back(auc - other->second);
  }
  return out;
}

// Two-sided 95 % quantile of Student's t.
double StudentT(size_t degrees) {
  constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};
  if (degrees <= std::size(kTable)) return kTable[degrees - 1];
  const double z = 1.959964, n = static_cast<double>(degrees);  // Cornish and Fisher's expansion, two terms
  return z + (z * z * z + z) / (4 * n) + (5 * std::pow(z, 5) + 16 * std::pow(z, 3) + 3 * z) / (96 * n * n);
}

}  // namespace

std::string FormatRun(const RunResult& run) { return ToJson(run).dump(1) + "\n"; }

absl::StatusOr<RunResult> ParseRun(const std::string& json) try {
  const Json in = Json::parse(json);
  RunResult run{.variant = in.at("variant"), .seed = in.at("seed"), .best_epoch = in.at("best_epoch")};
  for (const Json& e : in.at("epochs")) {
    run.epochs.push_back({Number(e.at("loss")), Number(e.at("held_out_auc")), Number(e.at("held_out_log_loss"))});
  }
  const Json& test = in.at("test");
  run.test = {.samples = test.at("samples"),
              .user_auc = Number(test.at("user_auc")),
              .users = test.at("users"),
              .one_class_users = test.at("one_class_users"),
              .auc = Number(test.at("auc")),
              .log_loss = Number(test.at("log_loss")),
              .calibration = Number(test.at("calibration"))};
  run.seconds = in.at("seconds");
  run.cpu_seconds = in.at("cpu_seconds");
  return run;
} catch (const Json::exception& e) {
  return absl::InvalidArgumentError(absl::StrCat("not the result of a run: ", e.what()));
}

Estimate Mean95(const std::vector<double>& values) {
  if (values.empty()) return {kNone, kNone};
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  const auto n = static_cast<double>(values.size());
  const double mean = sum / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  if (values.size() < 2) return {mean, kNone};
  return {mean, StudentT(values.size() - 1) * std::sqrt(squares / (n - 1) / n)};
}

std::vector<Comparison> Compare(const std::vector<RunResult>& runs) {
  std::vector<Comparison> rows;
  Aucs aucs;
  for (const RunResult& run : runs) {
    if (!aucs.contains(run.variant)) rows.push_back({.variant = run.variant});
    aucs[run.variant][run.seed] = run.test.user_auc;
    Comparison& row = *std::ranges::find(rows, run.variant, &Comparison::variant);
    const auto n = static_cast<double>(++row.seeds);
    const auto average = [&](double& mean, double value) { mean += (value - mean) / n; };
    average(row.auc, run.test.auc);
    average(row.log_loss, run.test.log_loss);
    average(row.calibration, run.test.calibration);
    average(row.cpu_seconds, run.cpu_seconds);
  }
  if (rows.empty()) return rows;
  for (Comparison& row : rows) {
    std::vector<double> values;
    for (const auto& [seed, auc] : aucs[row.variant]) values.push_back(auc);
    row.user_auc = Mean95(values);
  }
  const auto named_base = std::ranges::find(rows, "base", &Comparison::variant);
  const Comparison base = named_base == rows.end() ? rows[0] : *named_base;
  const Comparison best = *std::ranges::max_element(rows, {}, [](const Comparison& c) { return c.user_auc.mean; });
  for (Comparison& row : rows) {
    row.rela_impr = RelaImpr(row.user_auc.mean, base.user_auc.mean);
    row.over_base = Mean95(Differences(aucs[row.variant], aucs[base.variant]));
    row.under_best = Mean95(Differences(aucs[best.variant], aucs[row.variant]));
    row.verdict = row.variant == base.variant      ? Comparison::kBase
                  : !row.over_base.excludes_zero() ? Comparison::kTie
                  : row.over_base.mean > 0         ? Comparison::kAhead
                                                   : Comparison::kBehind;
    row.ties_with_best = row.variant == best.variant || !row.under_best.excludes_zero();
  }
  return rows;
}

std::string FormatTable(const std::vector<Comparison>& rows, TableStyle style) {
  std::vector<std::vector<std::string>> cells = {{"model", "seeds", "user AUC", "RelaImpr", "over the base (95 %)",
                                                  "verdict", "best", "AUC", "log loss", "CPU s"}};
  for (const Comparison& c : rows) {
    const bool is_base = c.verdict == Comparison::kBase;
    cells.push_back({c.variant, absl::StrCat(c.seeds), absl::StrFormat("%.4f", c.user_auc.mean),
                     absl::StrFormat("%+.1f %%", c.rela_impr),
                     is_base ? ""
                     : std::isnan(c.over_base.half)
                         ? absl::StrFormat("%+.4f", c.over_base.mean)
                         : absl::StrFormat("%+.4f ± %.4f", c.over_base.mean, c.over_base.half),
                     Name(c.verdict), c.ties_with_best ? "*" : "", absl::StrFormat("%.4f", c.auc),
                     absl::StrFormat("%.4f", c.log_loss), absl::StrFormat("%.0f", c.cpu_seconds)});
  }
  const auto width = [](const std::string& text) {  // characters, not bytes
    return std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
  };
  std::vector<ptrdiff_t> widths(cells[0].size());
  for (const auto& row : cells) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  const bool markdown = style == TableStyle::kMarkdown;
  std::string out;
  for (size_t r = 0; r < cells.size(); ++r) {
    for (size_t i = 0; i < cells[r].size(); ++i) {
      const std::string pad(widths[i] - width(cells[r][i]), ' ');
      const bool left = i == 0 || i == 5;
      absl::StrAppend(&out,
                      markdown ? "| "
                      : i == 0 ? ""
                               : "  ",
                      left ? cells[r][i] + pad : pad + cells[r][i], markdown ? " " : "");
    }
    out += markdown ? "|\n" : "\n";
    if (r > 0 || !markdown) continue;
    for (size_t i = 0; i < widths.size(); ++i) absl::StrAppend(&out, "|", i == 0 || i == 5 ? "---" : "---:");
    out += "|\n";
  }
  absl::StrAppend(&out, markdown ? "\n" : "",
                  "tie: the interval of the paired differences holds zero. *: the best, or not told apart from it.\n");
  return out;
}

std::string FormatJson(const std::vector<Comparison>& rows, const std::vector<RunResult>& runs,
                       const std::string& options) {
  Json table = Json::array();
  for (const Comparison& c : rows) {
    table.push_back({{"variant", c.variant},
                     {"seeds", c.seeds},
                     {"user_auc", ToJson(c.user_auc)},
                     {"rela_impr", Number(c.rela_impr)},
                     {"over_base", ToJson(c.over_base)},
                     {"under_best", ToJson(c.under_best)},
                     {"verdict", Name(c.verdict)},
                     {"ties_with_best", c.ties_with_best},
                     {"auc", Number(c.auc)},
                     {"log_loss", Number(c.log_loss)},
                     {"calibration", Number(c.calibration)},
                     {"cpu_seconds", Number(c.cpu_seconds)}});
  }
  Json all = Json::array();
  for (const RunResult& run : runs) all.push_back(ToJson(run));
  return Json{{"options", Json::parse(options)}, {"table", table}, {"runs", all}}.dump(1) + "\n";
}

std::string PlotEpochs(const std::vector<RunResult>& runs, const std::vector<std::string>& variants,
                       const std::string& title) {
  struct Line {
    std::string variant;
    std::vector<double> auc;  // by epoch: as far as every seed got
  };
  std::vector<Line> lines;
  double least = 1, most = 0;
  size_t epochs = 2;
  for (const std::string& variant : variants) {
    std::vector<const RunResult*> of_variant;
    size_t length = SIZE_MAX;
    for (const RunResult& run : runs) {
      if (run.variant != variant) continue;
      of_variant.push_back(&run);
      length = std::min(length, run.epochs.size());
    }
    if (of_variant.empty()) continue;
    Line line{variant, std::vector<double>(length)};
    for (size_t e = 0; e < length; ++e) {
      for (const RunResult* run : of_variant)
        line.auc[e] += run->epochs[e].held_out_auc / static_cast<double>(of_variant.size());
      least = std::min(least, line.auc[e]);
      most = std::max(most, line.auc[e]);
    }
    epochs = std::max(epochs, length);
    lines.push_back(std::move(line));
  }
  if (lines.empty()) return "";
  const double step = most - least > 0.05 ? 0.02 : most - least > 0.02 ? 0.01 : 0.005;
  least = std::floor(least / step) * step;
  most = std::ceil(most / step + 1e-9) * step;

  constexpr double kLeft = 60, kTop = 40, kWidth = 480, kHeight = 260;
  constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"};
  const auto x = [&](size_t e) { return kLeft + kWidth * static_cast<double>(e) / static_cast<double>(epochs - 1); };
  const auto y = [&](double auc) { return kTop + kHeight * (most - auc) / (most - least); };
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"740\" height=\"360\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
      "<text x=\"%g\" y=\"20\" font-size=\"14\">%s</text>\n",
      kLeft, title);
  for (double auc = least; auc < most + step / 2; auc += step) {
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
                          "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%.3f</text>\n",
                          kLeft, kLeft + kWidth, y(auc), y(auc), kLeft - 6, y(auc) + 4, auc);
  }
  for (size_t e = 0; e < epochs; ++e) {
    absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%d</text>\n", x(e),
                          kTop + kHeight + 18, e + 1);
  }
  absl::StrAppendFormat(&svg, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">epoch</text>\n", kLeft + kWidth / 2,
                        kTop + kHeight + 38);
  for (size_t l = 0; l < lines.size(); ++l) {
    const char* colour = kColours[l % std::size(kColours)];
    std::string points;
    for (size_t e = 0; e < lines[l].auc.size(); ++e)
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x(e), y(lines[l].auc[e]));
    absl::StrAppendFormat(&svg, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", points,
                          colour);
    const double at = kTop + 14 + 20 * static_cast<double>(l);
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\" stroke=\"%s\" stroke-width=\"2\"/>"
                          "<text x=\"%g\" y=\"%g\">%s</text>\n",
                          kLeft + kWidth + 14, kLeft + kWidth + 34, at, at, colour, kLeft + kWidth + 40, at + 4,
                          lines[l].variant);
  }
  return svg + "</svg>\n";
}

}  // namespace din
