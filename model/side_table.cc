#include "model/side_table.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace din {

absl::StatusOr<SideTable> SideTable::Create(const v1::SideTable& spec, TensorReader& tensors) {
  SideTable table;
  table.spec_ = &spec;
  DIN_RETURN_IF_ERROR(table.ReadKeys(tensors));
  DIN_RETURN_IF_ERROR(table.ReadValues(tensors));
  return table;
}

absl::Status SideTable::ReadKeys(TensorReader& tensors) {
  const std::string name = absl::StrCat("side.", spec_->name(), ".keys");
  if (spec_->key_type() == v1::STRING) {
    DIN_ASSIGN_OR_RETURN(key_strings_, tensors.StringsInPlace(name, spec_->rows()));
    DIN_ASSIGN_OR_RETURN(string_keys_, KeyIndex<StringList>::Create(key_strings_, Describe()));
    return absl::OkStatus();
  }
  dense_keys_ = !tensors.Has(name);
  if (dense_keys_) return absl::OkStatus();
  DIN_ASSIGN_OR_RETURN(key_ids_, tensors.IntegersInPlace(name, spec_->rows()));
  DIN_ASSIGN_OR_RETURN(int_keys_, KeyIndex<IntegerList>::Create(key_ids_, Describe()));
  return absl::OkStatus();
}

absl::Status SideTable::ReadValues(TensorReader& tensors) {
  const std::string name = absl::StrCat("side.", spec_->name(), ".values");
  if (spec_->kind() == v1::DENSE) return ReadDense(name, tensors);
  if (spec_->kind() == v1::ID && spec_->value_type() == v1::STRING) {
    DIN_ASSIGN_OR_RETURN(strings_, tensors.StringsInPlace(name, spec_->rows()));
    return absl::OkStatus();
  }
  DIN_ASSIGN_OR_RETURN(ids_, tensors.IntegersInPlace(name, spec_->kind() == v1::ID ? spec_->rows() : -1));
  if (spec_->kind() == v1::ID_LIST) {
    DIN_ASSIGN_OR_RETURN(offsets_, tensors.Offsets(absl::StrCat("side.", spec_->name(), ".offsets"), spec_->rows(),
                                                   static_cast<int64_t>(ids_.size())));
  }
  return absl::OkStatus();
}

absl::Status SideTable::ReadDense(const std::string& name, TensorReader& tensors) {
  DIN_ASSIGN_OR_RETURN(const Tensor* tensor, tensors.Raw(name, {DataType::kF32}));
  const int64_t width = spec_->width();
  if (tensor->shape != std::vector<int64_t>{spec_->rows(), width}) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", din::Describe(*tensor), ", expected F32 [",
                                                   spec_->rows(), ", ", width, "]"));
  }
  dense_ = reinterpret_cast<const float*>(tensor->data);
  for (int64_t i = 0; i < spec_->rows() * width; ++i) {
    if (!std::isfinite(dense_[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, ": ", dense_[i], " at [", i / width, ", ", i % width, "], expected finite"));
    }
  }
  return absl::OkStatus();
}

std::string SideTable::Describe() const { return absl::StrCat("side table \"", spec_->name(), "\""); }

uint32_t SideTable::Find(int64_t key) const {
  if (!dense_keys_) return int_keys_.Find(key);
  return key >= 0 && key < spec_->rows() ? static_cast<uint32_t>(key) : kMissing;
}

uint32_t SideTable::Find(std::string_view key) const { return string_keys_.Find(key); }

std::string SideTable::SpellKey(uint32_t entry) const {
  if (dense_keys_) return SpellId(int64_t{entry});
  return spec_->key_type() == v1::STRING ? SpellId(key_strings_[entry]) : SpellId(key_ids_[entry]);
}

absl::StatusOr<SideRows> SideRows::Create(const SideTable& table, const IdMap& map, const PaddingId& padding) {
  SideRows out;
  DIN_RETURN_IF_ERROR(map.id_type() == v1::STRING ? out.Map(table, map, padding, table.strings())
                                                  : out.Map(table, map, padding, table.ids()));
  return out;
}

template <typename Values>
absl::Status SideRows::Map(const SideTable& table, const IdMap& map, const PaddingId& padding, const Values& values) {
  rows_.resize(values.size());
  for (uint32_t entry = 0; entry < table.spec().rows(); ++entry) {
    const SideTable::Range range = table.Values(entry);
    for (size_t v = range.begin; v < range.end; ++v) {
      const IdMap::Result result = map.Row(values[v]);
      if (result.kind == IdMap::Result::kRefused) {
        return absl::InvalidArgumentError(absl::StrCat(table.Describe(), ": key ", table.SpellKey(entry), ": value ",
                                                       SpellId(values[v]), " is out of vocabulary"));
      }
      rows_[v] = result.row;
      const uint8_t flags = (result.kind == IdMap::Result::kOutOfVocabulary ? kOutOfVocabulary : 0) |
                            (padding.Is(values[v]) ? kPadding : 0);
      if (flags != 0 && flags_.empty()) flags_.resize(values.size());
      if (flags != 0) flags_[v] = flags;
    }
  }
  return absl::OkStatus();
}

}  // namespace din
