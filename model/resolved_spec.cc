#include "model/resolved_spec.h"

#include <cmath>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/generated_enum_reflection.h"

namespace din {
namespace {

// Bounds that keep every size computation far from overflow and every mistake cheap. All are well beyond the largest
// DIN in the survey (attention 128-64, tower 512, 64 features).
constexpr size_t kMaxEntries = 1024;         // of each repeated field
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxUnits = 16384;
constexpr size_t kMaxWidth = 65536;          // of a vector or a network's input
constexpr size_t kMaxLayers = 16;
constexpr int64_t kMaxRows = 0xFFFFFFFELL;   // 0xFFFFFFFF stands for the zero row
constexpr uint32_t kMaxPositions = 1u << 20;

using NameIndex = absl::flat_hash_map<std::string, int>;

std::string At(std::string_view field, int index) { return absl::StrCat(std::string(field), "[", index, "]"); }

// Checks and resolves in one pass. The first error is kept; after it every check is false and every loop ends.
class Resolver {
 public:
  explicit Resolver(v1::ModelSpec spec) { out_.spec = std::move(spec); }

  absl::StatusOr<ResolvedSpec> Run() {
    const bool ok = Format() && IdMaps() && Tables() && SideTables() && Features() && Sequences() && Labels() &&
                    Slots() && Attentions() && SequencePools() && Interactions() && PreTowers() && Tower();
    if (!ok) return status_;
    return std::move(out_);
  }

 private:
  const v1::ModelSpec& spec() const { return out_.spec; }

  template <typename... Parts>
  bool Fail(const std::string& path, const Parts&... parts) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
    return false;
  }

  bool Bf16Tolerance() {
    const double tolerance = spec().bf16_tolerance();
    if (tolerance == 0 && spec().precision() == v1::PRECISION_BF16) {
      return Fail("bf16_tolerance", "0 with PRECISION_BF16: say how far a golden score may be off, in (0, 0.1]");
    }
    return InRange("bf16_tolerance", tolerance, 0, 0.1);
  }

  // --- Small checks ---------------------------------------------------------------------------------------------------

  bool Count(const std::string& path, size_t n, size_t limit = kMaxEntries) {
    return n <= limit || Fail(path, n, " entries > limit ", limit);
  }

  bool InRange(const std::string& path, double value, double low, double high) {
    return (std::isfinite(value) && value >= low && value <= high) ||
           Fail(path, value, " is not in [", low, ", ", high, "]");
  }

  bool Epsilon(const std::string& path, double value) {
    return (std::isfinite(value) && value > 0 && value <= 1) || Fail(path, value, " is not in (0, 1]");
  }

  bool Size(const std::string& path, int64_t value, int64_t limit) {
    return (value >= 1 && value <= limit) || Fail(path, value, " is not in [1, ", limit, "]");
  }

  // One of `accepted`; the message spells them.
  template <typename Enum>
  bool OneOf(const std::string& path, Enum value, std::initializer_list<Enum> accepted, std::string_view why = "") {
    const auto* descriptor = google::protobuf::GetEnumDescriptor<Enum>();
    const auto spell = [&](Enum e) {
      const auto* v = descriptor->FindValueByNumber(static_cast<int>(e));
      return v != nullptr ? v->name() : absl::StrCat(static_cast<int>(e));
    };
    std::string names;
    for (Enum e : accepted) {
      if (e == value) return true;
      absl::StrAppend(&names, names.empty() ? "" : ", ", spell(e));
    }
    return Fail(path, spell(value), " is not accepted; accepted: ", names, why.empty() ? "" : " (", std::string(why),
                why.empty() ? "" : ")");
  }

  bool Unset(const std::string& path, bool is_set, std::string_view condition) {
    return !is_set || Fail(path, "must stay unset ", std::string(condition));
  }

  bool ValidName(const std::string& path, const std::string& name) {
    if (name.empty() || name.size() > kMaxNameBytes) {
      return Fail(path, "a name has 1 to ", kMaxNameBytes, " bytes, this one has ", name.size());
    }
    for (unsigned char c : name) {
      if (c < 0x20 || c == 0x7f) return Fail(path, "control character in name");
    }
    return true;
  }

  bool AddName(const std::string& path, const std::string& name, int index, NameIndex& names) {
    if (!ValidName(absl::StrCat(path, ".name"), name)) return false;
    return names.emplace(name, index).second || Fail(absl::StrCat(path, ".name"), "\"", name, "\" is there twice");
  }

  bool Find(const std::string& path, const std::string& name, const NameIndex& names, std::string_view what, int& out) {
    const auto it = names.find(name);
    if (it == names.end()) return Fail(path, "no ", std::string(what), " \"", name, "\"");
    out = it->second;
    return true;
  }

  // --- Ids, tables, features ------------------------------------------------------------------------------------------

  bool Format() {
    return (spec().format() == 1 || Fail("format", spec().format(), " is not known to this server; accepted: 1")) &&
           (v1::Precision_IsValid(spec().precision()) ||
            Fail("precision", static_cast<int>(spec().precision()),
                 " is not one of PRECISION_DEFAULT, PRECISION_FP32, PRECISION_FP32_SPLIT, PRECISION_BF16")) &&
           Bf16Tolerance();
  }

