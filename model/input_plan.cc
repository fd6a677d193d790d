#include "model/input_plan.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace din {
namespace {

std::string PathOf(const v1::Feature& feature) {
  switch (feature.scope()) {
    case v1::USER:
      return absl::StrCat("features.", feature.name());
    case v1::CANDIDATE:
      return absl::StrCat("candidates.", feature.name());
    default:
      return absl::StrCat("sequences.", feature.sequence(), ".", feature.name());
  }
}

class Planner {
 public:
  Planner(const ResolvedSpec& resolved, TensorReader& tensors) : resolved_(resolved), tensors_(tensors) {}

  absl::StatusOr<InputPlan> Run() {
    DIN_RETURN_IF_ERROR(MapsAndTables());
    for (int f = 0; f < spec().features_size(); ++f) DIN_RETURN_IF_ERROR(AddFeature(f));
    for (int s = 0; s < spec().sequences_size(); ++s) AddSequence(s);
    for (const SequencePlan& sequence : plan_.sequences) DIN_RETURN_IF_ERROR(ResolvePadding(sequence));
    return std::move(plan_);
  }

 private:
  const v1::ModelSpec& spec() const { return resolved_.spec; }

  // Features point at these, so all are made before the first feature.
  absl::Status MapsAndTables() {
    for (const v1::IdMap& map : spec().id_maps()) {
      DIN_ASSIGN_OR_RETURN(IdMap created, IdMap::Create(map, tensors_));
      plan_.id_maps.push_back(std::move(created));
    }
    for (const v1::SideTable& table : spec().side_tables()) {
      DIN_ASSIGN_OR_RETURN(SideTable created, SideTable::Create(table, tensors_));
      plan_.side_tables.push_back(std::move(created));
    }
    return absl::OkStatus();
  }

  absl::Status AddFeature(int index) {
    const v1::Feature& feature = spec().features(index);
    const ResolvedSpec::Feature& resolved = resolved_.features[index];
    FeaturePlan plan;
    plan.path = PathOf(feature);
    plan.name = feature.name();
    plan.scope = feature.scope();
    plan.sequence = resolved.sequence;
    plan.kind = feature.kind();
    plan.id_type = resolved.id_type;
    plan.width = resolved.width;
    plan.id_map = resolved.id_map == kNone ? nullptr : &plan_.id_maps[resolved.id_map];
    plan.padding = PaddingId(feature.padding());
    plan.max_length = feature.max_length();
    plan.keep_last = feature.keep() == v1::KEEP_LAST;
    if (resolved.side_table != kNone) {
      plan.side = &plan_.side_tables[resolved.side_table];
      plan.side_key = resolved.side_key;
      plan.missing_key_is_error = plan.side->spec().missing_key() == v1::SideTable::MISSING_KEY_ERROR;
      if (plan.id_map != nullptr) {
        DIN_ASSIGN_OR_RETURN(plan.side_rows, RowsOfSide(resolved.side_table, resolved.id_map, plan));
      }
    }
    plan_.feature_by_name.emplace(feature.name(), index);
    plan_.features.push_back(std::move(plan));
    return absl::OkStatus();
  }

  // Candidate and behaviours usually share table, map and padding: then they share the rows.
  absl::StatusOr<const SideRows*> RowsOfSide(int table, int map, const FeaturePlan& feature) {
    for (const SharedRows& shared : shared_rows_) {
      if (shared.table == table && shared.map == map && shared.padding == feature.padding) return shared.rows;
    }
    auto rows = SideRows::Create(*feature.side, *feature.id_map, feature.padding);
    if (!rows.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(std::string(rows.status().message()), " of id map \"",
                                                     spec().id_maps(map).name(), "\" (feature \"", feature.name,
                                                     "\")"));
    }
    plan_.side_rows.push_back(std::make_unique<const SideRows>(std::move(rows).value()));
    shared_rows_.push_back({table, map, feature.padding, plan_.side_rows.back().get()});
    return shared_rows_.back().rows;
  }

