// What was probably meant by a name that does not exist.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace din {

// The name with the smallest edit distance to `wanted` (Levenshtein); "" when all differ in more than half of it and
// one letter more.
std::string_view NearestName(std::string_view wanted, std::span<const std::string_view> names);

// `; did you mean "threads"?`, or nothing.
std::string DidYouMean(std::string_view wanted, std::span<const std::string_view> names);

}  // namespace din