  bool IdMaps() {
    if (!Count("id_maps", spec().id_maps_size())) return false;
    for (int i = 0; i < spec().id_maps_size(); ++i) {
      const v1::IdMap& map = spec().id_maps(i);
      const std::string path = At("id_maps", i);
      if (!AddName(path, map.name(), i, id_maps_) ||
          !OneOf(path + ".id_type", map.id_type(), {v1::INT64, v1::STRING}) || !IdMapKind(path, map) ||
          !OutOfVocabulary(path, map)) {
        return false;
      }
    }
    return true;
  }

  bool IdMapKind(const std::string& path, const v1::IdMap& map) {
    switch (map.kind_case()) {
      case v1::IdMap::kIdentity:
        return OneOf(path + ".id_type", map.id_type(), {v1::INT64}, "identity") &&
               Size(path + ".identity.size", map.identity().size(), kMaxRows);
      case v1::IdMap::kModulo:
        return OneOf(path + ".id_type", map.id_type(), {v1::INT64}, "modulo") &&
               Size(path + ".modulo.size", map.modulo().size(), kMaxRows);
      case v1::IdMap::kHash: {
        const v1::IdMap::Hash& hash = map.hash();
        using H = v1::IdMap::Hash;
        const bool skip_zero = hash.function() == H::FARMHASH64_DECIMAL_SKIP_ZERO;
        return OneOf(path + ".hash.function", hash.function(),
                     {H::FARMHASH64_DECIMAL, H::FARMHASH64_DECIMAL_SKIP_ZERO, H::XXH64}) &&
               Size(path + ".hash.size", hash.size(), kMaxRows) &&
               (!skip_zero || hash.size() >= 2 || Fail(path + ".hash.size", "1 < 2, which SKIP_ZERO needs")) &&
               Unset(path + ".hash.seed", hash.function() != H::XXH64 && hash.seed() != 0, "unless function is XXH64");
      }
      case v1::IdMap::kVocabulary:
        return InRange(path + ".vocabulary.first_row", static_cast<double>(map.vocabulary().first_row()), 0, kMaxRows);
      case v1::IdMap::KIND_NOT_SET:
        break;
    }
    return Fail(path, "no kind; accepted: identity, modulo, hash, vocabulary");
  }

  bool OutOfVocabulary(const std::string& path, const v1::IdMap& map) {
    using M = v1::IdMap;
    const std::string rule = path + ".out_of_vocabulary";
    if (map.kind_case() == M::kModulo || map.kind_case() == M::kHash) {
      if (!OneOf(rule, map.out_of_vocabulary(), {M::OUT_OF_VOCABULARY_UNSPECIFIED}, "every id has a row")) return false;
    } else if (!OneOf(rule, map.out_of_vocabulary(), {M::ERROR, M::ROW, M::ZERO})) {
      return false;
    }
    const std::string row = path + ".out_of_vocabulary_row";
    if (map.out_of_vocabulary() != M::ROW) return Unset(row, map.out_of_vocabulary_row() != 0, "unless the rule is ROW");
    return InRange(row, static_cast<double>(map.out_of_vocabulary_row()), 0, kMaxRows - 1);
  }

  bool Tables() {
    if (!Count("tables", spec().tables_size())) return false;
    for (int i = 0; i < spec().tables_size(); ++i) {
      const v1::Table& table = spec().tables(i);
      const std::string path = At("tables", i);
      if (!AddName(path, table.name(), i, tables_) || !Size(path + ".rows", table.rows(), kMaxRows) ||
          !Size(path + ".dim", table.dim(), kMaxUnits) ||
          !InRange(path + ".row_offset", static_cast<double>(table.row_offset()), 0, kMaxRows)) {
        return false;
      }
    }
    return true;
  }

  bool SideTables() {
    if (!Count("side_tables", spec().side_tables_size())) return false;
    for (int i = 0; i < spec().side_tables_size(); ++i) {
      const v1::SideTable& side = spec().side_tables(i);
      const std::string path = At("side_tables", i);
      using S = v1::SideTable;
      if (!AddName(path, side.name(), i, side_tables_) ||
          !OneOf(path + ".key_type", side.key_type(), {v1::INT64, v1::STRING}) ||
          !Size(path + ".rows", side.rows(), kMaxRows) ||
          !OneOf(path + ".kind", side.kind(), {v1::ID, v1::ID_LIST, v1::DENSE}) ||
          !OneOf(path + ".missing_key", side.missing_key(), {S::MISSING_KEY_ERROR, S::MISSING_KEY_ZERO})) {
        return false;
      }
      const bool dense = side.kind() == v1::DENSE;
      if (dense) {
        if (!Size(path + ".width", side.width(), kMaxUnits) ||
            !Unset(path + ".value_type", side.value_type() != v1::ID_TYPE_UNSPECIFIED, "for DENSE")) {
          return false;
        }
      } else if (!Unset(path + ".width", side.width() != 0, "unless the kind is DENSE") ||
                 (side.kind() == v1::ID_LIST
                      ? !OneOf(path + ".value_type", side.value_type(), {v1::INT64}, "of ID_LIST")
                      : !OneOf(path + ".value_type", side.value_type(), {v1::INT64, v1::STRING}))) {
        return false;
      }
    }
    return true;
  }

