// Text from an untrusted file, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace din {

// In double quotes, control characters and bytes beyond ASCII escaped, cut when long: errors end up in logs and
// terminals.
inline std::string Quote(std::string_view text) {
  constexpr size_t kLongest = 80;
  const bool cut = text.size() > kLongest;
  return absl::StrCat("\"", absl::CHexEscape(std::string(text.substr(0, kLongest))), cut ? "…\"" : "\"");
}

}  // namespace din
