// A function of a raw id that the snapshot carries: item -> category, tags, price, title.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/id_map.h"
#include "model/key_index.h"
#include "model/tensor_reader.h"
#include "proto/model_spec.pb.h"

namespace din {

// Keys and values stay where the tensors are, which must outlive the table; so must `spec`.
// Immutable after Create; any thread. Nothing but Create allocates.
class SideTable {
 public:
  static constexpr uint32_t kMissing = 0xFFFFFFFFu;

  // `spec` has passed ResolveSpec. INVALID_ARGUMENT: a tensor that is missing or misshapen, a key that is there twice
  // (both positions), offsets that do not ascend, a number that is not finite.
  static absl::StatusOr<SideTable> Create(const v1::SideTable& spec, TensorReader& tensors);

  const v1::SideTable& spec() const { return *spec_; }
  // `side table "name"`, for errors.
  std::string Describe() const;

  // The entry of a key, below rows, or kMissing.
  uint32_t Find(int64_t key) const;           // key_type INT64
  uint32_t Find(std::string_view key) const;  // key_type STRING
  std::string SpellKey(uint32_t entry) const;

  // Values of kind ID and ID_LIST, of the table's value_type; the other list is empty.
  const IntegerList& ids() const { return ids_; }
  const StringList& strings() const { return strings_; }
  // The values of an entry: [begin, end) of ids(), [entry, entry + 1) for kind ID.
  struct Range {
    size_t begin;
    size_t end;
  };
  Range Values(uint32_t entry) const {
    if (spec_->kind() == v1::ID_LIST) {
      return {static_cast<size_t>(offsets_[entry]), static_cast<size_t>(offsets_[entry + 1])};
    }
    return {entry, entry + size_t{1}};
  }
  // Kind DENSE.
  std::span<const float> Dense(uint32_t entry) const {
    return {dense_ + entry * size_t{spec_->width()}, spec_->width()};
  }

 private:
  absl::Status ReadKeys(TensorReader& tensors);
  absl::Status ReadValues(TensorReader& tensors);
  absl::Status ReadDense(const std::string& name, TensorReader& tensors);

  const v1::SideTable* spec_ = nullptr;
  bool dense_keys_ = false;  // the keys are 0 .. rows - 1
  KeyIndex<IntegerList> int_keys_;
  KeyIndex<StringList> string_keys_;
  IntegerList key_ids_;
  StringList key_strings_;
  IntegerList ids_;
  StringList strings_;
  IntegerList offsets_;
  const float* dense_ = nullptr;
};

// The values of an ID or ID_LIST table as rows of a feature's id map, computed once, so that a request pays for the key
// alone. Parallel to ids() or strings(). Immutable after Create; any thread.
class SideRows {
 public:
  // INVALID_ARGUMENT names table, key and value when the map refuses a value.
  static absl::StatusOr<SideRows> Create(const SideTable& table, const IdMap& map, const PaddingId& padding);

  uint32_t row(size_t value) const { return rows_[value]; }
  bool out_of_vocabulary(size_t value) const { return (Flags(value) & kOutOfVocabulary) != 0; }
  bool is_padding(size_t value) const { return (Flags(value) & kPadding) != 0; }

 private:
  static constexpr uint8_t kOutOfVocabulary = 1;
  static constexpr uint8_t kPadding = 2;
  uint8_t Flags(size_t value) const { return flags_.empty() ? 0 : flags_[value]; }
  template <typename Values>
  absl::Status Map(const SideTable& table, const IdMap& map, const PaddingId& padding, const Values& values);

  std::vector<uint32_t> rows_;
  std::vector<uint8_t> flags_;  // empty when no value has one
};

}  // namespace din
