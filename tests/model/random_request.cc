#include "tests/model/random_request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/resolved_spec.h"
#include "model/tensor_reader.h"

namespace din::testing {
namespace {

// Keys of a vocabulary or a side table: integers or strings, found by looking at each.
class Keys {
 public:
  static Keys Read(const TensorMap& tensors, const std::string& name, v1::IdType type) {
    TensorReader reader(tensors);
    Keys keys;
    if (type == v1::INT64) {
      keys.numbers_ = OrDie(reader.IntegersInPlace(name, -1));
    } else {
      keys.texts_ = OrDie(reader.StringsInPlace(name, -1));
    }
    return keys;
  }

  size_t size() const { return numbers_.size() + texts_.size(); }
  RawId operator[](size_t i) const {
    return numbers_.size() > 0 ? RawId{numbers_[i], ""} : RawId{0, std::string(texts_[i])};
  }
  bool Has(const RawId& id) const {
    for (size_t i = 0; i < size(); ++i) {
      if ((*this)[i] == id) return true;
    }
    return false;
  }

 private:
  IntegerList numbers_;
  StringList texts_;
};

RawId AnyId(Rng& rng, v1::IdType type) {
  if (type == v1::STRING) return {0, absl::StrCat("id-", Below(rng, 5000))};
  return {static_cast<int64_t>(Below(rng, 4000)) - 2000, ""};
}

Keys VocabularyOf(const v1::IdMap& map, const TensorMap& tensors) {
  return Keys::Read(tensors, absl::StrCat("vocab.", map.name(), ".keys"), map.id_type());
}

bool AllowsUnknown(const v1::IdMap& map) {
  return map.out_of_vocabulary() == v1::IdMap::ROW || map.out_of_vocabulary() == v1::IdMap::ZERO;
}

bool Knows(const v1::IdMap& map, const TensorMap& tensors, const RawId& id) {
  if (map.has_identity()) {
    return id.number >= map.identity().first() && id.number < map.identity().first() + map.identity().size();
  }
  if (!map.has_vocabulary()) return true;
  return VocabularyOf(map, tensors).Has(id);
}

class RequestBuilder {
 public:
  RequestBuilder(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size)
      : rng_(rng), resolved_(OrDie(ResolveSpec(spec))), tensors_(tensors), size_(size) {}

  v1::GoldenCase Build() {
    v1::GoldenCase request;
    for (const v1::SequenceSpec& sequence : spec().sequences()) request.add_sequences()->set_name(sequence.name());
    for (int f = 0; f < spec().features_size(); ++f) {
      const v1::Feature& feature = spec().features(f);
      if (feature.has_side() && Chance(rng_, 0.7)) continue;
      switch (feature.scope()) {
        case v1::USER:
          Fill(f, 1, *request.add_features());
          break;
        case v1::CANDIDATE:
          Fill(f, size_.candidates, *request.add_candidates());
          break;
        default:
          Fill(f, size_.behaviours, *request.mutable_sequences(resolved_.features[f].sequence)->add_columns());
          break;
      }
    }
    return request;
  }

 private:
  const v1::ModelSpec& spec() const { return resolved_.spec; }

  void Fill(int f, size_t rows, v1::Column& column) {
    const v1::Feature& feature = spec().features(f);
    column.set_name(feature.name());
    if (feature.kind() == v1::ID_LIST && feature.scope() != v1::USER) column.add_offsets(0);
    for (size_t row = 0; row < rows; ++row) {
      if (feature.kind() == v1::DENSE) {
        for (size_t i = 0; i < feature.width(); ++i) column.add_values(static_cast<float>(Normal(rng_, 1)));
        continue;
      }
      const size_t ids = feature.kind() == v1::ID ? 1 : Below(rng_, size_.list_ids + 1);
      for (size_t i = 0; i < ids; ++i) AddId(f, column);
      if (feature.kind() == v1::ID_LIST && feature.scope() != v1::USER) {
        column.add_offsets(static_cast<uint32_t>(column.ids_size() + column.keys_size()));
      }
    }
  }

  void AddId(int f, v1::Column& column) {
    const RawId id = DrawId(f);
    if (resolved_.features[f].id_type == v1::STRING) {
      column.add_keys(id.text);
    } else {
      column.add_ids(id.number);
    }
  }

  RawId DrawId(int f) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      RawId id = Propose(f);
      if (Accepts(f, id)) return id;
    }
    Die("no id for " + spec().features(f).name());
  }

