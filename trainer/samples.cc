#include "trainer/samples.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

// Which items the user at hand has touched, without clearing a vector of all items for every user.
class TouchedItems {
 public:
  explicit TouchedItems(size_t items) : owner_(items, -1) {}

  void Begin(int32_t user) {
    user_ = user;
    count_ = 0;
  }
  // False when the user had touched it already.
  bool Add(int32_t item) {
    if (owner_[item] == user_) return false;
    owner_[item] = user_;
    ++count_;
    return true;
  }
  bool Has(int32_t item) const { return owner_[item] == user_; }
  bool HasAll() const { return count_ == owner_.size(); }

 private:
  std::vector<int32_t> owner_;
  int32_t user_ = -1;
  size_t count_ = 0;
};

class Sampler {
 public:
  Sampler(const Dataset& data, const SampleOptions& options)
      : data_(data), options_(options), random_(options.seed), touched_(data.items.size()) {}

  Split Make() {
    const std::vector<int32_t> users = ShuffledUsers();
    if (options_.protocol == Protocol::kImpressions) {
      Impressions(users);
    } else {
      for (const int32_t user : users) {
        if (options_.protocol == Protocol::kNextItem) {
          NextItem(user);
        } else {
          Ratings(user);
        }
        ++users_done_;
      }
    }
    const auto most = static_cast<size_t>(options_.most_training);
    if (most > 0 && split_.train.size() > most) {
      std::shuffle(split_.train.begin(), split_.train.end(), random_);
      split_.train.resize(most);
    }
    return std::move(split_);
  }

 private:
  // Which users are held out (and, for kRatings, tested) must not depend on the order of the file.
  std::vector<int32_t> ShuffledUsers() {
    std::vector<int32_t> users(data_.users());
    for (size_t i = 0; i < users.size(); ++i) users[i] = static_cast<int32_t>(i);
    std::shuffle(users.begin(), users.end(), random_);
    return users;
  }

  void NextItem(int32_t user) {
    const auto events = data_.EventsOf(user);
    if (events.size() < 3) return;
    touched_.Begin(user);
    std::vector<bool> is_first;
    for (const Event& event : events) is_first.push_back(touched_.Add(event.item));
    for (size_t k = 1; k < events.size(); ++k) {
      if (!is_first[k]) continue;
      const bool is_test = k + 1 == events.size();
      std::vector<Sample>& out = is_test ? split_.test : TrainOrHeldOut(0.0);
      const Sample positive{user, static_cast<int32_t>(k), events[k].item, 1, events[k].row};
      out.push_back(positive);
      for (int i = 0; i < (is_test ? options_.test_negatives : options_.negatives) && !touched_.HasAll(); ++i) {
        out.push_back(positive);
        out.back().item = Untouched();
        out.back().label = 0;
      }
    }
  }

  void Ratings(int32_t user) {
    constexpr double kTestUsers = 0.2;
    const bool is_test = users_done_ < kTestUsers * data_.users();
    const auto events = data_.EventsOf(user);
    touched_.Begin(user);
    for (size_t k = 0; k < events.size(); ++k) {
      if (!touched_.Add(events[k].item) || k == 0) continue;
      std::vector<Sample>& out = is_test ? split_.test : TrainOrHeldOut(kTestUsers);
      out.push_back({user, static_cast<int32_t>(k), events[k].item, events[k].value >= 4 ? 1.0f : 0.0f, events[k].row});
    }
  }

  void Impressions(const std::vector<int32_t>& users) {
    constexpr double kTestPart = 0.2;
    const std::span<const Impression> shown(data_.impressions);
    size_t test = shown.size() - static_cast<size_t>(kTestPart * static_cast<double>(shown.size()));
    // All of one moment go the same way.
    while (test > 0 && test < shown.size() && shown[test].time == shown[test - 1].time) --test;
    std::vector<bool> is_held_out(data_.users());
    const auto held_out = static_cast<size_t>(options_.held_out_users * static_cast<double>(users.size()));
    for (size_t i = 0; i < held_out; ++i) is_held_out[users[i]] = true;
    for (size_t i = 0; i < shown.size(); ++i) {
      const Impression& s = shown[i];
      std::vector<Sample>& out = i >= test ? split_.test : is_held_out[s.user] ? split_.held_out : split_.train;
      out.push_back({s.user, s.position, s.item, s.label, s.row});
    }
  }

