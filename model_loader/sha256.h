// SHA-256 (FIPS 180-4) on OpenSSL, which uses the CPU's SHA instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace din {

using Sha256Digest = std::array<std::byte, 32>;

// Digests bytes as they come. One thread.
class Sha256 {
 public:
  Sha256();

  void Update(std::span<const std::byte> bytes);
  // The digest of everything since the last Finish; then it starts anew.
  Sha256Digest Finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

Sha256Digest Sha256Of(std::string_view bytes);

// 64 lower-case hexadecimal characters, and back; nothing for any other text.
std::string Hex(const Sha256Digest& digest);
std::optional<Sha256Digest> ParseHex(std::string_view text);

}  // namespace din
