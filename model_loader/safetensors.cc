#include "model_loader/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "model_loader/json.h"
#include "model_loader/quote.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used where they were read");

constexpr size_t kLengthBytes = 8;
constexpr size_t kCacheLine = 64;
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxNameBytes = 512;
constexpr char kMetadata[] = "__metadata__";

constexpr std::array kTypes = {DataType::kF32, DataType::kF16, DataType::kBF16, DataType::kI64,
                               DataType::kI32, DataType::kU8,  DataType::kI8};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

std::optional<DataType> TypeNamed(std::string_view name) {
  const auto at = std::find_if(kTypes.begin(), kTypes.end(), [&](DataType type) { return Name(type) == name; });
  return at == kTypes.end() ? std::nullopt : std::optional(*at);
}

// Control characters, C1 (U+0080 … U+009F) included, have no business in a name. UTF-8 is the JSON parser's to check.
bool IsPrintable(std::string_view name) {
  for (size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    const bool c1 = c == 0xC2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xA0;
    if (c < 0x20 || c == 0x7F || c1) return false;
  }
  return true;
}

absl::Status CheckTensorName(const std::string& name) {
  if (name.empty() || name.size() > kMaxNameBytes) {
    return Invalid("tensor name ", Quote(name), ": ", name.size(), " bytes, must be 1 to ", kMaxNameBytes);
  }
  if (!IsPrintable(name)) return Invalid("tensor name ", Quote(name), ": control characters");
  return absl::OkStatus();
}

// Bytes of a tensor; nothing when that, or the product of the dimensions without the zeros, passes 2^63 - 1.
std::optional<uint64_t> BytesOf(DataType type, const std::vector<int64_t>& shape) {
  int64_t product = static_cast<int64_t>(SizeOf(type));
  bool empty = false;
  for (int64_t dim : shape) {
    empty |= dim == 0;
    if (dim != 0 && __builtin_mul_overflow(product, dim, &product)) return std::nullopt;
  }
  return empty ? 0 : static_cast<uint64_t>(product);
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const nlohmann::json& json) {
  if (!json.is_array()) return Invalid("shape is not an array");
  if (json.size() > kMaxRank) return Invalid("rank: ", json.size(), " > limit ", kMaxRank);
  std::vector<int64_t> shape;
  for (const nlohmann::json& dim : json) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
      return Invalid("shape[", shape.size(), "] is not an integer in [0, 2^63)");
    }
    shape.push_back(dim.get<int64_t>());
  }
  return shape;
}

absl::Status ParseOffsets(const nlohmann::json& json, SafetensorsEntry& entry) {
  if (!json.is_array() || json.size() != 2 || !json[0].is_number_unsigned() || !json[1].is_number_unsigned()) {
    return Invalid("data_offsets is not [begin, end]");
  }
  entry.begin = json[0].get<uint64_t>();
  entry.end = json[1].get<uint64_t>();
  if (entry.begin > entry.end) return Invalid("data_offsets [", entry.begin, ", ", entry.end, "]: begin > end");
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& name, const nlohmann::json& json) {
  SafetensorsEntry entry;
  entry.name = name;
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return Invalid("not an object of exactly dtype, shape and data_offsets");
  }
  const nlohmann::json& dtype = json["dtype"];
  const std::string spelling = dtype.is_string() ? dtype.get<std::string>() : "";
  const std::optional<DataType> type = TypeNamed(spelling);
  if (!type) return Invalid("dtype ", Quote(spelling), ": not one of F32, F16, BF16, I64, I32, U8, I8");
  entry.type = *type;
  DIN_ASSIGN_OR_RETURN(entry.shape, ParseShape(json["shape"]));
  DIN_RETURN_IF_ERROR(ParseOffsets(json["data_offsets"], entry));
  const std::optional<uint64_t> bytes = BytesOf(entry.type, entry.shape);
  const std::string what = absl::StrCat(spelling, " [", absl::StrJoin(entry.shape, ", "), "]");
  if (!bytes) return Invalid(what, ": more than 2^63 - 1 bytes");
  if (*bytes != entry.end - entry.begin) {
    return Invalid(what, " is ", *bytes, " bytes, data_offsets [", entry.begin, ", ", entry.end, "] are ",
                   entry.end - entry.begin);
  }
  if (entry.begin % SizeOf(entry.type) != 0) {
    return Invalid("data_offsets begin at ", entry.begin, ", not a multiple of the element's ", SizeOf(entry.type),
                   " bytes; write tensors of wider elements first");
  }
  return entry;
}

