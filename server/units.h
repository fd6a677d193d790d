// Durations and sizes as people write them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace din {

// "250ms", "2s", "1m"; "4MiB", "512KiB", "1048576". Nothing for any other text, or one beyond 64 bits.
std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text);
std::optional<uint64_t> ParseBytes(std::string_view text);
std::string FormatDuration(std::chrono::milliseconds duration);
std::string FormatBytes(uint64_t bytes);

}  // namespace din