  RawId Propose(int f) {
    const v1::Feature& feature = spec().features(f);
    const v1::IdMap& map = spec().id_maps(resolved_.features[f].id_map);
    if (feature.has_padding() && !feature.padding().has_zero_vector() && Chance(rng_, 0.2)) {
      return {feature.padding().id(), feature.padding().key()};
    }
    if (AllowsUnknown(map) && Chance(rng_, 0.2)) return AnyId(rng_, map.id_type());
    for (const ResolvedSpec::Feature& other : resolved_.features) {
      if (other.side_key != f || Chance(rng_, 0.5)) continue;
      return SideKey(spec().side_tables(other.side_table));
    }
    return KnownId(rng_, map, tensors_);
  }

  // Without a tensor of keys they are 0 .. rows - 1.
  bool HasKeys(const v1::SideTable& table) const {
    return table.key_type() == v1::STRING || tensors_.count(absl::StrCat("side.", table.name(), ".keys")) > 0;
  }

  Keys KeysOf(const v1::SideTable& table) const {
    return Keys::Read(tensors_, absl::StrCat("side.", table.name(), ".keys"), table.key_type());
  }

  RawId SideKey(const v1::SideTable& table) {
    const size_t entry = Below(rng_, table.rows());
    return HasKeys(table) ? KeysOf(table)[entry] : RawId{static_cast<int64_t>(entry), ""};
  }

  bool HasKey(const v1::SideTable& table, const RawId& id) const {
    return HasKeys(table) ? KeysOf(table).Has(id) : id.number >= 0 && id.number < table.rows();
  }

  bool Accepts(int f, const RawId& id) {
    const v1::IdMap& map = spec().id_maps(resolved_.features[f].id_map);
    if (map.out_of_vocabulary() == v1::IdMap::ERROR && !Knows(map, tensors_, id)) return false;
    for (const ResolvedSpec::Feature& other : resolved_.features) {
      if (other.side_key != f) continue;
      const v1::SideTable& table = spec().side_tables(other.side_table);
      if (table.missing_key() != v1::SideTable::MISSING_KEY_ERROR) continue;
      if (!HasKey(table, id)) return false;
    }
    return true;
  }

  Rng& rng_;
  const ResolvedSpec resolved_;
  const TensorMap& tensors_;
  const RequestSize size_;
};

}  // namespace

RawId KnownId(Rng& rng, const v1::IdMap& map, const TensorMap& tensors) {
  if (map.has_identity()) {
    return {map.identity().first() + static_cast<int64_t>(Below(rng, map.identity().size())), ""};
  }
  if (!map.has_vocabulary()) return AnyId(rng, map.id_type());
  const Keys keys = VocabularyOf(map, tensors);
  return keys[Below(rng, keys.size())];
}

int64_t RowsNeeded(const v1::IdMap& map, const TensorMap& tensors) {
  int64_t rows = RowsOf(map);
  if (map.has_vocabulary()) {
    rows = map.vocabulary().first_row() + static_cast<int64_t>(VocabularyOf(map, tensors).size());
  }
  return map.out_of_vocabulary() == v1::IdMap::ROW ? std::max(rows, map.out_of_vocabulary_row() + 1) : rows;
}

v1::GoldenCase RandomRequest(Rng& rng, const v1::ModelSpec& spec, const TensorMap& tensors, const RequestSize& size) {
  return RequestBuilder(rng, spec, tensors, size).Build();
}

ScoringInput DecodeOrDie(const InputDecoder& decoder, const v1::GoldenCase& request) {
  ScoringInput input;
  const absl::Status decoded =
      decoder.Decode({request.features(), request.sequences(), request.candidates()}, InputLimits(), input);
  if (!decoded.ok()) Die(decoded.ToString());
  return input;
}

std::vector<float> ScoresOf(const DinModel& model, const v1::GoldenCase& request) {
  const ScoringInput input = DecodeOrDie(model.decoder(), request);
  std::vector<float> scores(input.candidates);
  Workspace workspace;
  model.Score(input, workspace, scores);
  return scores;
}

reference::Scores<double> ScoreRandomRequests(Rng& rng, const RawModel& model, size_t requests,
                                              const RequestSize& size) {
  const ResolvedSpec resolved = OrDie(ResolveSpec(model.spec));
  TensorReader reader(model.tensors);
  const auto decoder = OrDie(InputDecoder::Create(resolved, reader));
  reference::Scores<double> all;
  all.weights.resize(model.spec.attentions_size());
  for (size_t r = 0; r < requests; ++r) {
    const ScoringInput input = DecodeOrDie(*decoder, RandomRequest(rng, model.spec, model.tensors, size));
    const auto scores = OrDie(reference::Score<double>(resolved, model.tensors, input));
    all.logits.insert(all.logits.end(), scores.logits.begin(), scores.logits.end());
    all.scores.insert(all.scores.end(), scores.scores.begin(), scores.scores.end());
    for (size_t g = 0; g < scores.weights.size(); ++g) {
      all.weights[g].insert(all.weights[g].end(), scores.weights[g].begin(), scores.weights[g].end());
    }
  }
  return all;
}

}  // namespace din::testing
