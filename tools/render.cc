#include "tools/render.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace din {
namespace {

bool StartsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// Of UTF-8, one cell a character.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), StartsCharacter));
}

}  // namespace

std::string Table::Text() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = Width(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, Width(row[c]));
    widths.push_back(width);
  }
  std::string out;
  const auto line = [&](const auto& cell) {
    std::string text;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string fill(widths[c] - Width(cell(c)), ' ');
      absl::StrAppend(&text, c == 0 ? "" : "  ", columns_[c].align == Align::kRight ? fill : "", cell(c),
                      columns_[c].align == Align::kLeft ? fill : "");
    }
    text.erase(text.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, text, "\n");
  };
  line([&](size_t c) -> const std::string& { return columns_[c].title; });
  for (const auto& row : rows_) line([&](size_t c) -> const std::string& { return row[c]; });
  return out;
}

std::string Printable(std::string_view text, size_t most) {
  std::string out;
  size_t characters = 0;
  for (const char c : text) {
    if (StartsCharacter(c) && ++characters > most) return out + "…";
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(byte));
    else
      out += c;
  }
  return out;
}

std::string Bar(double value, double largest, int width) {
  constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (!(largest > 0)) return "";
  const auto eighths = static_cast<int>(std::lround(std::min(std::abs(value) / largest, 1.0) * width * 8));
  std::string out;
  for (int i = 0; i < eighths / 8; ++i) out += value < 0 ? "▒" : "█";
  return out + (value < 0 ? "" : kEighths[eighths % 8]);
}

std::string HumanBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

}  // namespace din
