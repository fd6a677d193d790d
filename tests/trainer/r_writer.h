// Writes R's serialization, XDR version 3, as the readers' tests need it.
#pragma once

#include <zlib.h>

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace din {

inline std::string BigEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

inline std::string RWord(uint32_t word) { return BigEndian(word, 4); }
inline std::string RHead() { return "X\n" + RWord(3) + RWord(0x040001) + RWord(0x030500) + RWord(5) + "UTF-8"; }

constexpr uint32_t kRAttributes = 0x200;
constexpr uint32_t kRTag = 0x400;
constexpr uint32_t kRUtf8 = 1u << 15;

inline std::string RNull() { return RWord(254); }
inline std::string RChars(std::string_view s, uint32_t encoding = kRUtf8) {
  return RWord(9 | encoding) + RWord(static_cast<uint32_t>(s.size())) + std::string(s);
}
inline std::string RSymbol(std::string_view name) { return RWord(1) + RChars(name); }
inline std::string RInts(const std::vector<int32_t>& values, uint32_t flags = 0) {
  std::string out = RWord(13 | flags) + RWord(static_cast<uint32_t>(values.size()));
  for (int32_t v : values) out += RWord(static_cast<uint32_t>(v));
  return out;
}
inline std::string RReals(const std::vector<double>& values) {
  std::string out = RWord(14) + RWord(static_cast<uint32_t>(values.size()));
  for (double v : values) out += BigEndian(std::bit_cast<uint64_t>(v), 8);
  return out;
}
inline std::string RStrings(const std::vector<std::string>& values) {
  std::string out = RWord(16) + RWord(static_cast<uint32_t>(values.size()));
  for (const std::string& v : values) out += RChars(v);
  return out;
}
using RMembers = std::vector<std::pair<std::string, std::string>>;  // tag, bytes of the value
inline std::string RPairlist(const RMembers& members) {
  std::string out;
  for (const auto& [tag, value] : members) out += RWord(2 | kRTag) + RSymbol(tag) + value;
  return out + RNull();
}
inline std::string RNamedList(const RMembers& members) {
  std::vector<std::string> names;
  std::string out = RWord(19 | kRAttributes) + RWord(static_cast<uint32_t>(members.size()));
  for (const auto& [name, value] : members) {
    names.push_back(name);
    out += value;
  }
  return out + RPairlist({{"names", RStrings(names)}});
}
inline std::string RFactor(const std::vector<int32_t>& codes, const std::vector<std::string>& levels) {
  return RInts(codes, kRAttributes) + RPairlist({{"levels", RStrings(levels)}, {"class", RStrings({"factor"})}});
}

inline std::string ZlibOf(const std::string& bytes) {
  uLongf size = compressBound(bytes.size());
  std::string out(size, '\0');
  compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  out.resize(size);
  return out;
}

// The two files of a lazy-load database with one variable.
struct RLazyLoad {
  std::string index;  // .rdx
  std::string data;   // .rdb
};
inline RLazyLoad MakeLazyLoad(const std::string& name, const std::string& value) {
  const std::string bytes = RHead() + value;
  RLazyLoad db;
  db.data = "other" + RWord(static_cast<uint32_t>(bytes.size())) + ZlibOf(bytes);
  const auto length = static_cast<int32_t>(db.data.size() - 5);
  db.index = ZlibOf(RHead() + RNamedList({{"variables", RNamedList({{name, RInts({5, length})}})},
                                          {"references", RNamedList({})},
                                          {"compressed", RInts({1})}}));
  return db;
}

}  // namespace din