  void AddSequence(int index) {
    const v1::SequenceSpec& sequence = spec().sequences(index);
    SequencePlan plan;
    plan.path = absl::StrCat("sequences.", sequence.name());
    plan.name = sequence.name();
    plan.max_length = sequence.max_length();
    plan.keep_last = sequence.keep() == v1::KEEP_LAST;
    plan.drop_invalid = sequence.invalid() == v1::SequenceSpec::DROP;
    plan.padded_length = sequence.padded_length();
    plan.length_of = resolved_.sequences[index].length_of;
    for (const v1::Attention& attention : spec().attentions()) {
      plan.has_positions_mean |=
          attention.sequence() == sequence.name() && attention.empty() == v1::Attention::EMPTY_POSITIONS_MEAN;
    }
    for (const std::string& name : sequence.valid_when_not_padding()) {
      plan.validity.push_back(plan_.feature_by_name.at(name));
    }
    for (int f = 0; f < spec().features_size(); ++f) {
      if (plan_.features[f].sequence == index) plan.features.push_back(f);
    }
    plan_.sequence_by_name.emplace(sequence.name(), index);
    plan_.sequences.push_back(std::move(plan));
  }

  absl::Status ResolvePadding(const SequencePlan& sequence) {
    const bool pads = (!sequence.drop_invalid && sequence.padded_length > 0) || sequence.length_of != kNone ||
                      sequence.has_positions_mean;
    if (!pads) return absl::OkStatus();
    for (int f : sequence.features) DIN_RETURN_IF_ERROR(ResolvePadding(sequence, f));
    return absl::OkStatus();
  }

  // The feature's own padding; without one, what the side table has for the padding id of the key.
  absl::Status ResolvePadding(const SequencePlan& sequence, int index) {
    FeaturePlan& plan = plan_.features[index];
    const v1::Feature& feature = spec().features(index);
    if (feature.has_padding()) {
      if (plan.kind != v1::ID || feature.padding().zero_vector()) return absl::OkStatus();
      const IdMap::Result result = plan.id_type == v1::STRING
                                       ? plan.id_map->Row(std::string_view(feature.padding().key()))
                                       : plan.id_map->Row(feature.padding().id());
      if (result.kind == IdMap::Result::kRefused) {
        return PaddingError(sequence, plan, "its padding id is out of vocabulary");
      }
      plan.padding_row = result.row;
      return absl::OkStatus();
    }
    if (plan.side != nullptr) return ResolveSidePadding(sequence, plan);
    if (plan.kind == v1::ID) return PaddingError(sequence, plan, "it has no padding");
    return absl::OkStatus();
  }

  absl::Status ResolveSidePadding(const SequencePlan& sequence, FeaturePlan& plan) {
    const v1::Feature& key = spec().features(plan.side_key);
    if (!plan_.features[plan.side_key].padding.exists()) {
      if (plan.kind != v1::ID) return absl::OkStatus();
      return PaddingError(sequence, plan,
                          absl::StrCat("it has no padding, and its key \"", key.name(), "\" has no padding id"));
    }
    const bool is_string = plan_.features[plan.side_key].id_type == v1::STRING;
    const uint32_t entry =
        is_string ? plan.side->Find(std::string_view(key.padding().key())) : plan.side->Find(key.padding().id());
    if (entry == SideTable::kMissing) {
      if (!plan.missing_key_is_error) return absl::OkStatus();
      const std::string id = is_string ? SpellId(std::string_view(key.padding().key())) : SpellId(key.padding().id());
      return PaddingError(sequence, plan,
                          absl::StrCat(plan.side->Describe(), " has no entry for ", id,
                                       ", the padding id of its key \"", key.name(), "\""));
    }
    plan.padding_entry = entry;
    if (plan.kind == v1::ID) plan.padding_row = plan.side_rows->row(entry);
    return absl::OkStatus();
  }

  static absl::Status PaddingError(const SequencePlan& sequence, const FeaturePlan& plan, const std::string& why) {
    return absl::InvalidArgumentError(
        absl::StrCat("feature \"", plan.name, "\": sequence \"", sequence.name, "\" is padded, but ", why));
  }

  struct SharedRows {
    int table;
    int map;
    PaddingId padding;
    const SideRows* rows;
  };

  const ResolvedSpec& resolved_;
  TensorReader& tensors_;
  InputPlan plan_;
  std::vector<SharedRows> shared_rows_;
};

}  // namespace

absl::StatusOr<InputPlan> InputPlan::Create(const ResolvedSpec& resolved, TensorReader& tensors) {
  return Planner(resolved, tensors).Run();
}

}  // namespace din