  bool Features() {
    if (!Count("features", spec().features_size()) || !Count("sequences", spec().sequences_size())) return false;
    for (int i = 0; i < spec().sequences_size(); ++i) {
      if (!AddName(At("sequences", i), spec().sequences(i).name(), i, sequences_)) return false;
    }
    for (int i = 0; i < spec().features_size(); ++i) {
      if (!AddName(At("features", i), spec().features(i).name(), i, features_)) return false;
    }
    out_.features.resize(spec().features_size());
    for (int i = 0; i < spec().features_size(); ++i) {
      if (!Feature(At("features", i), spec().features(i), out_.features[i])) return false;
    }
    for (int i = 0; i < spec().features_size(); ++i) {
      if (!Side(At("features", i) + ".side", spec().features(i), out_.features[i])) return false;
    }
    return true;
  }

  bool Feature(const std::string& path, const v1::Feature& feature, ResolvedSpec::Feature& out) {
    if (!OneOf(path + ".scope", feature.scope(), {v1::USER, v1::CANDIDATE, v1::SEQUENCE}) ||
        !OneOf(path + ".kind", feature.kind(), {v1::ID, v1::ID_LIST, v1::DENSE})) {
      return false;
    }
    if (feature.scope() == v1::SEQUENCE) {
      if (!Find(path + ".sequence", feature.sequence(), sequences_, "sequence", out.sequence)) return false;
    } else if (!Unset(path + ".sequence", !feature.sequence().empty(), "unless the scope is SEQUENCE")) {
      return false;
    }
    if (feature.kind() == v1::DENSE) {
      out.width = feature.width();
      if (!Size(path + ".width", feature.width(), kMaxUnits) ||
          !Unset(path + ".id_map", !feature.id_map().empty(), "for DENSE") ||
          !Unset(path + ".padding", feature.has_padding(), "for DENSE, which is padded with zeros")) {
        return false;
      }
    } else {
      if (!Unset(path + ".width", feature.width() != 0, "unless the kind is DENSE") ||
          !Find(path + ".id_map", feature.id_map(), id_maps_, "id map", out.id_map)) {
        return false;
      }
      out.id_type = spec().id_maps(out.id_map).id_type();
      if (!Padding(path + ".padding", feature, out.id_type)) return false;
    }
    if (feature.kind() == v1::ID_LIST && feature.max_length() > 0) {
      return Size(path + ".max_length", feature.max_length(), kMaxPositions) &&
             OneOf(path + ".keep", feature.keep(), {v1::KEEP_LAST, v1::KEEP_FIRST});
    }
    return Unset(path + ".max_length", feature.max_length() != 0, "unless the kind is ID_LIST") &&
           Unset(path + ".keep", feature.keep() != v1::KEEP_UNSPECIFIED, "without max_length");
  }

  bool Padding(const std::string& path, const v1::Feature& feature, v1::IdType id_type) {
    if (!feature.has_padding()) return true;
    switch (feature.padding().kind_case()) {
      case v1::Feature::Padding::kId:
        return id_type == v1::INT64 || Fail(path, "id, but the id map's ids are STRING: use key");
      case v1::Feature::Padding::kKey:
        return id_type == v1::STRING || Fail(path, "key, but the id map's ids are INT64: use id");
      case v1::Feature::Padding::kZeroVector:
        return feature.padding().zero_vector() || Fail(path + ".zero_vector", "false; accepted: true");
      case v1::Feature::Padding::KIND_NOT_SET:
        break;
    }
    return Fail(path, "no kind; accepted: id, key, zero_vector");
  }

  bool Side(const std::string& path, const v1::Feature& feature, ResolvedSpec::Feature& out) {
    if (!feature.has_side()) return true;
    if (!Find(path + ".side_table", feature.side().side_table(), side_tables_, "side table", out.side_table) ||
        !Find(path + ".key", feature.side().key(), features_, "feature", out.side_key)) {
      return false;
    }
    const v1::SideTable& table = spec().side_tables(out.side_table);
    const v1::Feature& key = spec().features(out.side_key);
    const ResolvedSpec::Feature& key_out = out_.features[out.side_key];
    if (key.kind() != v1::ID || key.scope() != feature.scope() || key_out.sequence != out.sequence || key.has_side()) {
      return Fail(path + ".key", "\"", key.name(),
                  "\" must be an ID feature of the same scope and sequence that requests send");
    }
    if (key_out.id_type != table.key_type()) {
      return Fail(path + ".key", "ids are ", v1::IdType_Name(key_out.id_type), ", the side table's keys are ",
                  v1::IdType_Name(table.key_type()));
    }
    if (table.kind() != feature.kind()) {
      return Fail(path + ".side_table", "kind ", v1::FeatureKind_Name(table.kind()), ", the feature's is ",
                  v1::FeatureKind_Name(feature.kind()));
    }
    if (feature.kind() == v1::DENSE ? table.width() != out.width : table.value_type() != out.id_type) {
      return Fail(path + ".side_table", "its values are not of the feature's type or width");
    }
    return true;
  }