  // The users after the first `test_users` of the shuffled order choose the epoch, the rest train.
  std::vector<Sample>& TrainOrHeldOut(double test_users) {
    const double limit = test_users + (1 - test_users) * options_.held_out_users;
    return users_done_ < limit * data_.users() ? split_.held_out : split_.train;
  }

  int32_t Untouched() {
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(data_.items.size()) - 1);
    for (;;) {
      const int32_t item = any(random_);
      if (!touched_.Has(item)) return item;
    }
  }

  const Dataset& data_;
  const SampleOptions& options_;
  std::mt19937_64 random_;
  TouchedItems touched_;
  size_t users_done_ = 0;
  Split split_;
};

}  // namespace

absl::StatusOr<Split> MakeSamples(const Dataset& data, const SampleOptions& options) {
  if (options.protocol == Protocol::kImpressions && data.impressions.empty()) {
    return absl::InvalidArgumentError("samples: the data has no labels, so it is no log of impressions");
  }
  const auto no_value = [](const Event& event) { return event.value == 0; };
  if (options.protocol == Protocol::kRatings && std::ranges::all_of(data.events, no_value)) {
    return absl::InvalidArgumentError("samples: the data has no ratings");
  }
  Split split = Sampler(data, options).Make();
  const std::pair<const std::vector<Sample>*, const char*> parts[] = {{&split.train, "training"},
                                                                      {&split.test, "test"}};
  for (const auto& [samples, name] : parts) {
    if (samples->empty()) {
      return absl::InvalidArgumentError(absl::StrCat("samples: none for the ", name, " part, of ", data.users(),
                                                     " users and ", data.events.size(), " events"));
    }
  }
  return split;
}

std::span<const Event> HistoryOf(const Dataset& data, const Sample& sample, int max_history, size_t sequence) {
  if (data.streams.empty()) {
    const int32_t begin = std::max(0, sample.position - max_history);
    return data.EventsOf(sample.user).subspan(begin, sample.position - begin);
  }
  const Stream& stream = data.streams[sequence];
  const auto all =
      std::span(stream.events)
          .subspan(stream.user_begin[sample.user], stream.user_begin[sample.user + 1] - stream.user_begin[sample.user]);
  const auto end = std::ranges::lower_bound(all, sample.position, {}, &Event::order) - all.begin();
  const auto begin = std::max<ptrdiff_t>(0, end - max_history);
  return all.subspan(begin, end - begin);
}

Occurrences CountOccurrences(const Dataset& data, std::span<const Sample> samples, int max_history) {
  Occurrences n(data.fields());
  std::vector<std::vector<size_t>> seen(data.fields());
  constexpr size_t kNever = SIZE_MAX;
  for (size_t f = 0; f < data.fields(); ++f) {
    n[f].resize(data.FieldRows(f));
    seen[f].assign(data.FieldRows(f), kNever);
  }
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto count = [&](size_t field, int32_t value) {
      if (std::exchange(seen[field][value], i) != i) ++n[field][value];
    };
    const auto see = [&](int32_t item) {
      for (size_t f = 0; f < data.item_fields(); ++f) count(f, data.ItemValue(item, f));
    };
    for (size_t s = 0; s < data.sequences(); ++s) {
      for (const Event& event : HistoryOf(data, samples[i], max_history, s)) see(event.item);
    }
    see(samples[i].item);
    for (size_t f = 0; f < data.side_fields(); ++f) {
      count(data.item_fields() + f, data.SideValue(samples[i].user, samples[i].row, f));
    }
  }
  return n;
}

}  // namespace din
