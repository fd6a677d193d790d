#include "trainer/rdata.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"

namespace din::rdata {
namespace {

// Codes of R's serialize.c, which are also SEXP types below 26.
enum Code : int {
  kNilSxp = 0,
  kSymSxp = 1,
  kListSxp = 2,
  kCharSxp = 9,
  kLglSxp = 10,
  kIntSxp = 13,
  kRealSxp = 14,
  kStrSxp = 16,
  kVecSxp = 19,
  kAltrep = 238,
  kBaseEnv = 241,
  kEmptyEnv = 242,
  kPersist = 247,
  kPackage = 248,
  kNamespace = 249,
  kBaseNamespace = 250,
  kMissingArg = 251,
  kUnboundValue = 252,
  kGlobalEnv = 253,
  kNilValue = 254,
  kReference = 255,
};

// A data frame is three levels deep; deeper nesting than this would only serve to exhaust the stack.
constexpr int kMaxDepth = 64;
// Bigger than any data set of the lazy-load kind; keeps a damaged length from asking for all memory.
constexpr size_t kMaxInflated = size_t{1} << 30;
// A sequence in compact form states its length in a few bytes, so the bytes left do not bound it.
constexpr double kMaxCompactSequence = 1 << 26;

uint32_t BigEndian32(const char* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return __builtin_bswap32(value);
}

uint64_t BigEndian64(const char* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return __builtin_bswap64(value);
}

std::string Latin1ToUtf8(std::string_view latin1) {
  std::string utf8;
  for (unsigned char c : latin1) {
    if (c < 0x80) {
      utf8.push_back(static_cast<char>(c));
    } else {
      utf8.push_back(static_cast<char>(0xC0 | (c >> 6)));
      utf8.push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
  return utf8;
}

class Parser {
 public:
  explicit Parser(std::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<ValuePtr> Document() {
    DIN_RETURN_IF_ERROR(Header());
    DIN_ASSIGN_OR_RETURN(ValuePtr value, Item(0));
    if (at_ != bytes_.size()) return Damaged(absl::StrCat(bytes_.size() - at_, " bytes after the value"));
    return value;
  }

 private:
  struct Flags {
    explicit Flags(uint32_t word)
        : code(word & 0xFF),
          has_attributes(word & 0x200),
          has_tag(word & 0x400),
          levels(word >> 12),
          upper(word >> 8) {}
    int code;
    bool has_attributes;
    bool has_tag;
    uint32_t levels;  // of a CHARSXP: its encoding
    uint32_t upper;   // of a reference: its index, or 0 when the index follows
  };

  absl::Status Damaged(std::string_view what) const {
    return absl::DataLossError(absl::StrCat("R data: byte ", at_, ": ", std::string(what)));
  }

  absl::Status Need(size_t count, size_t element) const {
    const size_t left = bytes_.size() - at_;
    if (count <= left / element) return absl::OkStatus();
    return Damaged(
        absl::StrCat("truncated: ", count, " elements of ", element, " bytes wanted, ", left, " bytes left"));
  }

  absl::StatusOr<uint32_t> Word() {
    DIN_RETURN_IF_ERROR(Need(1, 4));
    const uint32_t word = BigEndian32(bytes_.data() + at_);
    at_ += 4;
    return word;
  }

  absl::StatusOr<std::string_view> Bytes(size_t count) {
    DIN_RETURN_IF_ERROR(Need(count, 1));
    const std::string_view bytes = bytes_.substr(at_, count);
    at_ += count;
    return bytes;
  }

  // A length, checked against what is left when each element takes `element` bytes at least.
  absl::StatusOr<size_t> Length(size_t element) {
    DIN_ASSIGN_OR_RETURN(const uint32_t length, Word());
    if (length > INT32_MAX) return Damaged("length of 2^31 or more");
    DIN_RETURN_IF_ERROR(Need(length, element));
    return length;
  }

  absl::Status Header() {
    DIN_ASSIGN_OR_RETURN(const std::string_view format, Bytes(2));
    if (format != "X\n") return absl::UnimplementedError("R data: not in XDR form");
    DIN_ASSIGN_OR_RETURN(const uint32_t version, Word());
    if (version != 2 && version != 3) {
      return absl::UnimplementedError(absl::StrCat("R data: serialization version ", version, "; accepted: 2, 3"));
    }
    DIN_RETURN_IF_ERROR(Bytes(8).status());  // R's own version, and the oldest that reads this
    if (version == 3) {
      DIN_ASSIGN_OR_RETURN(const size_t length, Length(1));
      DIN_RETURN_IF_ERROR(Bytes(length).status());  // the native encoding; strings carry their own
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ValuePtr> Item(int depth) {
    if (depth > kMaxDepth) return Damaged(absl::StrCat("nested deeper than ", kMaxDepth));
    DIN_ASSIGN_OR_RETURN(const uint32_t word, Word());
    return ItemOf(Flags(word), depth);
  }

  absl::StatusOr<ValuePtr> ItemOf(Flags flags, int depth) {
    switch (flags.code) {
      case kNilSxp:
      case kNilValue:
      case kMissingArg:
      case kUnboundValue:
      case kGlobalEnv:
      case kBaseEnv:
      case kEmptyEnv:
      case kBaseNamespace:
        return std::make_shared<const Value>();
      case kReference:
        return Reference(flags);
      case kSymSxp:
        return Symbol(depth);
      case kPersist:
      case kPackage:
      case kNamespace:
        return Namespace(depth);
      case kListSxp:
        return Pairlist(flags, depth);
      case kAltrep:
        return Altrep(depth);
      case kLglSxp:
      case kIntSxp:
      case kRealSxp:
      case kStrSxp:
      case kVecSxp:
        return Vector(flags, depth);
      default:
        return absl::UnimplementedError(
            absl::StrCat("R data: byte ", at_ - 4, ": object of type ", flags.code, " is not read here"));
    }
  }

  absl::StatusOr<ValuePtr> Reference(Flags flags) {
    uint32_t index = flags.upper;
    if (index == 0) {
      DIN_ASSIGN_OR_RETURN(index, Word());
    }
    if (index == 0 || index > references_.size()) {
      return Damaged(absl::StrCat("reference ", index, ", but ", references_.size(), " are known"));
    }
    return references_[index - 1];
  }

  absl::StatusOr<std::optional<std::string>> Characters() {
    DIN_ASSIGN_OR_RETURN(const uint32_t word, Word());
    const Flags flags(word);
    if (flags.code != kCharSxp) return Damaged(absl::StrCat("a string was expected, found type ", flags.code));
    DIN_ASSIGN_OR_RETURN(const uint32_t length, Word());
    if (length == UINT32_MAX) return std::nullopt;
    DIN_ASSIGN_OR_RETURN(const std::string_view bytes, Bytes(length));
    constexpr uint32_t kLatin1 = 1u << 2;
    return (flags.levels & kLatin1) ? Latin1ToUtf8(bytes) : std::string(bytes);
  }

  absl::StatusOr<ValuePtr> Symbol(int) {
    auto symbol = std::make_shared<Value>();
    symbol->type = Type::kSymbol;
    DIN_ASSIGN_OR_RETURN(std::optional<std::string> name, Characters());
    symbol->strings.push_back(std::move(name).value_or("NA"));
    references_.push_back(symbol);
    return symbol;
  }

  absl::StatusOr<ValuePtr> Namespace(int) {
    DIN_ASSIGN_OR_RETURN(const uint32_t zero, Word());
    if (zero != 0) return Damaged("names in a persistent name");
    DIN_ASSIGN_OR_RETURN(const size_t length, Length(8));
    auto value = std::make_shared<Value>();
    value->type = Type::kNamespace;
    for (size_t i = 0; i < length; ++i) {
      DIN_ASSIGN_OR_RETURN(std::optional<std::string> part, Characters());
      value->strings.push_back(std::move(part));
    }
    references_.push_back(value);
    return value;
  }

  // Iterative along the list: its length is not bounded by kMaxDepth.
  absl::StatusOr<ValuePtr> Pairlist(Flags flags, int depth) {
    auto list = std::make_shared<Value>();
    list->type = Type::kPairlist;
    while (flags.code == kListSxp) {
      if (flags.has_attributes) {
        DIN_ASSIGN_OR_RETURN(const ValuePtr attributes, Item(depth + 1));
        AddAttributes(*attributes, *list);
      }
      std::string tag;
      if (flags.has_tag) {
        DIN_ASSIGN_OR_RETURN(const ValuePtr symbol, Item(depth + 1));
        if (symbol->type != Type::kSymbol) return Damaged("a tag that is not a symbol");
        tag = *symbol->strings[0];
      }
      DIN_ASSIGN_OR_RETURN(ValuePtr value, Item(depth + 1));
      list->tags.push_back(std::move(tag));
      list->items.push_back(std::move(value));
      DIN_ASSIGN_OR_RETURN(const uint32_t word, Word());
      flags = Flags(word);
    }
    if (flags.code != kNilValue && flags.code != kNilSxp) return Damaged("a pairlist that does not end in NULL");
    return list;
  }

  absl::StatusOr<ValuePtr> Vector(Flags flags, int depth) {
    auto vector = std::make_shared<Value>();
    switch (flags.code) {
      case kLglSxp:
      case kIntSxp: {
        vector->type = flags.code == kIntSxp ? Type::kInteger : Type::kLogical;
        DIN_ASSIGN_OR_RETURN(const size_t length, Length(4));
        vector->integers.resize(length);
        for (int32_t& x : vector->integers) x = std::bit_cast<int32_t>(BigEndian32(Take(4)));
        break;
      }
      case kRealSxp: {
        vector->type = Type::kReal;
        DIN_ASSIGN_OR_RETURN(const size_t length, Length(8));
        vector->reals.resize(length);
        for (double& x : vector->reals) x = std::bit_cast<double>(BigEndian64(Take(8)));
        break;
      }
      case kStrSxp: {
        vector->type = Type::kString;
        DIN_ASSIGN_OR_RETURN(const size_t length, Length(8));
        vector->strings.resize(length);
        for (std::optional<std::string>& x : vector->strings) {
          DIN_ASSIGN_OR_RETURN(x, Characters());
        }
        break;
      }
      default: {
        vector->type = Type::kList;
        DIN_ASSIGN_OR_RETURN(const size_t length, Length(4));
        vector->items.resize(length);
        for (ValuePtr& x : vector->items) {
          DIN_ASSIGN_OR_RETURN(x, Item(depth + 1));
        }
      }
    }
    if (flags.has_attributes) {
      DIN_ASSIGN_OR_RETURN(const ValuePtr attributes, Item(depth + 1));
      AddAttributes(*attributes, *vector);
    }
    return vector;
  }

  // R's alternative representations (version 3): compact sequences, and wrappers around ordinary vectors.
  absl::StatusOr<ValuePtr> Altrep(int depth) {
    DIN_ASSIGN_OR_RETURN(const ValuePtr info, Item(depth + 1));
    DIN_ASSIGN_OR_RETURN(const ValuePtr state, Item(depth + 1));
    DIN_ASSIGN_OR_RETURN(const ValuePtr attributes, Item(depth + 1));
    if (info->items.empty() || info->items[0]->type != Type::kSymbol) return Damaged("ALTREP without a class");
    const std::string& name = *info->items[0]->strings[0];
    auto value = std::make_shared<Value>();
    if (name == "compact_intseq" || name == "compact_realseq") {
      DIN_RETURN_IF_ERROR(CompactSequence(*state, name == "compact_intseq", *value));
    } else if (name.starts_with("wrap_") && !state->items.empty()) {
      *value = *state->items[0];
    } else {
      return absl::UnimplementedError(absl::StrCat("R data: byte ", at_, ": ALTREP class ", name, " is not read here"));
    }
    AddAttributes(*attributes, *value);
    return value;
  }

  // State: length, first value, increment.
  absl::Status CompactSequence(const Value& state, bool integers, Value& out) const {
    if (state.type != Type::kReal || state.reals.size() != 3)
      return Damaged("compact sequence without its three numbers");
    const double length = state.reals[0];
    if (!(length >= 0 && length <= kMaxCompactSequence)) {
      return Damaged(absl::StrCat("compact sequence: length ", length, " > limit ", kMaxCompactSequence));
    }
    const double last = state.reals[1] + state.reals[2] * length;
    if (integers && !(std::abs(state.reals[1]) <= INT32_MAX && std::abs(last) <= INT32_MAX)) {
      return Damaged("compact sequence leaves the range of integers");
    }
    out.type = integers ? Type::kInteger : Type::kReal;
    for (double i = 0; i < length; ++i) {
      const double x = state.reals[1] + state.reals[2] * i;
      if (integers) {
        out.integers.push_back(static_cast<int32_t>(x));
      } else {
        out.reals.push_back(x);
      }
    }
    return absl::OkStatus();
  }

  static void AddAttributes(const Value& pairlist, Value& to) {
    for (size_t i = 0; i < pairlist.tags.size(); ++i) to.attributes.emplace_back(pairlist.tags[i], pairlist.items[i]);
  }

  // Only after Length or Need has said that the bytes are there.
  const char* Take(size_t count) {
    const char* p = bytes_.data() + at_;
    at_ += count;
    return p;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  std::vector<ValuePtr> references_;
};

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": cannot be read"));
  return bytes;
}

// One entry of an .rdb file: a 4-byte length of the inflated bytes, then for `compressed` 2 and 3 a byte that names the
// method, then the compressed bytes (R's lazyload.c and connections.c).
absl::StatusOr<std::string> InflateEntry(std::string_view entry, int compressed) {
  const size_t head = compressed == 1 ? 4 : 5;
  if (entry.size() < head) return absl::DataLossError("entry shorter than its head");
  const size_t inflated = BigEndian32(entry.data());
  if (inflated > kMaxInflated) {
    return absl::DataLossError(absl::StrCat("inflated size ", inflated, " > limit ", kMaxInflated));
  }
  const std::string_view body = entry.substr(head);
  std::string bytes;
  if (compressed != 1 && entry[4] == '0') {
    bytes = std::string(body);
  } else if (compressed == 1 || entry[4] == '1') {
    DIN_ASSIGN_OR_RETURN(bytes, Inflate(body, inflated));
  } else {
    return absl::UnimplementedError(
        absl::StrCat("compression '", std::string(1, entry[4]), "' (bzip2 or xz); accepted: zlib"));
  }
  if (bytes.size() != inflated) {
    return absl::DataLossError(absl::StrCat("inflates to ", bytes.size(), " bytes, its head says ", inflated));
  }
  return bytes;
}

absl::Status Annotate(const absl::Status& status, std::string_view what) {
  return absl::Status(status.code(), absl::StrCat(std::string(what), ": ", status.message()));
}

}  // namespace

const Value* Value::Attribute(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return value.get();
  }
  return nullptr;
}

const Value* Value::Member(std::string_view name) const {
  if (type == Type::kPairlist) {
    const auto it = std::find(tags.begin(), tags.end(), name);
    return it == tags.end() ? nullptr : items[it - tags.begin()].get();
  }
  const Value* names = Attribute("names");
  if (names == nullptr) return nullptr;
  for (size_t i = 0; i < std::min(items.size(), names->strings.size()); ++i) {
    if (names->strings[i] == name) return items[i].get();
  }
  return nullptr;
}

size_t Value::size() const { return integers.size() + reals.size() + strings.size() + items.size(); }

absl::StatusOr<ValuePtr> Parse(std::string_view bytes) { return Parser(bytes).Document(); }

absl::StatusOr<std::string> Inflate(std::string_view bytes, size_t limit) {
  z_stream stream{};
  constexpr int kZlibOrGzip = 15 + 32;
  if (inflateInit2(&stream, kZlibOrGzip) != Z_OK) return absl::InternalError("zlib does not start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    // One byte more than the limit, so that reaching the end and passing it can be told apart.
    const size_t chunk = std::min<size_t>(size_t{1} << 20, limit + 1 - out.size());
    const size_t before = out.size();
    out.resize(before + chunk);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream.avail_out = static_cast<uInt>(chunk);
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(before + chunk - stream.avail_out);
    if (out.size() > limit) return absl::DataLossError(absl::StrCat("inflates to more than ", limit, " bytes"));
  }
  if (result == Z_BUF_ERROR) return absl::DataLossError(absl::StrCat("compressed bytes end after ", bytes.size()));
  if (result != Z_STREAM_END)
    return absl::DataLossError(absl::StrCat("compressed bytes are damaged at ", stream.total_in));
  return out;
}

absl::StatusOr<ValuePtr> ReadLazyLoad(const std::string& stem, std::string_view name) {
  const std::string index_path = stem + ".rdx";
  const std::string data_path = stem + ".rdb";
  DIN_ASSIGN_OR_RETURN(const std::string index_bytes, ReadWhole(index_path));
  const absl::StatusOr<std::string> index_inflated = Inflate(index_bytes, kMaxInflated);
  if (!index_inflated.ok()) return Annotate(index_inflated.status(), index_path);
  const absl::StatusOr<ValuePtr> index = Parse(*index_inflated);
  if (!index.ok()) return Annotate(index.status(), index_path);

  const Value* variables = (*index)->Member("variables");
  const Value* compressed = (*index)->Member("compressed");
  if (variables == nullptr || compressed == nullptr || compressed->size() != 1) {
    return absl::DataLossError(absl::StrCat(index_path, ": no members `variables` and `compressed`"));
  }
  const int method = compressed->integers.empty() ? 0 : compressed->integers[0];
  if (method < 1 || method > 3) return absl::UnimplementedError(absl::StrCat(index_path, ": compressed = ", method));
  const Value* place = variables->Member(name);
  if (place == nullptr) {
    std::vector<std::string> names;
    if (const Value* all = variables->Attribute("names")) {
      for (const auto& n : all->strings) names.push_back(n.value_or("NA"));
    }
    return absl::NotFoundError(
        absl::StrCat(index_path, ": no variable ", std::string(name), "; there are: ", absl::StrJoin(names, ", ")));
  }
  DIN_ASSIGN_OR_RETURN(const std::string data, ReadWhole(data_path));
  if (place->integers.size() != 2 || place->integers[0] < 0 || place->integers[1] < 0 ||
      static_cast<size_t>(place->integers[0]) + place->integers[1] > data.size()) {
    return absl::DataLossError(absl::StrCat(data_path, ": ", data.size(), " bytes, the index points past them"));
  }
  const std::string what = absl::StrCat(data_path, ": variable ", std::string(name));
  const absl::StatusOr<std::string> entry =
      InflateEntry(std::string_view(data).substr(place->integers[0], place->integers[1]), method);
  if (!entry.ok()) return Annotate(entry.status(), what);
  absl::StatusOr<ValuePtr> value = Parse(*entry);
  if (!value.ok()) return Annotate(value.status(), what);
  return value;
}

}  // namespace din::rdata
