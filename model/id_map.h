// Raw id -> embedding row.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/gather.h"
#include "model/tensor_reader.h"
#include "proto/model_spec.pb.h"

namespace din {

// Immutable after Create; any thread. Does not allocate in Row().
class IdMap {
 public:
  // `spec` has passed ResolveSpec. A vocabulary is read where its tensors are, which must outlive the map; a key that
  // is there twice is INVALID_ARGUMENT with both positions.
  static absl::StatusOr<IdMap> Create(const v1::IdMap& spec, TensorReader& tensors);
  IdMap(IdMap&&) noexcept;
  IdMap& operator=(IdMap&&) noexcept;
  ~IdMap();

  // Every row that Row() gives is below rows() or kZeroRow.
  int64_t rows() const;
  v1::IdType id_type() const;

  struct Result {
    enum Kind : uint8_t { kKnown, kOutOfVocabulary, kRefused } kind;
    uint32_t row;  // kOutOfVocabulary: the row that stands for it, or kZeroRow; kRefused: kZeroRow
  };
  Result Row(int64_t id) const;           // id_type INT64
  Result Row(std::string_view id) const;  // id_type STRING

 private:
  struct Impl;
  explicit IdMap(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// The id of a feature that stands for padding, if it has one. Borrows the key from the spec.
class PaddingId {
 public:
  PaddingId() = default;
  explicit PaddingId(const v1::Feature::Padding& padding)
      : kind_(padding.kind_case()), id_(padding.id()), key_(padding.key()) {}

  bool exists() const { return kind_ == v1::Feature::Padding::kId || kind_ == v1::Feature::Padding::kKey; }
  bool Is(int64_t id) const { return kind_ == v1::Feature::Padding::kId && id == id_; }
  bool Is(std::string_view id) const { return kind_ == v1::Feature::Padding::kKey && id == key_; }
  bool operator==(const PaddingId&) const = default;

 private:
  v1::Feature::Padding::KindCase kind_ = v1::Feature::Padding::KIND_NOT_SET;
  int64_t id_ = 0;
  std::string_view key_;
};

// The named hashes, for vocabularies of tools and tests (published vectors in tests/model/id_map_test.cc).
uint64_t Farmhash64(std::string_view bytes);
uint64_t Xxh64(std::string_view bytes, uint64_t seed);

}  // namespace din
