#include "bench/load/request_draw.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace din::load {
namespace {

using Rng = std::mt19937_64;

size_t Draw(const Length& length, Rng& rng) {
  double value = length.median;
  if (length.sigma > 0) value *= std::exp(std::normal_distribution<double>(0, length.sigma)(rng));
  return static_cast<size_t>(std::clamp(std::round(value), 1.0, static_cast<double>(length.most)));
}

// Ranks 0 .. size-1, the density of rank r in proportion to (r + 1)^-exponent: the continuous power law on
// [1, size + 1), inverted and rounded down.
class PowerLaw {
 public:
  PowerLaw(int64_t size, double exponent) : size_(size), exponent_(exponent) {}
  int64_t operator()(Rng& rng) const {
    const double u = std::uniform_real_distribution<double>(0, 1)(rng);
    const double end = static_cast<double>(size_) + 1;
    const double power = 1 - exponent_;
    const double x =
        std::abs(power) < 1e-9 ? std::pow(end, u) : std::pow(1 + u * (std::pow(end, power) - 1), 1 / power);
    return std::clamp<int64_t>(static_cast<int64_t>(x) - 1, 0, size_ - 1);
  }

 private:
  int64_t size_;
  double exponent_;
};

// Raw ids of one id map.
class IdSource {
 public:
  static absl::StatusOr<IdSource> Create(const v1::IdMap& map, const DrawOptions& options) {
    IdSource source(map, options);
    if (const auto given = options.ids.find(map.name()); given != options.ids.end()) {
      source.known_ = &given->second;
      source.size_ = static_cast<int64_t>(given->second.size());
    }
    if (source.size_ == 0) {
      return absl::InvalidArgumentError(absl::StrCat("id map \"", map.name(),
                                                     "\": the metadata do not list its ids; give them with --ids ",
                                                     map.name(), "=FILE, or whole requests with --requests FILE"));
    }
    // Any step that shares no factor with the size visits every row once.
    source.step_ = source.known_ != nullptr ? 1 : source.size_ * 0.618 + 1;
    while (std::gcd(source.step_, source.size_) != 1) ++source.step_;
    return source;
  }

  void AddTo(const v1::Feature& feature, Rng& rng, v1::Column& column) const {
    for (;;) {
      const bool unknown = share_unknown_ > 0 && std::bernoulli_distribution(share_unknown_)(rng);
      const std::string id = unknown ? Unknown(rng) : Known(rng);
      if (IsPadding(feature, id)) continue;
      int64_t number = 0;
      if (map_->id_type() == v1::STRING) {
        column.add_keys(id);
      } else if (absl::SimpleAtoi(id, &number)) {
        column.add_ids(number);
      }
      return;
    }
  }

 private:
  IdSource(const v1::IdMap& map, const DrawOptions& options) : map_(&map), exponent_(options.zipf) {
    switch (map.kind_case()) {
      case v1::IdMap::kIdentity:
        size_ = map.identity().size();
        first_ = map.identity().first();
        break;
      case v1::IdMap::kModulo:
        size_ = map.modulo().size();
        break;
      // As many ids as rows: a hash leaves some rows out and meets some twice, as real ids do.
      case v1::IdMap::kHash:
        size_ = map.hash().size();
        first_ = 1;
        break;
      default:
        break;
    }
    const auto rule = map.out_of_vocabulary();
    if (rule == v1::IdMap::ROW || rule == v1::IdMap::ZERO) share_unknown_ = options.out_of_vocabulary;
  }

  std::string Known(Rng& rng) const {
    const int64_t rank = PowerLaw(size_, exponent_)(rng);
    if (known_ != nullptr) return (*known_)[rank];
    const auto row = static_cast<int64_t>(static_cast<__int128>(rank) * step_ % size_);
    return absl::StrCat(first_ + row);
  }
  // No real catalogue reaches ids of this size.
  std::string Unknown(Rng& rng) const { return absl::StrCat(int64_t{1} << 62 | static_cast<int64_t>(rng() >> 8)); }
  static bool IsPadding(const v1::Feature& feature, const std::string& id) {
    const v1::Feature::Padding& padding = feature.padding();
    if (padding.kind_case() == v1::Feature::Padding::kId) return absl::StrCat(padding.id()) == id;
    return padding.kind_case() == v1::Feature::Padding::kKey && padding.key() == id;
  }

  const v1::IdMap* map_;
  const std::vector<std::string>* known_ = nullptr;
  int64_t size_ = 0;
  int64_t first_ = 0;
  int64_t step_ = 1;
  double exponent_;
  double share_unknown_ = 0;
};

class Drawer {
 public:
  Drawer(const v1::ModelSpec& spec, const DrawOptions& options) : spec_(spec), options_(options), rng_(options.seed) {}