  bool Sequences() {
    out_.sequences.resize(spec().sequences_size());
    for (int i = 0; i < spec().sequences_size(); ++i) {
      const v1::SequenceSpec& sequence = spec().sequences(i);
      const std::string path = At("sequences", i);
      using S = v1::SequenceSpec;
      if (!Size(path + ".max_length", sequence.max_length(), kMaxPositions) ||
          !OneOf(path + ".keep", sequence.keep(), {v1::KEEP_LAST, v1::KEEP_FIRST}) ||
          !OneOf(path + ".invalid", sequence.invalid(), {S::DROP, S::PARTICIPATE})) {
        return false;
      }
      if (sequence.padded_length() != 0 && sequence.padded_length() < sequence.max_length()) {
        return Fail(path + ".padded_length", sequence.padded_length(), " < max_length ", sequence.max_length());
      }
      if (sequence.padded_length() > kMaxPositions) {
        return Fail(path + ".padded_length", sequence.padded_length(), " > limit ", kMaxPositions);
      }
      for (int j = 0; j < sequence.valid_when_not_padding_size(); ++j) {
        const std::string at = path + "." + At("valid_when_not_padding", j);
        int feature = kNone;
        if (!Find(at, sequence.valid_when_not_padding(j), features_, "feature", feature)) return false;
        const v1::Feature& f = spec().features(feature);
        const auto padding = f.padding().kind_case();
        if (out_.features[feature].sequence != i || f.kind() != v1::ID ||
            (padding != v1::Feature::Padding::kId && padding != v1::Feature::Padding::kKey)) {
          return Fail(at, "\"", f.name(), "\" must be an ID feature of this sequence with a padding id");
        }
      }
      if (!LengthOf(path, sequence, out_.sequences[i])) return false;
    }
    return true;
  }

  bool LengthOf(const std::string& path, const v1::SequenceSpec& sequence, ResolvedSpec::Sequence& out) {
    if (sequence.length_of().empty()) return true;
    const std::string at = path + ".length_of";
    if (!Find(at, sequence.length_of(), features_, "feature", out.length_of)) return false;
    const v1::Feature& list = spec().features(out.length_of);
    if (list.scope() != v1::USER || list.kind() != v1::ID_LIST) {
      return Fail(at, "\"", list.name(), "\" is ", v1::FeatureKind_Name(list.kind()), " of scope ",
                  v1::Scope_Name(list.scope()), ", expected ID_LIST of scope USER");
    }
    return OneOf(path + ".invalid", sequence.invalid(), {v1::SequenceSpec::DROP}, "with length_of") &&
           Unset(path + ".valid_when_not_padding", sequence.valid_when_not_padding_size() != 0, "with length_of") &&
           (sequence.padded_length() != 0 || Fail(path + ".padded_length", "0; length_of needs one"));
  }

  bool Labels() {
    for (int i = 0; i < spec().labels_size(); ++i) {
      const v1::Label& label = spec().labels(i);
      const std::string path = At("labels", i);
      int feature = kNone;
      int side = kNone;
      if (!Find(path + ".feature", label.feature(), features_, "feature", feature) ||
          !Find(path + ".side_table", label.side_table(), side_tables_, "side table", side)) {
        return false;
      }
      const v1::Feature& f = spec().features(feature);
      const v1::SideTable& t = spec().side_tables(side);
      if (f.kind() != v1::ID || f.scope() == v1::USER || t.kind() != v1::ID || t.value_type() != v1::STRING ||
          t.key_type() != out_.features[feature].id_type) {
        return Fail(path, "a label joins an ID feature of scope CANDIDATE or SEQUENCE to a side table of STRINGs");
      }
      if (out_.features[feature].label != kNone) return Fail(path, "second label of \"", f.name(), "\"");
      out_.features[feature].label = side;
    }
    return true;
  }

  // --- Slots ----------------------------------------------------------------------------------------------------------

  bool Slots() {
    if (!Count("slots", spec().slots_size())) return false;
    for (int i = 0; i < spec().slots_size(); ++i) {
      const std::string path = At("slots", i);
      ResolvedSpec::Slot out;
      if (!AddName(path, spec().slots(i).name(), i, slots_) || !Slot(path, spec().slots(i), out)) return false;
      if (out.scope != v1::SEQUENCE) {
        AddVector(spec().slots(i).name(), {ResolvedSpec::VectorKind::kSlot, i, out.scope == v1::CANDIDATE, out.width});
      }
      out_.slots.push_back(out);
    }
    return true;
  }

  bool Slot(const std::string& path, const v1::Slot& slot, ResolvedSpec::Slot& out) {
    switch (slot.op_case()) {
      case v1::Slot::kEmbed:
        return SlotFeature(path + ".embed.feature", slot.embed().feature(), v1::ID, out.feature, out) &&
               SlotTable(path + ".embed.table", slot.embed().table(), out);
      case v1::Slot::kPool: {
        const v1::Slot::Pool& pool = slot.pool();
        const std::string p = path + ".pool";
        using P = v1::Slot::Pool;
        if (!SlotFeature(p + ".feature", pool.feature(), v1::ID_LIST, out.feature, out) ||
            !SlotTable(p + ".table", pool.table(), out) || !OneOf(p + ".kind", pool.kind(), {P::MEAN, P::SUM, P::MAX}) ||
            !InRange(p + ".divisor_epsilon", pool.divisor_epsilon(), 0, 1) ||
            !InRange(p + ".empty_value", pool.empty_value(), -1e30, 1e30)) {
          return false;
        }
        const auto padding = spec().features(out.feature).padding().kind_case();
        const bool has_padding_id =
            padding == v1::Feature::Padding::kId || padding == v1::Feature::Padding::kKey;
        return !pool.skip_padding() || has_padding_id ||
               Fail(p + ".skip_padding", "feature \"", pool.feature(), "\" has no padding id");
      }
      case v1::Slot::kDense: {
        if (!SlotFeature(path + ".dense.feature", slot.dense().feature(), v1::DENSE, out.value, out)) return false;
        out.width = out_.features[out.value].width;
        return true;
      }
      case v1::Slot::kScaled: {
        const std::string p = path + ".scaled";
        if (!SlotFeature(p + ".value", slot.scaled().value(), v1::DENSE, out.value, out)) return false;
        if (out_.features[out.value].width != 1) {
          return Fail(p + ".value", "width ", out_.features[out.value].width, ", expected 1");
        }
        if (!slot.scaled().feature().empty() &&
            !SlotFeature(p + ".feature", slot.scaled().feature(), v1::ID, out.feature, out)) {
          return false;
        }
        return SlotTable(p + ".table", slot.scaled().table(), out);
      }
      case v1::Slot::OP_NOT_SET:
        break;
    }
    return Fail(path, "no op; accepted: embed, pool, dense, scaled");
  }

