// Text of data files as UTF-8, which is what a snapshot's names and a response's labels must be.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace din {

// RFC 3629: no overlong form, no surrogate, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view text);

// Appends a code point, at most 0x10FFFF.
void AppendUtf8(uint32_t code_point, std::string& out);

std::string Utf8FromLatin1(std::string_view latin1);

}  // namespace din
