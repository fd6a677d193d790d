#include "model/input.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/id_map.h"
#include "model/input_columns.h"
#include "model/input_plan.h"
#include "model/key_index.h"
#include "model/side_table.h"
#include "model/status_macros.h"

namespace din {
namespace {

// Which positions of a request's columns to decode, in order.
class Positions {
 public:
  // 0 .. size - 1.
  explicit Positions(size_t size) : size_(size) {}
  // May hold kPaddingPosition.
  explicit Positions(const std::vector<uint32_t>& chosen) : chosen_(chosen.data()), size_(chosen.size()) {}

  size_t size() const { return size_; }
  uint32_t operator[](size_t i) const { return chosen_ != nullptr ? chosen_[i] : static_cast<uint32_t>(i); }

 private:
  const uint32_t* chosen_ = nullptr;
  size_t size_;
};

// The ids of a column, whichever type they have.
struct Int64Ids {
  explicit Int64Ids(const v1::Column& column) : ids(column.ids().data()) {}
  int64_t operator[](size_t i) const { return ids[i]; }
  const int64_t* ids;
};
struct StringIds {
  explicit StringIds(const v1::Column& column) : keys(column.keys()) {}
  std::string_view operator[](size_t i) const { return keys[static_cast<int>(i)]; }
  const google::protobuf::RepeatedPtrField<std::string>& keys;
};

template <typename Function>
auto WithIds(v1::IdType type, const v1::Column& column, const Function& function) {
  return type == v1::STRING ? function(StringIds(column)) : function(Int64Ids(column));
}

uint32_t FindAt(const SideTable& table, const v1::Column& key, size_t i) {
  return WithIds(table.spec().key_type(), key, [&](const auto& ids) { return table.Find(ids[i]); });
}

using Range = SideTable::Range;

// The side of a list that its feature keeps.
Range Cut(const FeaturePlan& feature, Range range) {
  const size_t size = range.end - range.begin;
  if (feature.max_length == 0 || size <= feature.max_length) return range;
  return feature.keep_last ? Range{range.end - feature.max_length, range.end}
                           : Range{range.begin, range.begin + feature.max_length};
}

// One request on its way into a ScoringInput; MatchColumns has judged its columns.
class Decoding {
 public:
  Decoding(const InputPlan& plan, const InputLimits& limits, ScoringInput& out)
      : plan_(plan), limits_(limits), out_(out) {}

  absl::Status Run() {
    out_.out_of_vocabulary.assign(out_.candidates, 0);
    out_.columns.resize(plan_.features.size());
    for (size_t s = 0; s < plan_.sequences.size(); ++s) ChoosePositions(plan_.sequences[s], out_.sequences[s]);
    for (size_t f = 0; f < plan_.features.size(); ++f) {
      DIN_RETURN_IF_ERROR(Feature(plan_.features[f], out_.sent[f], out_.columns[f]));
    }
    return absl::OkStatus();
  }

 private:
  // --- Truncate, pad, mask ------------------------------------------------------------------------------------------

  void ChoosePositions(const SequencePlan& plan, ScoringInput::Sequence& sequence) const {
    const size_t kept = std::min(sequence.sent, plan.max_length);
    const auto first = static_cast<uint32_t>(plan.keep_last ? sequence.sent - kept : 0);
    const auto last = static_cast<uint32_t>(first + kept);
    std::vector<uint32_t>& positions = sequence.positions;
    positions.clear();
    const bool by_length = plan.length_of != kNone;
    const size_t valid = by_length ? std::min(ListLength(plan.length_of), plan.padded_length) : kept;
    for (uint32_t p = first; p < last && positions.size() < valid; ++p) {
      if (!plan.drop_invalid || IsValid(plan, p)) positions.push_back(p);
    }
    if (by_length || !plan.drop_invalid) Pad(positions, by_length ? valid : plan.padded_length);
    sequence.empty = positions.empty();
    if (!sequence.empty || !plan.has_positions_mean) return;
    for (uint32_t p = first; p < last; ++p) positions.push_back(p);
    Pad(positions, std::max<size_t>(plan.padded_length, 1));
  }

  static void Pad(std::vector<uint32_t>& positions, size_t length) {
    if (positions.size() < length) positions.resize(length, ScoringInput::kPaddingPosition);
  }