  bool SlotFeature(const std::string& path, const std::string& name, v1::FeatureKind kind, int& feature,
                   ResolvedSpec::Slot& out) {
    if (!Find(path, name, features_, "feature", feature)) return false;
    const v1::Feature& f = spec().features(feature);
    const int sequence = out_.features[feature].sequence;
    if (f.kind() != kind) {
      return Fail(path, "\"", name, "\" is ", v1::FeatureKind_Name(f.kind()), ", expected ", v1::FeatureKind_Name(kind));
    }
    if (out.scope != v1::SCOPE_UNSPECIFIED && (out.scope != f.scope() || out.sequence != sequence)) {
      return Fail(path, "\"", name, "\" is not of the same scope as the slot's other feature");
    }
    out.scope = f.scope();
    out.sequence = sequence;
    return true;
  }

  bool SlotTable(const std::string& path, const std::string& name, ResolvedSpec::Slot& out) {
    if (!Find(path, name, tables_, "table", out.table)) return false;
    out.width = spec().tables(out.table).dim();
    return true;
  }

  // Slots side by side. `sequence` kNone: slots of scope USER and CANDIDATE, else slots of that sequence.
  bool Concat(const std::string& path, const google::protobuf::RepeatedPtrField<std::string>& names, int sequence,
              ResolvedSpec::Concat& out) {
    if (names.empty()) return Fail(path, "at least one slot");
    if (!Count(path, names.size())) return false;
    for (int i = 0; i < names.size(); ++i) {
      int slot = kNone;
      if (!Find(absl::StrCat(path, "[", i, "]"), names[i], slots_, "slot", slot)) return false;
      if (out_.slots[slot].sequence != sequence) {
        return Fail(absl::StrCat(path, "[", i, "]"), "slot \"", names[i],
                    sequence == kNone ? "\" is of scope SEQUENCE" : "\" is not of this sequence");
      }
      out.slots.push_back(slot);
      out.offsets.push_back(out.width);
      out.width += out_.slots[slot].width;
    }
    return Size(path, static_cast<int64_t>(out.width), kMaxWidth);
  }

  // --- Layers ---------------------------------------------------------------------------------------------------------

  bool BatchNorm(const std::string& path, const v1::BatchNorm& bn) { return Epsilon(path + ".eps", bn.eps()); }

  bool Layers(const std::string& path, const google::protobuf::RepeatedPtrField<v1::Layer>& layers) {
    if (!Count(path, layers.size(), kMaxLayers)) return false;
    for (int i = 0; i < layers.size(); ++i) {
      const v1::Layer& layer = layers[i];
      const std::string at = absl::StrCat(path, "[", i, "]");
      if (!Size(at + ".units", layer.units(), kMaxUnits) ||
          (layer.has_bn() && !BatchNorm(at + ".bn", layer.bn())) ||
          (layer.has_out_bn() && !BatchNorm(at + ".out_bn", layer.out_bn())) ||
          !Activation(at + ".activation", layer.activation())) {
        return false;
      }
    }
    return true;
  }

  bool Activation(const std::string& path, const v1::Activation& activation) {
    using A = v1::Activation;
    if (activation.kind() == A::POSITIONWISE_PRELU) {
      return Fail(path + ".kind", "POSITIONWISE_PRELU is outside the family: a slope per position makes the score "
                  "depend on the order of the behaviours; accepted: PRELU with one slope per unit");
    }
    if (!OneOf(path + ".kind", activation.kind(),
               {A::NONE, A::RELU, A::SIGMOID, A::TANH, A::PRELU, A::LEAKY_RELU, A::SILU, A::DICE}) ||
        !Unset(path + ".dice", activation.has_dice() && activation.kind() != A::DICE, "unless the kind is DICE") ||
        !Unset(path + ".leaky_slope", activation.leaky_slope() != 0 && activation.kind() != A::LEAKY_RELU,
               "unless the kind is LEAKY_RELU")) {
      return false;
    }
    if (activation.kind() == A::LEAKY_RELU && !InRange(path + ".leaky_slope", activation.leaky_slope(), -10, 10)) {
      return false;
    }
    return activation.kind() != A::DICE || Dice(path + ".dice", activation.dice());
  }

