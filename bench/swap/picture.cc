#include "bench/swap/picture.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace din::swap {
namespace {

constexpr double kWidth = 1200, kHeight = 560;
constexpr double kLeft = 70, kRight = kWidth - 20;
constexpr double kTop = 60, kBottom = 400;               // of the latencies
constexpr double kMemoryTop = 440, kMemoryBottom = 520;  // of the memory
constexpr int kSlices = 240;
constexpr char kHere[] = "#1b6ca8", kOther[] = "#b8860b", kBad[] = "#b22222";

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

class Canvas {
 public:
  explicit Canvas(const Picture& picture) : p_(picture) {
    double most = 1e4;
    for (const Request& request : p_.requests) {
      if (request.ok) most = std::max(most, static_cast<double>(request.latency_ns));
    }
    low_ = 1e5;  // 0.1 ms
    high_ = std::pow(10, std::ceil(std::log10(most)));
    for (const auto& [at, bytes] : p_.resident) most_bytes_ = std::max(most_bytes_, static_cast<double>(bytes) * 1.05);
  }

  std::string Draw() {
    absl::StrAppendFormat(
        &svg_,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" "
        "font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
        kWidth, kHeight);
    Text(kLeft, 22, p_.title, "#000", "start", 16);
    Key();
    Stretches();
    Axes();
    Swaps();
    Latencies();
    Memory();
    return svg_ + "</svg>\n";
  }

 private:
  double X(int64_t at) const {
    const auto share = static_cast<double>(at - p_.begin_ns) / static_cast<double>(p_.end_ns - p_.begin_ns);
    return kLeft + std::clamp(share, 0.0, 1.0) * (kRight - kLeft);
  }
  double Y(double ns) const {
    const double share = std::log(std::max(ns, low_) / low_) / std::log(high_ / low_);
    return kBottom - share * (kBottom - kTop);
  }

  void Text(double x, double y, const std::string& text, const char* colour, const char* anchor, int size = 13) {
    absl::StrAppendFormat(&svg_,
                          "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x,
                          y, colour, anchor, size, Escaped(text));
  }
  void Line(double x0, double y0, double x1, double y1, const char* colour, const char* more = "") {
    absl::StrAppendFormat(&svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" %s/>\n", x0, y0,
                          x1, y1, colour, more);
  }
  void Path(const std::vector<std::pair<double, double>>& points, const char* colour, double width) {
    if (points.empty()) return;
    std::string d;
    for (const auto& [x, y] : points) absl::StrAppendFormat(&d, "%s%.1f %.1f", d.empty() ? "M" : " L", x, y);
    absl::StrAppendFormat(&svg_, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\"/>\n", d, colour,
                          width);
  }

  void Key() {
    double x = kLeft;
    for (const auto& [text, colour] : {std::pair("p50", "#7fb3d5"),
                                       {"p99", "#1b4f72"},
                                       {"slowest", "#999999"},
                                       {"swap", kHere},
                                       {"swap of another model", kOther},
                                       {"refused", kBad}}) {
      Line(x, 38, x + 18, 38, colour, "stroke-width=\"3\"");
      Text(x + 24, 42, text, "#333", "start");
      x += 50 + 7.5 * static_cast<double>(std::string_view(text).size());
    }
    Text(x, 42, p_.stolen.empty() ? "shaded: loading" : "shaded: loading; dark: cores taken away", "#333", "start");
  }

  void Shade(const Window& window, const char* colour, double opacity) {
    const double x = X(window.begin_ns), width = std::max(X(window.end_ns) - x, 1.0);
    absl::StrAppendFormat(&svg_,
                          "<rect x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"%.0f\" fill=\"%s\" opacity=\"%.2f\"/>\n",
                          x, kTop, width, kMemoryBottom - kTop, colour, opacity);
  }

  void Stretches() {
    for (const Window& window : p_.stolen) Shade(window, "#000", 0.25);
    for (const Window& window : FindWindows(p_.events, p_.model)) {
      const bool here = window.phase == Phase::kLoading, other = window.phase == Phase::kOtherLoading;
      const bool refused = window.phase == Phase::kRefusing || window.phase == Phase::kOtherRefusing;
      if (!here && !other && !refused) continue;
      Shade(window, here ? kHere : other ? kOther : kBad, 0.13);
    }
  }