absl::Status CheckMetadata(const nlohmann::json& json) {
  const auto is_string = [](const nlohmann::json& value) { return value.is_string(); };
  if (json.is_object() && std::all_of(json.begin(), json.end(), is_string)) return absl::OkStatus();
  return Invalid(kMetadata, ": not an object of strings");
}

// Sorts the entries by place and holds them to fill [0, data_bytes) exactly.
absl::Status CheckCover(std::vector<SafetensorsEntry>& entries, uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.end > data_bytes) {
      return Invalid("tensor ", Quote(entry.name), ": data_offsets [", entry.begin, ", ", entry.end,
                     "], but the data has ", data_bytes, " bytes");
    }
    if (entry.begin < covered) {
      return Invalid("tensor ", Quote(entry.name), ": begins at ", entry.begin, ", inside another that ends at ",
                     covered);
    }
    if (entry.begin > covered) {
      return Invalid("tensor ", Quote(entry.name), ": begins at ", entry.begin, ", but no tensor has the bytes from ",
                     covered);
    }
    covered = entry.end;
  }
  if (covered < data_bytes) return Invalid("data: no tensor has the bytes [", covered, ", ", data_bytes, ")");
  return absl::OkStatus();
}

// Where in a tensor of this shape the element `index` is: "[12, 3]".
std::string Coordinates(const std::vector<int64_t>& shape, size_t index) {
  std::vector<size_t> at(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    at[d] = index % static_cast<size_t>(shape[d]);
    index /= static_cast<size_t>(shape[d]);
  }
  return absl::StrCat("[", absl::StrJoin(at, ", "), "]");
}

// The first element whose exponent bits are all ones, or `end`. Blocks without a branch inside, so that the compiler
// vectorises the usual case: nothing found.
template <typename Word>
size_t FirstNotFinite(const std::byte* data, size_t begin, size_t end, Word exponent) {
  constexpr size_t kBlock = 1024;
  const Word* const words = reinterpret_cast<const Word*>(data);
  for (size_t block = begin; block < end; block += kBlock) {
    const size_t stop = std::min(end, block + kBlock);
    unsigned found = 0;
    for (size_t i = block; i < stop; ++i) found |= static_cast<Word>(words[i] & exponent) == exponent;
    if (found == 0) continue;
    for (size_t i = block; i < stop; ++i) {
      if (static_cast<Word>(words[i] & exponent) == exponent) return i;
    }
  }
  return end;
}

// What a word with all exponent bits set stands for.
std::string ValueOf(uint32_t word, uint32_t exponent, uint32_t sign) {
  const uint32_t mantissa = word & ~(exponent | sign);
  if (mantissa != 0) return "nan";
  return (word & sign) != 0 ? "-inf" : "inf";
}

}  // namespace