  absl::Status Prepare(const v1::GetModelMetadataResponse& metadata) {
    std::set<std::string> sent;
    for (const auto& info : metadata.features()) {
      if (info.required() || options_.fields == DrawOptions::Fields::kAll) sent.insert(info.name());
    }
    for (const v1::Feature& feature : spec_.features()) {
      if (!sent.contains(feature.name())) continue;
      features_.push_back(&feature);
      if (feature.id_map().empty() || ids_.contains(feature.id_map())) continue;
      for (const v1::IdMap& map : spec_.id_maps()) {
        if (map.name() != feature.id_map()) continue;
        absl::StatusOr<IdSource> source = IdSource::Create(map, options_);
        if (!source.ok()) return source.status();
        ids_.emplace(map.name(), *source);
      }
    }
    return absl::OkStatus();
  }

  v1::ScoreRequest Next() {
    v1::ScoreRequest request;
    request.set_model(options_.model);
    request.set_top_k(options_.top_k);
    for (const v1::SequenceSpec& spec : spec_.sequences()) {
      v1::Sequence& sequence = *request.add_sequences();
      sequence.set_name(spec.name());
      const size_t rows = Draw(options_.behaviours, rng_);
      for (const v1::Feature* feature : features_) {
        if (feature->scope() == v1::SEQUENCE && feature->sequence() == spec.name()) {
          Fill(*feature, rows, *sequence.add_columns());
        }
      }
    }
    const size_t candidates = Draw(options_.candidates, rng_);
    for (const v1::Feature* feature : features_) {
      if (feature->scope() == v1::USER) Fill(*feature, 1, *request.add_features());
      if (feature->scope() == v1::CANDIDATE) Fill(*feature, candidates, *request.add_candidates());
    }
    // Also tells a reader of the request how many there are where no column does.
    for (size_t c = 0; c < candidates; ++c) request.add_candidate_ids(static_cast<int64_t>(c) + 1);
    return request;
  }

 private:
  void Fill(const v1::Feature& feature, size_t rows, v1::Column& column) {
    column.set_name(feature.name());
    switch (feature.kind()) {
      case v1::ID:
        for (size_t r = 0; r < rows; ++r) ids_.at(feature.id_map()).AddTo(feature, rng_, column);
        break;
      case v1::ID_LIST:
        FillLists(feature, rows, column);
        break;
      case v1::DENSE: {
        std::normal_distribution<float> value;
        for (size_t v = 0; v < rows * std::max(1u, feature.width()); ++v) column.add_values(value(rng_));
        break;
      }
      default:
        break;
    }
  }

  void FillLists(const v1::Feature& feature, size_t rows, v1::Column& column) {
    const bool with_offsets = feature.scope() != v1::USER;
    if (with_offsets) column.add_offsets(0);
    uint32_t end = 0;
    for (size_t r = 0; r < rows; ++r) {
      const size_t length = Draw(options_.list_ids, rng_);
      for (size_t i = 0; i < length; ++i) ids_.at(feature.id_map()).AddTo(feature, rng_, column);
      end += static_cast<uint32_t>(length);
      if (with_offsets) column.add_offsets(end);
    }
  }

  const v1::ModelSpec& spec_;
  const DrawOptions& options_;
  Rng rng_;
  std::vector<const v1::Feature*> features_;  // that are sent
  std::map<std::string, IdSource> ids_;       // by id map
};

std::string Describe(const char* what, const Length& length) {
  if (length.sigma == 0) return absl::StrFormat("%s %g", what, length.median);
  return absl::StrFormat("%s log-normal, median %g, sigma %g", what, length.median, length.sigma);
}

}  // namespace

std::string DrawOptions::Describe() const {
  return absl::StrFormat("drawn from the server's metadata: %s; %s; ids rank^-%g; %g %% out of vocabulary; seed %d",
                         load::Describe("candidates", candidates), load::Describe("behaviours", behaviours), zipf,
                         out_of_vocabulary * 100, seed);
}

absl::StatusOr<std::vector<v1::ScoreRequest>> DrawRequests(const v1::GetModelMetadataResponse& metadata,
                                                           const DrawOptions& options) {
  Drawer drawer(metadata.spec(), options);
  if (absl::Status status = drawer.Prepare(metadata); !status.ok()) return status;
  std::vector<v1::ScoreRequest> requests(options.count);
  std::ranges::generate(requests, [&] { return drawer.Next(); });
  return requests;
}

}  // namespace din::load