  // Of an ID_LIST of scope USER, once cut.
  size_t ListLength(int index) const {
    const FeaturePlan& feature = plan_.features[index];
    Range list = {0, 0};
    if (out_.sent[index] != nullptr) {
      list = SentList(feature, *out_.sent[index], 0);
    } else {
      const uint32_t entry = FindAt(*feature.side, *out_.sent[feature.side_key], 0);
      if (entry != SideTable::kMissing) list = feature.side->Values(entry);
    }
    list = Cut(feature, list);
    return list.end - list.begin;
  }

  bool IsValid(const SequencePlan& plan, uint32_t position) const {
    return std::none_of(plan.validity.begin(), plan.validity.end(),
                        [&](int f) { return HoldsPadding(plan_.features[f], out_.sent[f], position); });
  }

  bool HoldsPadding(const FeaturePlan& feature, const v1::Column* column, uint32_t position) const {
    if (column != nullptr) {
      return WithIds(feature.id_type, *column, [&](const auto& ids) { return feature.padding.Is(ids[position]); });
    }
    const uint32_t entry = FindAt(*feature.side, *out_.sent[feature.side_key], position);
    return entry != SideTable::kMissing && feature.side_rows->is_padding(entry);
  }

  // --- One feature --------------------------------------------------------------------------------------------------

  absl::Status Feature(const FeaturePlan& feature, const v1::Column* sent, ScoringInput::Column& out) {
    out.rows.clear();
    out.offsets.clear();
    out.values.clear();
    out.is_padding.clear();
    const Positions positions = PositionsOf(feature);
    if (sent == nullptr && feature.side != nullptr) {
      // Where the key is not sent either, the sequence is empty and holds at most padding.
      const v1::Column* key = out_.sent[feature.side_key];
      return WithIds(feature.side->spec().key_type(), key != nullptr ? *key : v1::Column::default_instance(),
                     [&](const auto& keys) { return FromSide(feature, keys, positions, out); });
    }
    const v1::Column& column = sent != nullptr ? *sent : v1::Column::default_instance();
    if (feature.kind == v1::DENSE) {
      FromNumbers(feature, column, positions, out);
      return absl::OkStatus();
    }
    return WithIds(feature.id_type, column, [&](const auto& ids) {
      return feature.kind == v1::ID ? FromIds(feature, ids, positions, out)
                                    : FromLists(feature, ids, column, positions, out);
    });
  }

  Positions PositionsOf(const FeaturePlan& feature) const {
    switch (feature.scope) {
      case v1::USER:
        return Positions(1);
      case v1::CANDIDATE:
        return Positions(out_.candidates);
      default:
        return Positions(out_.sequences[feature.sequence].positions);
    }
  }

  void MarkOutOfVocabulary(const FeaturePlan& feature, size_t i) {
    if (feature.scope == v1::CANDIDATE) out_.out_of_vocabulary[i] = 1;
  }

  template <typename Id>
  absl::Status Refuse(const FeaturePlan& feature, size_t index, Id id) const {
    return absl::InvalidArgumentError(
        absl::StrCat(feature.path, "[", index, "]: id ", SpellId(id), " is out of vocabulary"));
  }

  // --- Values that the request sends --------------------------------------------------------------------------------

  template <typename Ids>
  absl::Status FromIds(const FeaturePlan& feature, const Ids& ids, Positions positions, ScoringInput::Column& out) {
    out.rows.resize(positions.size());
    for (size_t i = 0; i < positions.size(); ++i) {
      const uint32_t p = positions[i];
      if (p == ScoringInput::kPaddingPosition) {
        out.rows[i] = feature.padding_row;
        continue;
      }
      const IdMap::Result result = feature.id_map->Row(ids[p]);
      out.rows[i] = result.row;
      if (result.kind == IdMap::Result::kKnown) continue;
      if (result.kind == IdMap::Result::kRefused) return Refuse(feature, p, ids[p]);
      MarkOutOfVocabulary(feature, i);
    }
    return absl::OkStatus();
  }

