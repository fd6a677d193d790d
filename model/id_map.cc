#include "model/id_map.h"

#include <farmhash.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/key_index.h"
#include "model/status_macros.h"

namespace din {
namespace {

// Rows are uint32_t, and the largest one stands for the vector of zeros.
constexpr int64_t kMaxRows = kZeroRow;

// The decimal digits of an id: what the hashes of INT64 ids are defined on.
class Decimal {
 public:
  explicit Decimal(int64_t id) : end_(std::to_chars(digits_, digits_ + sizeof(digits_), id).ptr) {}
  std::string_view text() const { return {digits_, static_cast<size_t>(end_ - digits_)}; }

 private:
  char digits_[20];  // "-9223372036854775808"
  const char* end_;
};

}  // namespace

// Fingerprint64, unlike Hash64, is one fixed function on every CPU: Debian's library implements it in plain C++ without
// dispatch, and tests/model/id_map_test.cc holds it to published values.
uint64_t Farmhash64(std::string_view bytes) { return util::Fingerprint64(bytes.data(), bytes.size()); }

uint64_t Xxh64(std::string_view bytes, uint64_t seed) { return XXH64(bytes.data(), bytes.size(), seed); }

struct IdMap::Impl {
  enum class Kind { kIdentity, kModulo, kFarmhash, kFarmhashSkipZero, kXxh64, kVocabulary };

  Result Known(uint64_t row) const { return {Result::kKnown, static_cast<uint32_t>(row)}; }

  Result Hashed(std::string_view bytes) const {
    switch (kind) {
      case Kind::kFarmhash:
        return Known(Farmhash64(bytes) % size);
      case Kind::kFarmhashSkipZero:
        return Known(bytes == "0" ? 0 : Farmhash64(bytes) % (size - 1) + 1);
      default:
        return Known(Xxh64(bytes, seed) % size);
    }
  }

  template <typename Keys, typename Key>
  Result Find(const KeyIndex<Keys>& keys, Key key) const {
    const uint32_t position = keys.Find(key);
    return position == KeyIndex<Keys>::kNotFound ? unknown : Known(static_cast<uint64_t>(first) + position);
  }

  Kind kind = Kind::kIdentity;
  v1::IdType id_type = v1::INT64;
  int64_t first = 0;  // kIdentity: the id of row 0; kVocabulary: the row of key 0
  uint64_t size = 0;  // all but kVocabulary
  uint64_t seed = 0;  // kXxh64
  Result unknown = {Result::kRefused, kZeroRow};
  int64_t rows = 0;
  KeyIndex<IntegerList> ids;  // kVocabulary of INT64
  KeyIndex<StringList> keys;  // kVocabulary of STRING