uint64_t ClaimedDataBegin(std::string_view first_bytes) {
  if (first_bytes.size() < kLengthBytes) return 0;
  uint64_t length = 0;
  std::memcpy(&length, first_bytes.data(), kLengthBytes);
  return kLengthBytes + length;  // modulo 2^64 for a liar
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view head, uint64_t file_size,
                                                         const SafetensorsLimits& limits) {
  if (file_size < kLengthBytes || head.size() < kLengthBytes) {
    return Invalid("byte 0: ", file_size, " bytes are too short for the header's length");
  }
  const uint64_t length = ClaimedDataBegin(head) - kLengthBytes;
  if (length > file_size - kLengthBytes) {
    return Invalid("byte 0: header of ", length, " bytes, but ", file_size - kLengthBytes, " are left in the file");
  }
  if (length > limits.header_bytes) return Invalid("byte 0: header: ", length, " bytes > limit ", limits.header_bytes);
  const std::string_view text = head.substr(kLengthBytes, length);
  if (text.size() != length || !text.starts_with('{')) return Invalid("byte 8: the header does not begin with '{'");

  constexpr int kDepth = 3;  // object, tensor, shape
  if (const absl::Status status = CheckJson(text, kDepth); !status.ok()) {
    return Invalid("header: ", std::string(status.message().data(), status.message().size()));
  }
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.size() > limits.tensors + (json.contains(kMetadata) ? 1 : 0)) {
    return Invalid("tensors: ", json.size(), " > limit ", limits.tensors);
  }
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) {
      DIN_RETURN_IF_ERROR(CheckMetadata(value));
      continue;
    }
    DIN_RETURN_IF_ERROR(CheckTensorName(name));
    absl::StatusOr<SafetensorsEntry> entry = ParseEntry(name, value);
    if (!entry.ok()) return Invalid("tensor ", Quote(name), ": ", entry.status().message());
    header.entries.push_back(*std::move(entry));
  }
  DIN_RETURN_IF_ERROR(CheckCover(header.entries, file_size - header.data_begin));
  return header;
}

void SortForWriting(std::vector<NamedTensor>& tensors) {
  const auto alignment = [](const NamedTensor& t) {
    return t.tensor->bytes == 0 ? kCacheLine : std::min(kCacheLine, t.tensor->bytes & (~t.tensor->bytes + 1));
  };
  std::sort(tensors.begin(), tensors.end(), [&](const NamedTensor& a, const NamedTensor& b) {
    const size_t x = alignment(a), y = alignment(b);
    return x != y ? x > y : a.name < b.name;
  });
}

std::string FormatSafetensorsHeader(const std::vector<NamedTensor>& tensors) {
  std::string text = "{";
  uint64_t offset = 0;
  for (const NamedTensor& t : tensors) {
    // Bytes that are not UTF-8 are replaced here; the reader then sees a name that it can say.
    const std::string name = nlohmann::json(t.name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    absl::StrAppend(&text, text.size() == 1 ? "" : ",", name, ":{\"dtype\":\"", std::string(Name(t.tensor->type)),
                    "\",\"shape\":[", absl::StrJoin(t.tensor->shape, ","), "],\"data_offsets\":[", offset, ",",
                    offset + t.tensor->bytes, "]}");
    offset += t.tensor->bytes;
  }
  text += "}";
  text.append((kCacheLine - (kLengthBytes + text.size()) % kCacheLine) % kCacheLine, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + text;
}

absl::Status CheckFinite(const Tensor& tensor, size_t begin, size_t end) {
  size_t at = end;
  std::string value;
  if (tensor.type == DataType::kF32) {
    at = FirstNotFinite<uint32_t>(tensor.data, begin, end, 0x7F800000u);
    if (at < end) value = ValueOf(reinterpret_cast<const uint32_t*>(tensor.data)[at], 0x7F800000u, 0x80000000u);
  } else if (tensor.type == DataType::kF16 || tensor.type == DataType::kBF16) {
    const uint16_t exponent = tensor.type == DataType::kF16 ? 0x7C00 : 0x7F80;
    at = FirstNotFinite<uint16_t>(tensor.data, begin, end, exponent);
    if (at < end) value = ValueOf(reinterpret_cast<const uint16_t*>(tensor.data)[at], exponent, 0x8000u);
  }
  if (at == end) return absl::OkStatus();
  return Invalid("element ", Coordinates(tensor.shape, at), " is ", value);
}

}  // namespace din
