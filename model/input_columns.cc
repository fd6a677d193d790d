#include "model/input_columns.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/key_index.h"
#include "model/status_macros.h"

namespace din {
namespace {

using Columns = google::protobuf::RepeatedPtrField<v1::Column>;

// Marks a sequence that the request has not named yet.
constexpr size_t kNotSent = std::numeric_limits<size_t>::max();

template <typename... Parts>
absl::Status Refuse(const std::string& path, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
}

// A name from a request, safe to print: as it is where it looks like one, else quoted and escaped.
std::string Printable(const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 64 &&
                     std::all_of(name.begin(), name.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  return plain ? name : SpellId(std::string_view(name));
}

// Levenshtein's distance of the first 64 bytes: enough to guess what was meant.
size_t EditDistance(std::string_view a, std::string_view b) {
  a = a.substr(0, 64);
  b = b.substr(0, 64);
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

// Remembers the closest of the names that it is shown.
class Nearest {
 public:
  explicit Nearest(std::string_view wanted) : wanted_(wanted) {}
  void Consider(const std::string& name) {
    const size_t distance = EditDistance(wanted_, name);
    if (distance >= distance_) return;
    distance_ = distance;
    nearest_ = name;
  }
  std::string Hint() const {
    return distance_ == kNotSent ? "the model has none here" : absl::StrCat("the nearest is \"", nearest_, "\"");
  }

 private:
  std::string_view wanted_;
  std::string nearest_;
  size_t distance_ = kNotSent;
};

std::string_view ContainerOf(v1::Scope scope) {
  return scope == v1::USER ? "features" : scope == v1::CANDIDATE ? "candidates" : "the columns of a sequence";
}

// --- One column ----------------------------------------------------------------------------------------------------

std::string SentKinds(const v1::Column& column) {
  std::string out;
  const auto add = [&](bool sent, const char* kind) {
    if (sent) absl::StrAppend(&out, out.empty() ? "" : " and ", kind);
  };
  add(!column.ids().empty(), "ids");
  add(!column.keys().empty(), "keys");
  add(!column.values().empty(), "values");
  return out;
}

absl::Status CheckType(const FeaturePlan& feature, const v1::Column& column) {
  const bool wants_values = feature.kind == v1::DENSE;
  const bool wants_keys = !wants_values && feature.id_type == v1::STRING;
  const bool wants_ids = !wants_values && !wants_keys;
  if ((!wants_ids && !column.ids().empty()) || (!wants_keys && !column.keys().empty()) ||
      (!wants_values && !column.values().empty())) {
    return Refuse(feature.path, SentKinds(column), " sent, expected ",
                  wants_values ? "values (DENSE)"
                  : wants_keys ? "keys (STRING)"
                               : "ids (INT64)");
  }
  if (column.offsets().empty()) return absl::OkStatus();
  if (feature.kind != v1::ID_LIST) {
    return Refuse(feature.path, "offsets sent, expected none (", v1::FeatureKind_Name(feature.kind), ")");
  }
  if (feature.scope == v1::USER) return Refuse(feature.path, "offsets sent, expected none: the column is the list");
  return absl::OkStatus();
}

size_t SentIds(const FeaturePlan& feature, const v1::Column& column) {
  return static_cast<size_t>(feature.id_type == v1::STRING ? column.keys_size() : column.ids_size());
}

absl::Status CheckFinite(const FeaturePlan& feature, const v1::Column& column) {
  for (int i = 0; i < column.values_size(); ++i) {
    if (!std::isfinite(column.values(i))) {
      return Refuse(absl::StrCat(feature.path, "[", i, "]"), column.values(i), " is not a finite number");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOffsets(const FeaturePlan& feature, const v1::Column& column) {
  const size_t ids = SentIds(feature, column);
  if (column.offsets().empty()) {
    return ids == 0 ? absl::OkStatus() : Refuse(feature.path, ids, " ids, but no offsets");
  }
  if (column.offsets(0) != 0) return Refuse(feature.path, "offsets start at ", column.offsets(0), ", expected 0");
  for (int i = 1; i < column.offsets_size(); ++i) {
    if (column.offsets(i) < column.offsets(i - 1)) {
      return Refuse(feature.path, "offsets[", i, "] = ", column.offsets(i), " < ", column.offsets(i - 1), " before it");
    }
  }
  const size_t end = column.offsets(column.offsets_size() - 1);
  return end == ids ? absl::OkStatus() : Refuse(feature.path, "offsets end at ", end, ", but there are ", ids, " ids");
}

// Rows of a column of scope CANDIDATE or SEQUENCE; a rest that is no whole row is for the caller to refuse.
size_t RowsOf(const FeaturePlan& feature, const v1::Column& column) {
  switch (feature.kind) {
    case v1::DENSE:
      return static_cast<size_t>(column.values_size()) / feature.width;
    case v1::ID_LIST:
      return static_cast<size_t>(std::max(0, column.offsets_size() - 1));
    default:
      return SentIds(feature, column);
  }
}

absl::Status CheckUserColumn(const FeaturePlan& feature, const v1::Column& column) {
  if (feature.kind == v1::ID && SentIds(feature, column) != 1) {
    return Refuse(feature.path, SentIds(feature, column), " ids, expected 1");
  }
  if (feature.kind != v1::DENSE) return absl::OkStatus();
  if (static_cast<size_t>(column.values_size()) != feature.width) {
    return Refuse(feature.path, column.values_size(), " values, expected ", feature.width);
  }
  return CheckFinite(feature, column);
}

absl::Status CheckRows(const FeaturePlan& feature, const v1::Column& column) {
  if (feature.kind == v1::ID_LIST) return CheckOffsets(feature, column);
  if (feature.kind != v1::DENSE) return absl::OkStatus();
  if (static_cast<size_t>(column.values_size()) % feature.width != 0) {
    return Refuse(feature.path, column.values_size(), " values, expected a multiple of the width ", feature.width);
  }
  return CheckFinite(feature, column);
}

// --- All columns of a scope ----------------------------------------------------------------------------------------

class Matcher {
 public:
  Matcher(const InputPlan& plan, const InputLimits& limits, ScoringInput& out)
      : plan_(plan), limits_(limits), out_(out) {}

  absl::Status Run(const RequestColumns& request) {
    out_.sent.assign(plan_.features.size(), nullptr);
    out_.sequences.resize(plan_.sequences.size());
    for (ScoringInput::Sequence& sequence : out_.sequences) sequence.sent = kNotSent;
    size_t users = 0;
    DIN_RETURN_IF_ERROR(Group(request.features, {v1::USER, kNone, features_, 1, ""}, users));
    DIN_RETURN_IF_ERROR(
        Group(request.candidates, {v1::CANDIDATE, kNone, candidates_, limits_.candidates, ""}, out_.candidates));
    if (out_.candidates == 0) return Refuse(candidates_, "0, expected at least 1");
    for (const v1::Sequence& sequence : request.sequences) DIN_RETURN_IF_ERROR(Sequence(sequence));
    return CheckNothingMissing();
  }

 private:
  struct Expected {
    v1::Scope scope;
    int sequence;
    const std::string& path;
    size_t limit;
    const char* unit;  // of `limit`
  };

  // `rows`: what all columns agree on.
  absl::Status Group(const Columns& columns, const Expected& expected, size_t& rows) {
    const FeaturePlan* first = nullptr;
    rows = 0;
    for (const v1::Column& column : columns) {
      int index = kNone;
      DIN_RETURN_IF_ERROR(FindFeature(column, expected, index));
      const FeaturePlan& feature = plan_.features[index];
      if (out_.sent[index] != nullptr) return Refuse(feature.path, "sent twice");
      out_.sent[index] = &column;
      DIN_RETURN_IF_ERROR(CheckType(feature, column));
      if (feature.kind == v1::ID_LIST && SentIds(feature, column) > limits_.list_ids) {
        return Refuse(feature.path, SentIds(feature, column), " ids > limit ", limits_.list_ids);
      }
      if (expected.scope == v1::USER) {
        DIN_RETURN_IF_ERROR(CheckUserColumn(feature, column));
        continue;
      }
      const size_t n = RowsOf(feature, column);
      if (n > expected.limit) return Refuse(expected.path, n, expected.unit, " > limit ", expected.limit);
      DIN_RETURN_IF_ERROR(CheckRows(feature, column));
      if (first == nullptr) {
        first = &feature;
        rows = n;
      } else if (n != rows) {
        return Refuse(feature.path, n, " rows, ", first->name, " has ", rows);
      }
    }
    return absl::OkStatus();
  }

  absl::Status FindFeature(const v1::Column& column, const Expected& expected, int& index) const {
    const auto it = plan_.feature_by_name.find(column.name());
    if (it == plan_.feature_by_name.end()) return UnknownColumn(column.name(), expected);
    index = it->second;
    const FeaturePlan& feature = plan_.features[index];
    if (feature.scope == expected.scope && feature.sequence == expected.sequence) return absl::OkStatus();
    const std::string path = absl::StrCat(expected.path, ".", feature.name);
    if (feature.scope == v1::SEQUENCE) {
      return Refuse(path, "belongs to sequence \"", plan_.sequences[feature.sequence].name, "\"");
    }
    return Refuse(path, "has scope ", v1::Scope_Name(feature.scope), ", expected in ",
                  std::string(ContainerOf(feature.scope)));
  }

  absl::Status UnknownColumn(const std::string& name, const Expected& expected) const {
    Nearest nearest(name);
    for (const FeaturePlan& feature : plan_.features) {
      if (feature.scope == expected.scope && feature.sequence == expected.sequence) nearest.Consider(feature.name);
    }
    return Refuse(absl::StrCat(expected.path, ".", Printable(name)), "no such feature; ", nearest.Hint());
  }

  absl::Status Sequence(const v1::Sequence& sequence) {
    const auto it = plan_.sequence_by_name.find(sequence.name());
    if (it == plan_.sequence_by_name.end()) {
      Nearest nearest(sequence.name());
      for (const SequencePlan& s : plan_.sequences) nearest.Consider(s.name);
      return Refuse(absl::StrCat("sequences.", Printable(sequence.name())), "no such sequence; ", nearest.Hint());
    }
    const SequencePlan& plan = plan_.sequences[it->second];
    size_t& sent = out_.sequences[it->second].sent;
    if (sent != kNotSent) return Refuse(plan.path, "sent twice");
    return Group(sequence.columns(), {v1::SEQUENCE, it->second, plan.path, limits_.behaviours, " behaviours"}, sent);
  }

  absl::Status CheckNothingMissing() const {
    for (size_t s = 0; s < plan_.sequences.size(); ++s) {
      if (out_.sequences[s].sent == kNotSent) {
        return Refuse(plan_.sequences[s].path, "missing; send it empty for a user without behaviours");
      }
    }
    for (size_t f = 0; f < plan_.features.size(); ++f) {
      const FeaturePlan& feature = plan_.features[f];
      const bool may_be_absent =
          feature.side != nullptr || (feature.scope == v1::SEQUENCE && out_.sequences[feature.sequence].sent == 0);
      if (out_.sent[f] == nullptr && !may_be_absent) return Refuse(feature.path, "missing");
    }
    return absl::OkStatus();
  }

  const InputPlan& plan_;
  const InputLimits& limits_;
  ScoringInput& out_;
  const std::string features_ = "features";  // short enough not to allocate
  const std::string candidates_ = "candidates";
};

}  // namespace

absl::Status MatchColumns(const InputPlan& plan, const RequestColumns& request, const InputLimits& limits,
                          ScoringInput& out) {
  return Matcher(plan, limits, out).Run(request);
}

}  // namespace din