  void Swaps() {
    for (const ModelEvent& event : p_.events) {
      if (event.at_ns < p_.begin_ns || event.at_ns > p_.end_ns) continue;
      const double x = X(event.at_ns);
      if (event.kind == ModelEvent::Kind::kLive) {
        const bool here = event.model == p_.model;
        Line(x, kTop, x, kMemoryBottom, here ? kHere : kOther);
        Text(x, kTop - 4, absl::StrCat(event.version), here ? kHere : kOther, "middle", 10);
      } else if (event.kind == ModelEvent::Kind::kRefused) {
        Line(x, kTop, x, kMemoryBottom, kBad, "stroke-dasharray=\"3 3\"");
      }
    }
  }

  void Axes() {
    for (double ns = low_; ns <= high_ * 1.01; ns *= 10) {
      Line(kLeft, Y(ns), kRight, Y(ns), "#ddd");
      Text(kLeft - 8, Y(ns) + 4, absl::StrCat(ns * 1e-6, " ms"), "#333", "end");
    }
    Line(kLeft, kMemoryBottom, kRight, kMemoryBottom, "#ddd");
    Line(kLeft, kMemoryTop, kRight, kMemoryTop, "#ddd");
    Text(kLeft - 8, kMemoryBottom, "0", "#333", "end");
    Text(kLeft - 8, kMemoryTop + 8, absl::StrFormat("%.1f GiB", most_bytes_ / (1 << 30)), "#333", "end");
    const double seconds = static_cast<double>(p_.end_ns - p_.begin_ns) * 1e-9;
    double step = 1;
    for (const double wider : {2, 5, 10, 20, 50, 100, 200, 500, 1000}) step = seconds / step > 14 ? wider : step;
    for (double t = 0; t <= seconds; t += step) {
      const double x = X(p_.begin_ns + static_cast<int64_t>(t * 1e9));
      Line(x, kMemoryBottom, x, kMemoryBottom + 5, "#333");
      Text(x, kMemoryBottom + 20, absl::StrCat(t, " s"), "#333", "middle");
    }
    Text(kLeft, kMemoryTop - 8, "memory of the server", "#333", "start");
  }

  void Latencies() {
    std::vector<std::vector<int64_t>> slices(kSlices);
    for (const Request& request : p_.requests) {
      const auto share =
          static_cast<double>(request.due_ns - p_.begin_ns) / static_cast<double>(p_.end_ns - p_.begin_ns);
      if (!request.ok || share < 0 || share >= 1) continue;
      slices[static_cast<size_t>(share * kSlices)].push_back(request.latency_ns);
    }
    std::vector<std::pair<double, double>> median, p99, slowest;
    for (int s = 0; s < kSlices; ++s) {
      std::vector<int64_t>& values = slices[s];
      if (values.empty()) continue;
      std::ranges::sort(values);
      const double x = kLeft + (s + 0.5) / kSlices * (kRight - kLeft);
      const auto at = [&](double q) {
        return static_cast<double>(values[static_cast<size_t>(q * (values.size() - 1))]);
      };
      median.emplace_back(x, Y(at(0.5)));
      p99.emplace_back(x, Y(at(0.99)));
      slowest.emplace_back(x, Y(at(1)));
    }
    Path(slowest, "#999999", 0.7);
    Path(p99, "#1b4f72", 1.5);
    Path(median, "#7fb3d5", 1.5);
  }

  void Memory() {
    std::vector<std::pair<double, double>> points;
    for (const auto& [at, bytes] : p_.resident) {
      if (at < p_.begin_ns || at > p_.end_ns) continue;
      points.emplace_back(X(at),
                          kMemoryBottom - static_cast<double>(bytes) / most_bytes_ * (kMemoryBottom - kMemoryTop));
    }
    Path(points, "#2e7d32", 1.5);
  }

  const Picture& p_;
  double low_ = 0, high_ = 0;
  double most_bytes_ = 1;
  std::string svg_;
};

}  // namespace

std::string ToSvg(const Picture& picture) { return Canvas(picture).Draw(); }

}  // namespace din::swap
