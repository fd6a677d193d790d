#include "trainer/utf8.h"

#include <cstddef>

namespace din {

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    if (first < 0x80) continue;
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t code_point = first & (0x3F >> more);
    for (int k = 0; k < more; ++k) {
      const auto next = static_cast<unsigned char>(text[i++]);
      if ((next & 0xC0) != 0x80) return false;
      code_point = code_point << 6 | (next & 0x3F);
    }
    constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    const bool is_surrogate = code_point >= 0xD800 && code_point < 0xE000;
    if (code_point < kLeast[more] || code_point > 0x10FFFF || is_surrogate) return false;
  }
  return true;
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  const auto add = [&](uint32_t mark, int shift) {
    out.push_back(static_cast<char>(mark | (code_point >> shift & (mark == 0x80 ? 0x3F : 0xFF))));
  };
  if (code_point < 0x80) return add(0, 0);
  if (code_point < 0x800) {
    add(0xC0, 6);
  } else {
    if (code_point < 0x10000) {
      add(0xE0, 12);
    } else {
      add(0xF0, 18);
      add(0x80, 12);
    }
    add(0x80, 6);
  }
  add(0x80, 0);
}

std::string Utf8FromLatin1(std::string_view latin1) {
  std::string utf8;
  for (const char c : latin1) AppendUtf8(static_cast<unsigned char>(c), utf8);
  return utf8;
}

}  // namespace din