  template <typename Ids>
  absl::Status FromLists(const FeaturePlan& feature, const Ids& ids, const v1::Column& column, Positions positions,
                         ScoringInput::Column& out) {
    out.offsets.push_back(0);
    for (size_t i = 0; i < positions.size(); ++i) {
      const uint32_t p = positions[i];
      if (p == ScoringInput::kPaddingPosition) {
        DIN_RETURN_IF_ERROR(AppendEntry(feature, feature.padding_entry, i, out));
        continue;
      }
      const Range list = Cut(feature, SentList(feature, column, p));
      for (size_t v = list.begin; v < list.end; ++v) {
        const IdMap::Result result = feature.id_map->Row(ids[v]);
        if (result.kind == IdMap::Result::kRefused) return Refuse(feature, v, ids[v]);
        if (result.kind == IdMap::Result::kOutOfVocabulary) MarkOutOfVocabulary(feature, i);
        out.rows.push_back(result.row);
        out.is_padding.push_back(feature.padding.Is(ids[v]));
      }
      out.offsets.push_back(static_cast<uint32_t>(out.rows.size()));
    }
    return absl::OkStatus();
  }

  static Range SentList(const FeaturePlan& feature, const v1::Column& column, uint32_t position) {
    if (feature.scope == v1::USER) return {0, static_cast<size_t>(column.ids_size() + column.keys_size())};
    const int p = static_cast<int>(position);
    return {column.offsets(p), column.offsets(p + 1)};
  }

  void FromNumbers(const FeaturePlan& feature, const v1::Column& column, Positions positions,
                   ScoringInput::Column& out) const {
    out.values.resize(positions.size() * feature.width);
    for (size_t i = 0; i < positions.size(); ++i) {
      float* to = out.values.data() + i * feature.width;
      if (positions[i] == ScoringInput::kPaddingPosition) {
        CopyEntry(feature, feature.padding_entry, to);
      } else {
        std::copy_n(column.values().data() + positions[i] * feature.width, feature.width, to);
      }
    }
  }

  // --- Values of a side table ---------------------------------------------------------------------------------------

  template <typename Ids>
  absl::Status FromSide(const FeaturePlan& feature, const Ids& keys, Positions positions, ScoringInput::Column& out) {
    switch (feature.kind) {
      case v1::ID:
        out.rows.resize(positions.size());
        return ForEachEntry(feature, keys, positions, [&](size_t i, uint32_t entry, bool padding) {
          out.rows[i] = padding ? feature.padding_row : RowOf(feature, entry, i);
          return absl::OkStatus();
        });
      case v1::ID_LIST:
        out.offsets.push_back(0);
        return ForEachEntry(feature, keys, positions,
                            [&](size_t i, uint32_t entry, bool) { return AppendEntry(feature, entry, i, out); });
      default:
        out.values.resize(positions.size() * feature.width);
        return ForEachEntry(feature, keys, positions, [&](size_t i, uint32_t entry, bool) {
          CopyEntry(feature, entry, out.values.data() + i * feature.width);
          return absl::OkStatus();
        });
    }
  }

  // take(i, entry or kMissing, whether position i is padding) for each position.
  template <typename Ids, typename Take>
  absl::Status ForEachEntry(const FeaturePlan& feature, const Ids& keys, Positions positions, const Take& take) {
    for (size_t i = 0; i < positions.size(); ++i) {
      const uint32_t p = positions[i];
      const bool padding = p == ScoringInput::kPaddingPosition;
      const uint32_t entry = padding ? feature.padding_entry : feature.side->Find(keys[p]);
      if (entry == SideTable::kMissing && !padding) {
        if (feature.missing_key_is_error) return MissingKey(feature, p, keys[p]);
        MarkOutOfVocabulary(feature, i);
      }
      DIN_RETURN_IF_ERROR(take(i, entry, padding));
    }
    return absl::OkStatus();
  }

  template <typename Id>
  absl::Status MissingKey(const FeaturePlan& feature, uint32_t position, Id key) const {
    return absl::InvalidArgumentError(absl::StrCat(plan_.features[feature.side_key].path, "[", position, "]: id ",
                                                   SpellId(key), " is not in ", feature.side->Describe(), ", which ",
                                                   feature.name, " needs"));
  }

  uint32_t RowOf(const FeaturePlan& feature, uint32_t entry, size_t i) {
    if (entry == SideTable::kMissing) return kZeroRow;
    if (feature.side_rows->out_of_vocabulary(entry)) MarkOutOfVocabulary(feature, i);
    return feature.side_rows->row(entry);
  }