  bool Dice(const std::string& path, const v1::Dice& dice) {
    using D = v1::Dice;
    if (dice.statistics() == D::BATCH) {
      return Fail(path + ".statistics", "BATCH is refused: a score would depend on the requests beside it; freeze the "
                  "statistics over the training set; accepted: RUNNING, IDENTITY, PER_ROW");
    }
    const bool running = dice.statistics() == D::RUNNING;
    const bool has_eps = dice.statistics() != D::IDENTITY;
    return OneOf(path + ".statistics", dice.statistics(), {D::RUNNING, D::IDENTITY, D::PER_ROW}) &&
           (has_eps ? Epsilon(path + ".eps", dice.eps())
                    : Unset(path + ".eps", dice.eps() != 0, "for IDENTITY")) &&
           Unset(path + ".affine", dice.affine() && !running, "unless statistics are RUNNING") &&
           Unset(path + ".slope", dice.slope() && !running, "unless statistics are RUNNING") &&
           OneOf(path + ".alpha", dice.alpha(), {D::ALPHA_TENSOR, D::ALPHA_CONSTANT}) &&
           (dice.alpha() == D::ALPHA_CONSTANT
                ? InRange(path + ".alpha_value", dice.alpha_value(), -10, 10)
                : Unset(path + ".alpha_value", dice.alpha_value() != 0, "unless alpha is ALPHA_CONSTANT"));
  }

  // --- The network ----------------------------------------------------------------------------------------------------

  bool Sequence(const std::string& path, const std::string& name, int& out) {
    return Find(path, name, sequences_, "sequence", out);
  }

  bool Attentions() {
    if (!Count("attentions", spec().attentions_size())) return false;
    for (int i = 0; i < spec().attentions_size(); ++i) {
      const v1::Attention& attention = spec().attentions(i);
      const std::string path = At("attentions", i);
      ResolvedSpec::Attention out;
      if (!ValidName(path + ".name", attention.name()) ||
          !Sequence(path + ".sequence", attention.sequence(), out.sequence) ||
          !Concat(path + ".query", attention.query(), kNone, out.query) ||
          !Concat(path + ".key", attention.key(), out.sequence, out.key) || !QueryWidth(path, attention, out) ||
          !AttentionUnit(path, attention)) {
        return false;
      }
      out.value_width = out.key.width;
      if (attention.has_post()) {
        const v1::Attention::Post& post = attention.post();
        if (post.has_bn() && !BatchNorm(path + ".post.bn", post.bn())) return false;
        if (post.units() != 0) {
          if (!Size(path + ".post.units", post.units(), kMaxUnits)) return false;
          out.value_width = post.units();
        } else if (!post.has_bn() || post.bias()) {
          return Fail(path + ".post", "needs units, or a bn alone without bias");
        }
      }
      if (!AddVector(path, attention.name(), {ResolvedSpec::VectorKind::kAttention, i, true, out.value_width})) {
        return false;
      }
      out_.attentions.push_back(std::move(out));
    }
    return true;
  }

  bool QueryWidth(const std::string& path, const v1::Attention& attention, const ResolvedSpec::Attention& out) {
    using A = v1::Attention;
    if (!OneOf(path + ".query_width", attention.query_width(), {A::QUERY_WIDTH_EQUAL, A::QUERY_WIDTH_ZERO_PAD})) {
      return false;
    }
    const bool fits = attention.query_width() == A::QUERY_WIDTH_EQUAL ? out.query.width == out.key.width
                                                                      : out.query.width <= out.key.width;
    return fits || Fail(path + ".query", "width ", out.query.width, ", the key's is ", out.key.width,
                        out.query.width < out.key.width ? "; QUERY_WIDTH_ZERO_PAD would fill it up" : "");
  }

  bool AttentionUnit(const std::string& path, const v1::Attention& attention) {
    using A = v1::Attention;
    if (attention.input().empty()) return Fail(path + ".input", "at least one piece");
    if (!Count(path + ".input", attention.input_size(), 16)) return false;
    for (int i = 0; i < attention.input_size(); ++i) {
      if (!OneOf(path + "." + At("input", i), attention.input(i),
                 {A::Q, A::K, A::Q_MINUS_K, A::K_MINUS_Q, A::Q_TIMES_K})) {
        return false;
      }
    }
    if (attention.layers().empty()) return Fail(path + ".layers", "at least one");
    if (!Layers(path + ".layers", attention.layers()) ||
        !OneOf(path + ".out_activation", attention.out_activation(), {v1::Activation::NONE, v1::Activation::SIGMOID}) ||
        !OneOf(path + ".scale", attention.scale(), {A::SCALE_NONE, A::SCALE_INVERSE_SQRT_WIDTH}) ||
        !OneOf(path + ".normalise", attention.normalise(),
               {A::NORMALISE_NONE, A::NORMALISE_SOFTMAX, A::NORMALISE_SIGMOID}) ||
        !OneOf(path + ".empty", attention.empty(), {A::EMPTY_ZERO, A::EMPTY_POSITIONS_MEAN})) {
      return false;
    }
    if (attention.scale() != A::SCALE_NONE && attention.out_activation() != v1::Activation::NONE) {
      return OneOf(path + ".out_activation", attention.out_activation(), {v1::Activation::NONE}, "with a scale");
    }
    if (attention.empty() == A::EMPTY_POSITIONS_MEAN) {
      return OneOf(path + ".normalise", attention.normalise(), {A::NORMALISE_SOFTMAX}, "with EMPTY_POSITIONS_MEAN");
    }
    return true;
  }

