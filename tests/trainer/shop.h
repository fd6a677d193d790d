// Small data sets for the trainer's tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "trainer/dataset.h"

namespace din {

// One user for each list of raw item ids, one second apart. Item i has category "c<i % 3>" and title "item <i>".
inline Dataset ShopOf(const std::vector<std::vector<int64_t>>& users, int64_t items) {
  DatasetBuilder builder;
  for (int64_t i = 0; i < items; ++i) {
    builder.AddItem(std::to_string(i), "item " + std::to_string(i), "c" + std::to_string(i % 3));
  }
  for (size_t user = 0; user < users.size(); ++user) {
    for (size_t k = 0; k < users[user].size(); ++k) {
      builder.AddEvent({.user = std::to_string(100 + user),
                        .item = std::to_string(users[user][k]),
                        .value = 1.0f + static_cast<float>(users[user][k] % 5),
                        .time = static_cast<int64_t>(k)});
    }
  }
  return std::move(builder).Build().value();
}

// Users who keep to one of the three categories: what a model that looks at the history can learn.
inline Dataset LoyalShop(size_t users, size_t events, int64_t items, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::vector<int64_t>> lists(users);
  for (size_t user = 0; user < users; ++user) {
    std::vector<int64_t> mine;
    for (int64_t i = static_cast<int64_t>(user % 3); i < items; i += 3) mine.push_back(i);
    std::shuffle(mine.begin(), mine.end(), random);
    mine.resize(std::min(mine.size(), events));
    lists[user] = mine;
  }
  return ShopOf(lists, items);
}

}  // namespace din