  // The list of an entry, or an empty one for kMissing; `i` is the row that gets it.
  absl::Status AppendEntry(const FeaturePlan& feature, uint32_t entry, size_t i, ScoringInput::Column& out) {
    if (entry != SideTable::kMissing) {
      const Range list = Cut(feature, feature.side->Values(entry));
      if (out.rows.size() + (list.end - list.begin) > limits_.list_ids) {
        return absl::InvalidArgumentError(absl::StrCat(feature.path, ": ", feature.side->Describe(), " gives ",
                                                       out.rows.size() + (list.end - list.begin),
                                                       " or more ids > limit ", limits_.list_ids));
      }
      for (size_t v = list.begin; v < list.end; ++v) {
        out.rows.push_back(feature.side_rows->row(v));
        out.is_padding.push_back(feature.side_rows->is_padding(v));
        if (feature.side_rows->out_of_vocabulary(v)) MarkOutOfVocabulary(feature, i);
      }
    }
    out.offsets.push_back(static_cast<uint32_t>(out.rows.size()));
    return absl::OkStatus();
  }

  static void CopyEntry(const FeaturePlan& feature, uint32_t entry, float* to) {
    if (entry == SideTable::kMissing) {
      std::fill_n(to, feature.width, 0.0f);
      return;
    }
    const std::span<const float> values = feature.side->Dense(entry);
    std::copy(values.begin(), values.end(), to);
  }

  const InputPlan& plan_;
  const InputLimits& limits_;
  ScoringInput& out_;
};

}  // namespace

struct InputDecoder::Impl {
  // A feature that has a label, and the strings.
  struct Labelled {
    const FeaturePlan* feature;
    const SideTable* strings;
  };

  std::string_view Label(const google::protobuf::RepeatedPtrField<v1::Column>& columns, v1::Scope scope, int sequence,
                         size_t position) const;

  InputPlan plan;
  std::vector<Labelled> labels;
};

absl::StatusOr<std::unique_ptr<const InputDecoder>> InputDecoder::Create(const ResolvedSpec& resolved,
                                                                         TensorReader& tensors) {
  auto impl = std::make_unique<Impl>();
  DIN_ASSIGN_OR_RETURN(impl->plan, InputPlan::Create(resolved, tensors));
  for (size_t f = 0; f < resolved.features.size(); ++f) {
    const int table = resolved.features[f].label;
    if (table != kNone) impl->labels.push_back({&impl->plan.features[f], &impl->plan.side_tables[table]});
  }
  return std::unique_ptr<const InputDecoder>(new InputDecoder(std::move(impl)));
}

InputDecoder::InputDecoder(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
InputDecoder::~InputDecoder() = default;

absl::Status InputDecoder::Decode(const RequestColumns& request, const InputLimits& limits, ScoringInput& out) const {
  absl::Status status = MatchColumns(impl_->plan, request, limits, out);
  if (status.ok()) status = Decoding(impl_->plan, limits, out).Run();
  out.sent.clear();  // the columns are the caller's and may go now
  return status;
}

int64_t InputDecoder::IdMapRows(int id_map) const { return impl_->plan.id_maps[id_map].rows(); }

// The first label that a column of the request leads to.
std::string_view InputDecoder::Impl::Label(const google::protobuf::RepeatedPtrField<v1::Column>& columns,
                                           v1::Scope scope, int sequence, size_t position) const {
  for (const Labelled& labelled : labels) {
    const FeaturePlan& feature = *labelled.feature;
    if (feature.scope != scope || feature.sequence != sequence) continue;
    for (const v1::Column& column : columns) {
      const auto ids = static_cast<size_t>(feature.id_type == v1::STRING ? column.keys_size() : column.ids_size());
      if (column.name() != feature.name || position >= ids) continue;
      const uint32_t entry = FindAt(*labelled.strings, column, position);
      if (entry != SideTable::kMissing) return labelled.strings->strings()[entry];
    }
  }
  return "";
}

std::string_view InputDecoder::CandidateLabel(const RequestColumns& request, size_t position) const {
  return impl_->Label(request.candidates, v1::CANDIDATE, kNone, position);
}

std::string_view InputDecoder::BehaviourLabel(const RequestColumns& request, int sequence, size_t position) const {
  for (const v1::Sequence& sent : request.sequences) {
    if (sent.name() != impl_->plan.sequences[sequence].name) continue;
    return impl_->Label(sent.columns(), v1::SEQUENCE, sequence, position);
  }
  return "";
}

}  // namespace din