  absl::Status ReadKind(const v1::IdMap& spec, TensorReader& tensors);
  absl::Status ReadVocabulary(const v1::IdMap& spec, TensorReader& tensors);
  void ReadOutOfVocabulary(const v1::IdMap& spec);
};

absl::Status IdMap::Impl::ReadKind(const v1::IdMap& spec, TensorReader& tensors) {
  using H = v1::IdMap::Hash;
  switch (spec.kind_case()) {
    case v1::IdMap::kIdentity:
      kind = Kind::kIdentity;
      first = spec.identity().first();
      size = static_cast<uint64_t>(spec.identity().size());
      break;
    case v1::IdMap::kModulo:
      kind = Kind::kModulo;
      size = static_cast<uint64_t>(spec.modulo().size());
      break;
    case v1::IdMap::kHash:
      kind = spec.hash().function() == H::FARMHASH64_DECIMAL             ? Kind::kFarmhash
             : spec.hash().function() == H::FARMHASH64_DECIMAL_SKIP_ZERO ? Kind::kFarmhashSkipZero
                                                                         : Kind::kXxh64;
      size = static_cast<uint64_t>(spec.hash().size());
      seed = spec.hash().seed();
      break;
    case v1::IdMap::kVocabulary:
      return ReadVocabulary(spec, tensors);
    case v1::IdMap::KIND_NOT_SET:
      return absl::InvalidArgumentError(absl::StrCat("id map \"", spec.name(), "\": no kind"));
  }
  rows = static_cast<int64_t>(size);
  return absl::OkStatus();
}

absl::Status IdMap::Impl::ReadVocabulary(const v1::IdMap& spec, TensorReader& tensors) {
  kind = Kind::kVocabulary;
  first = spec.vocabulary().first_row();
  const std::string what = absl::StrCat("id map \"", spec.name(), "\"");
  const std::string tensor = absl::StrCat("vocab.", spec.name(), ".keys");
  size_t count = 0;
  if (id_type == v1::STRING) {
    DIN_ASSIGN_OR_RETURN(const StringList list, tensors.StringsInPlace(tensor, -1));
    DIN_ASSIGN_OR_RETURN(keys, KeyIndex<StringList>::Create(list, what));
    count = list.size();
  } else {
    DIN_ASSIGN_OR_RETURN(const IntegerList list, tensors.IntegersInPlace(tensor, -1));
    DIN_ASSIGN_OR_RETURN(ids, KeyIndex<IntegerList>::Create(list, what));
    count = list.size();
  }
  rows = first + static_cast<int64_t>(count);
  if (rows > kMaxRows) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": first_row ", first, " + ", count, " keys > limit ", kMaxRows));
  }
  return absl::OkStatus();
}

void IdMap::Impl::ReadOutOfVocabulary(const v1::IdMap& spec) {
  switch (spec.out_of_vocabulary()) {
    case v1::IdMap::ROW:
      unknown = {Result::kOutOfVocabulary, static_cast<uint32_t>(spec.out_of_vocabulary_row())};
      rows = std::max(rows, spec.out_of_vocabulary_row() + 1);
      break;
    case v1::IdMap::ZERO:
      unknown = {Result::kOutOfVocabulary, kZeroRow};
      break;
    default:
      unknown = {Result::kRefused, kZeroRow};
  }
}

absl::StatusOr<IdMap> IdMap::Create(const v1::IdMap& spec, TensorReader& tensors) {
  auto impl = std::make_unique<Impl>();
  impl->id_type = spec.id_type();
  DIN_RETURN_IF_ERROR(impl->ReadKind(spec, tensors));
  impl->ReadOutOfVocabulary(spec);
  return IdMap(std::move(impl));
}

IdMap::IdMap(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
IdMap::IdMap(IdMap&&) noexcept = default;
IdMap& IdMap::operator=(IdMap&&) noexcept = default;
IdMap::~IdMap() = default;

int64_t IdMap::rows() const { return impl_->rows; }
v1::IdType IdMap::id_type() const { return impl_->id_type; }

IdMap::Result IdMap::Row(int64_t id) const {
  const Impl& map = *impl_;
  switch (map.kind) {
    case Impl::Kind::kIdentity: {
      // Unsigned, so that an id far below `first` wraps to something large instead of overflowing.
      const uint64_t row = static_cast<uint64_t>(id) - static_cast<uint64_t>(map.first);
      return row < map.size ? map.Known(row) : map.unknown;
    }
    case Impl::Kind::kModulo: {
      const int64_t remainder = id % static_cast<int64_t>(map.size);
      return map.Known(static_cast<uint64_t>(remainder < 0 ? remainder + static_cast<int64_t>(map.size) : remainder));
    }
    case Impl::Kind::kVocabulary:
      return map.Find(map.ids, id);
    default:
      return map.Hashed(Decimal(id).text());
  }
}

IdMap::Result IdMap::Row(std::string_view id) const {
  return impl_->kind == Impl::Kind::kVocabulary ? impl_->Find(impl_->keys, id) : impl_->Hashed(id);
}

}  // namespace din