  bool SequencePools() {
    if (!Count("sequence_pools", spec().sequence_pools_size())) return false;
    for (int i = 0; i < spec().sequence_pools_size(); ++i) {
      const v1::SequencePool& pool = spec().sequence_pools(i);
      const std::string path = At("sequence_pools", i);
      using P = v1::SequencePool;
      ResolvedSpec::SequencePool out;
      if (!ValidName(path + ".name", pool.name()) || !Sequence(path + ".sequence", pool.sequence(), out.sequence) ||
          !Concat(path + ".key", pool.key(), out.sequence, out.key) ||
          !OneOf(path + ".kind", pool.kind(), {P::SUM, P::MEAN}) ||
          !InRange(path + ".divisor_epsilon", pool.divisor_epsilon(), 0, 1) ||
          !AddVector(path, pool.name(), {ResolvedSpec::VectorKind::kSequencePool, i, false, out.key.width})) {
        return false;
      }
      out_.sequence_pools.push_back(std::move(out));
    }
    return true;
  }

  bool Interactions() {
    if (!Count("interactions", spec().interactions_size())) return false;
    // All are resolved before any becomes a vector, so that none can name another.
    for (int i = 0; i < spec().interactions_size(); ++i) {
      const v1::Interaction& interaction = spec().interactions(i);
      const std::string path = At("interactions", i);
      using I = v1::Interaction;
      ResolvedSpec::Interaction out;
      if (!ValidName(path + ".name", interaction.name()) ||
          !Vectors(path + ".vectors", interaction.vectors(), out.vectors) ||
          !OneOf(path + ".kind", interaction.kind(), {I::INNER_PRODUCTS, I::BI_INTERACTION})) {
        return false;
      }
      const size_t n = out.vectors.size();
      if (n < 2) return Fail(path + ".vectors", n, " entries, expected at least 2");
      out.width = out.vectors[0].used();
      for (size_t v = 0; v < n; ++v) {
        if (out.vectors[v].used() != out.width) {
          return Fail(absl::StrCat(path, ".vectors[", v, "]"), "width ", out.vectors[v].used(),
                      ", that of vectors[0] is ", out.width);
        }
        out.per_candidate |= out.vectors[v].per_candidate;
      }
      out.out_width = interaction.kind() == I::INNER_PRODUCTS ? n * (n - 1) / 2 : out.width;
      if (!Size(path + ".vectors: inner products", static_cast<int64_t>(out.out_width), kMaxWidth)) return false;
      out_.interactions.push_back(std::move(out));
    }
    for (int i = 0; i < spec().interactions_size(); ++i) {
      const ResolvedSpec::Interaction& interaction = out_.interactions[i];
      if (!AddVector(At("interactions", i), spec().interactions(i).name(),
                     {ResolvedSpec::VectorKind::kInteraction, i, interaction.per_candidate, interaction.out_width})) {
        return false;
      }
    }
    return true;
  }

  bool PreTowers() {
    if (!Count("pre_towers", spec().pre_towers_size())) return false;
    // All are resolved before any becomes a vector, so that none can name another.
    for (int i = 0; i < spec().pre_towers_size(); ++i) {
      const v1::PreTower& pre = spec().pre_towers(i);
      const std::string path = At("pre_towers", i);
      ResolvedSpec::Network out;
      if (!ValidName(path + ".name", pre.name()) || !Terms(path + ".input", pre.input(), out) ||
          (pre.has_in_bn() && !BatchNorm(path + ".in_bn", pre.in_bn())) || !Layers(path + ".layers", pre.layers())) {
        return false;
      }
      if (pre.layers().empty() && !pre.has_in_bn()) return Fail(path + ".layers", "at least one, or an in_bn");
      out.out_width = pre.layers().empty() ? out.in_width : pre.layers(pre.layers_size() - 1).units();
      out_.pre_towers.push_back(std::move(out));
    }
    for (int i = 0; i < spec().pre_towers_size(); ++i) {
      bool per_candidate = false;
      for (const auto& term : out_.pre_towers[i].input) per_candidate |= term.per_candidate();
      if (!AddVector(At("pre_towers", i), spec().pre_towers(i).name(),
                     {ResolvedSpec::VectorKind::kPreTower, i, per_candidate, out_.pre_towers[i].out_width})) {
        return false;
      }
    }
    return true;
  }

  bool Tower() {
    if (!spec().has_tower()) return Fail("tower", "missing");
    const v1::Tower& tower = spec().tower();
    ResolvedSpec::Network& out = out_.tower;
    if (!Vectors("tower.wide", tower.wide(), out_.wide)) return false;
    if (tower.input().empty() && !tower.wide().empty()) return NoNetwork(tower) && IdBiases(tower);
    if (!Terms("tower.input", tower.input(), out) ||
        (tower.has_in_bn() && !BatchNorm("tower.in_bn", tower.in_bn())) || !Layers("tower.layers", tower.layers())) {
      return false;
    }
    out.out_width = tower.layers().empty() ? out.in_width : tower.layers(tower.layers_size() - 1).units();
    if (tower.classes() != 1 && tower.classes() != 2) {
      return Fail("tower.classes", tower.classes(), " is not accepted; accepted: 1, 2");
    }
    if (tower.positive_class() >= tower.classes()) {
      return Fail("tower.positive_class", tower.positive_class(), " >= classes ", tower.classes());
    }
    return IdBiases(tower);
  }

