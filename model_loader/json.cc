#include "model_loader/json.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"
#include "nlohmann/json.hpp"

namespace din {
namespace {

constexpr size_t kMaxObjects = 65'536;

// Reads characters and lets the handler see how far the lexer has come: the SAX events carry no offset.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}

  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

enum class Keys {
  kAsWritten,
  kProtobuf,  // "id_maps" and "idMaps" are one key
};

// The lowerCamelCase name that proto3 JSON knows a field by, besides its own.
std::string JsonName(const std::string& key) {
  std::string name;
  bool upper = false;
  for (char c : key) {
    if (c == '_') {
      upper = true;
      continue;
    }
    name += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    upper = false;
  }
  return name;
}

class Checker final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Checker(std::string_view text, int max_depth, Keys keys)
      : begin_(text.data()), reached_(text.data()), max_depth_(max_depth), keys_(keys) {}

  absl::Status Check(std::string_view text) {
    const CountingIterator first(text.data(), &reached_);
    const CountingIterator last(text.data() + text.size(), &reached_);
    if (!nlohmann::json::sax_parse(first, last, this) && status_.ok()) Fail("not JSON");
    return status_;
  }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(size_t) override {
    if (++objects_ > kMaxObjects) return Fail(absl::StrCat("objects: more than ", kMaxObjects));
    return Enter();
  }
  bool end_object() override { return Leave(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& key) override {
    if (seen_[depth_ - 1].insert(keys_ == Keys::kProtobuf ? JsonName(key) : key).second) return true;
    return Fail(absl::StrCat("key ", Quote(key), " twice in one object"));
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: reason": the offset says where.
    std::string reason = error.what();
    if (const size_t colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
    constexpr size_t kLongest = 160;
    return FailAt(position == 0 ? 0 : position - 1, absl::CHexEscape(reason.substr(0, kLongest)));
  }

 private:
  bool Enter() {
    if (++depth_ > static_cast<size_t>(std::max(max_depth_, 0))) {
      return Fail(absl::StrCat("depth: more than ", max_depth_, " levels"));
    }
    if (seen_.size() < depth_) seen_.emplace_back();
    seen_[depth_ - 1].clear();
    return true;
  }
  bool Leave() {
    --depth_;
    return true;
  }

  bool Fail(const std::string& reason) { return FailAt(static_cast<size_t>(reached_ - begin_), reason); }
  bool FailAt(size_t offset, const std::string& reason) {
    status_ = absl::InvalidArgumentError(absl::StrCat("byte ", offset, ": ", reason));
    return false;
  }

  const char* const begin_;
  const char* reached_;
  const int max_depth_;
  const Keys keys_;
  size_t depth_ = 0;
  size_t objects_ = 0;
  std::vector<absl::flat_hash_set<std::string>> seen_;  // keys of the open objects, by level
  absl::Status status_;
};

absl::Status CheckJson(std::string_view text, int max_depth, Keys keys) {
  // Two things that the lexer lets pass: a NUL ends its input, and a byte order mark is skipped.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", nul, ": NUL"));
  }
  if (!text.empty() && text.front() == '\xEF') return absl::InvalidArgumentError("byte 0: a byte order mark");
  return Checker(text, max_depth, keys).Check(text);
}

std::string Format(const google::protobuf::Message& message, const google::protobuf::util::JsonPrintOptions& options) {
  std::string text;
  // Fails for Any and its kind only, which no message of ours contains.
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return text;
}

google::protobuf::util::JsonPrintOptions ProtoNames() {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  return options;
}

}  // namespace

absl::Status CheckJson(std::string_view text, int max_depth) { return CheckJson(text, max_depth, Keys::kAsWritten); }

absl::Status ParseJson(std::string_view text, std::string_view what, google::protobuf::Message& message) {
  constexpr int kMaxDepth = 32;
  if (const absl::Status status = CheckJson(text, kMaxDepth, Keys::kProtobuf); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), ": ", status.message()));
  }
  const auto status = google::protobuf::util::JsonStringToMessage({text.data(), text.size()}, &message);
  if (status.ok()) return absl::OkStatus();
  const std::string reason(status.message().data(), status.message().size());
  constexpr size_t kLongest = 300;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), ": ", absl::CHexEscape(reason.substr(0, kLongest))));
}

std::string FormatJson(const google::protobuf::Message& message) { return Format(message, ProtoNames()); }

std::string FormatJsonPretty(const google::protobuf::Message& message) {
  auto options = ProtoNames();
  options.add_whitespace = true;
  return Format(message, options);
}

}  // namespace din
