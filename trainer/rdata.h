// Reads what R's serialize() writes (XDR form, versions 2 and 3) and R's lazy-load databases, as far as data frames
// need: "R Internals", section 1.8 "Serialization Formats" and 1.6.4 "Lazy loading".
//
// Environments, closures and code are refused by name. Input is untrusted: every length is checked against the bytes
// that are left before anything of that size is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace din::rdata {

struct Value;
using ValuePtr = std::shared_ptr<const Value>;  // R shares symbols between places, so ownership is shared here too

enum class Type { kNull, kSymbol, kLogical, kInteger, kReal, kString, kList, kPairlist, kNamespace };

inline constexpr int32_t kMissingInteger = INT32_MIN;  // NA of logical and integer

struct Value {
  Type type = Type::kNull;
  std::vector<int32_t> integers;                    // kLogical, kInteger; kMissingInteger is NA
  std::vector<double> reals;                        // kReal; NA is a NaN
  std::vector<std::optional<std::string>> strings;  // kString, UTF-8; kSymbol and kNamespace: the name. nullopt is NA
  std::vector<ValuePtr> items;                      // kList, kPairlist
  std::vector<std::string> tags;                    // kPairlist: one per item, "" where there is none
  std::vector<std::pair<std::string, ValuePtr>> attributes;

  const Value* Attribute(std::string_view name) const;  // nullptr when there is none
  // The member of a named list (attribute "names") or pairlist (tags); nullptr when there is none.
  const Value* Member(std::string_view name) const;
  size_t size() const;  // elements, whatever the type
};

// One serialized value. DATA_LOSS: truncated or malformed, with the byte offset; UNIMPLEMENTED: a kind of R object, or
// another form of serialization (ASCII, native binary), that is not read here.
absl::StatusOr<ValuePtr> Parse(std::string_view bytes);

// zlib or gzip bytes, inflated. DATA_LOSS when they are damaged, cut short, or hold more than `limit` bytes.
absl::StatusOr<std::string> Inflate(std::string_view bytes, size_t limit);

// The variable `name` of the lazy-load database <stem>.rdx, <stem>.rdb. NOT_FOUND lists the variables that there are.
absl::StatusOr<ValuePtr> ReadLazyLoad(const std::string& stem, std::string_view name);

}  // namespace din::rdata