  // The logit is `wide` and the biases alone.
  bool NoNetwork(const v1::Tower& tower) {
    return Unset("tower.in_bn", tower.has_in_bn(), "without input") &&
           Unset("tower.layers", !tower.layers().empty(), "without input") &&
           Unset("tower.head_bias", tower.head_bias(), "without input: use global_bias") &&
           (tower.classes() == 1 ||
            Fail("tower.classes", tower.classes(), " is not accepted; accepted: 1 (without input)")) &&
           Unset("tower.positive_class", tower.positive_class() != 0, "for classes = 1");
  }

  bool IdBiases(const v1::Tower& tower) {
    for (int i = 0; i < tower.id_biases_size(); ++i) {
      if (!IdBias("tower." + At("id_biases", i), tower.id_biases(i))) return false;
    }
    return true;
  }

  bool IdBias(const std::string& path, const v1::Tower::IdBias& bias) {
    ResolvedSpec::IdBias out;
    if (!Find(path + ".feature", bias.feature(), features_, "feature", out.feature) ||
        !Find(path + ".table", bias.table(), tables_, "table", out.table)) {
      return false;
    }
    const v1::Feature& feature = spec().features(out.feature);
    if (feature.kind() != v1::ID || feature.scope() == v1::SEQUENCE) {
      return Fail(path + ".feature", "\"", feature.name(), "\" must be an ID feature of scope USER or CANDIDATE");
    }
    if (spec().tables(out.table).dim() != 1) {
      return Fail(path + ".table", "dim ", spec().tables(out.table).dim(), ", expected 1");
    }
    out_.id_biases.push_back(out);
    return true;
  }

  // --- Vectors and terms ----------------------------------------------------------------------------------------------

  struct VectorInfo {
    ResolvedSpec::VectorKind kind;
    int index;
    bool per_candidate;
    size_t width;
  };

  void AddVector(const std::string& name, VectorInfo info) { vectors_.emplace(name, info); }

  // Attentions, pools, interactions and pre-towers share one space of names with the slots.
  bool AddVector(const std::string& path, const std::string& name, VectorInfo info) {
    if (slots_.contains(name) || !vectors_.emplace(name, info).second) {
      return Fail(path + ".name", "\"", name,
                  "\" is there twice (slots, attentions, sequence_pools, "
                  "interactions and pre_towers share one space of names)");
    }
    return true;
  }

  bool Terms(const std::string& path, const google::protobuf::RepeatedPtrField<v1::Term>& terms,
             ResolvedSpec::Network& out) {
    if (terms.empty()) return Fail(path, "at least one term", path == "tower.input" ? ", or a tower.wide" : "");
    if (!Count(path, terms.size())) return false;
    for (int i = 0; i < terms.size(); ++i) {
      const std::string at = absl::StrCat(path, "[", i, "]");
      ResolvedSpec::Term term;
      term.is_product = terms[i].has_b();
      if (!Vector(at + ".a", terms[i].a(), term.a) || (term.is_product && !Vector(at + ".b", terms[i].b(), term.b))) {
        return false;
      }
      const size_t b_width = term.b.used();
      if (term.is_product && term.width() != b_width) {
        return Fail(at, "product of vectors of width ", term.width(), " and ", b_width);
      }
      out.in_width += term.width();
      out.input.push_back(term);
    }
    return Size(path, static_cast<int64_t>(out.in_width), kMaxWidth);
  }

  bool Vectors(const std::string& path, const google::protobuf::RepeatedPtrField<v1::VectorRef>& refs,
               std::vector<ResolvedSpec::Vector>& out) {
    if (!Count(path, refs.size())) return false;
    out.resize(refs.size());
    for (int i = 0; i < refs.size(); ++i) {
      if (!Vector(absl::StrCat(path, "[", i, "]"), refs[i], out[i])) return false;
    }
    return true;
  }

  bool Vector(const std::string& path, const v1::VectorRef& ref, ResolvedSpec::Vector& out) {
    const auto it = vectors_.find(ref.name());
    if (it == vectors_.end()) {
      return Fail(path + ".name", "no vector \"", ref.name(), "\"",
                  slots_.contains(ref.name()) ? ": a slot of scope SEQUENCE is pooled first" : "");
    }
    const VectorInfo& info = it->second;
    out = {info.kind, info.index, info.per_candidate, info.width, ref.begin(), ref.end() == 0 ? info.width : ref.end()};
    return (out.begin < out.end && out.end <= info.width) ||
           Fail(path, "[", out.begin, ", ", out.end, ") of \"", ref.name(), "\", whose width is ", info.width);
  }

  ResolvedSpec out_;
  absl::Status status_;
  NameIndex id_maps_, tables_, side_tables_, features_, sequences_, slots_;
  absl::flat_hash_map<std::string, VectorInfo> vectors_;
};

}  // namespace

int64_t RowsOf(const v1::IdMap& map) {
  switch (map.kind_case()) {
    case v1::IdMap::kIdentity:
      return map.identity().size();
    case v1::IdMap::kModulo:
      return map.modulo().size();
    case v1::IdMap::kHash:
      return map.hash().size();
    default:
      return -1;
  }
}

absl::StatusOr<ResolvedSpec> ResolveSpec(v1::ModelSpec spec) { return Resolver(std::move(spec)).Run(); }

std::string TensorName(const v1::Table& table) {
  return table.tensor().empty() ? absl::StrCat("table.", table.name()) : table.tensor();
}

}  // namespace din
