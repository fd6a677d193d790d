#include "model/key_index.h"

#include "absl/strings/escaping.h"

namespace din {

std::string SpellId(int64_t id) { return absl::StrCat(id); }

std::string SpellId(std::string_view id) {
  constexpr size_t kShownBytes = 64;
  const std::string_view shown = id.substr(0, kShownBytes);
  const std::string escaped = absl::CHexEscape(absl::string_view(shown.data(), shown.size()));
  return absl::StrCat("\"", escaped, shown.size() < id.size() ? "..." : "", "\"");
}

}  // namespace din
