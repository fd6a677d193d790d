#include "trainer/samples.h"

#include <algorithm>
#include <random>

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
    for (int32_t user : ShuffledUsers()) {
      if (options_.protocol == Protocol::kNextItem) {
        NextItem(user);
      } else {
        Ratings(user);
      }
      ++users_done_;
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
      const Sample positive{user, static_cast<int32_t>(k), events[k].item, 1};
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
      out.push_back({user, static_cast<int32_t>(k), events[k].item, events[k].value >= 4 ? 1.0f : 0.0f});
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

Split MakeSamples(const Dataset& data, const SampleOptions& options) { return Sampler(data, options).Make(); }

std::span<const Event> HistoryOf(const Dataset& data, const Sample& sample, int max_history) {
  const int32_t begin = std::max(0, sample.position - max_history);
  return data.EventsOf(sample.user).subspan(begin, sample.position - begin);
}

Occurrences CountOccurrences(const Dataset& data, std::span<const Sample> samples, int max_history) {
  Occurrences n{std::vector<uint32_t>(data.items.size()), std::vector<uint32_t>(data.categories.size())};
  constexpr size_t kNever = SIZE_MAX;
  std::vector<size_t> item_seen(data.items.size(), kNever);
  std::vector<size_t> category_seen(data.categories.size(), kNever);
  const auto count = [](int32_t index, size_t sample, std::vector<size_t>& seen, std::vector<uint32_t>& counts) {
    if (seen[index] == sample) return;
    seen[index] = sample;
    ++counts[index];
  };
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto see = [&](int32_t item) {
      count(item, i, item_seen, n.items);
      count(data.items[item].category, i, category_seen, n.categories);
    };
    for (const Event& event : HistoryOf(data, samples[i], max_history)) see(event.item);
    see(samples[i].item);
  }
  return n;
}

}  // namespace din
