// Text for terminals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace din {

enum class Align { kLeft, kRight };

// Columns as wide as their widest cell.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns.
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Text that came over the wire, fit for a terminal: control characters escaped, cut at `most` characters.
std::string Printable(std::string_view text, size_t most = 60);

// A bar of |value| / largest * width cells, in eighths; of another shade when the value is negative.
std::string Bar(double value, double largest, int width);

// "3.2 MiB".
std::string HumanBytes(uint64_t bytes);

}  // namespace din
