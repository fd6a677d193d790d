#include "trainer/dataset.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

namespace din {

void DatasetBuilder::AddItem(int64_t id, std::string_view title, std::string_view category) {
  if (!item_index_.try_emplace(id, static_cast<int32_t>(items_.size())).second) return;
  const auto [it, is_new] =
      category_index_.try_emplace(std::string(category), static_cast<int32_t>(categories_.size()));
  if (is_new) categories_.emplace_back(category);
  items_.push_back({.id = id, .category = it->second, .title = std::string(title)});
}

bool DatasetBuilder::AddEvent(int64_t user, int64_t item, float value, int64_t time) {
  const auto known = item_index_.find(item);
  if (known == item_index_.end()) return false;
  const auto [it, is_new] = user_index_.try_emplace(user, static_cast<int32_t>(user_ids_.size()));
  if (is_new) user_ids_.push_back(user);
  rows_.push_back({it->second, {.item = known->second, .value = value, .time = time}});
  return true;
}

absl::StatusOr<Dataset> DatasetBuilder::Build() && {
  if (rows_.empty()) return absl::InvalidArgumentError("data: no events");
  std::stable_sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
    return std::pair(a.user, a.event.time) < std::pair(b.user, b.event.time);
  });

  Dataset data;
  data.user_ids = std::move(user_ids_);
  data.categories = std::move(categories_);
  std::vector<int32_t> new_index(items_.size(), -1);
  for (const Row& row : rows_) {
    int32_t& index = new_index[row.event.item];
    if (index < 0) {
      index = static_cast<int32_t>(data.items.size());
      data.items.push_back(std::move(items_[row.event.item]));
    }
  }
  data.user_begin.assign(1, 0);
  for (const Row& row : rows_) {
    // Users are numbered by first appearance, so the sorted rows meet them in order and without gaps.
    if (static_cast<size_t>(row.user) == data.user_begin.size()) data.user_begin.push_back(data.events.size());
    data.events.push_back(row.event);
    data.events.back().item = new_index[row.event.item];
  }
  data.user_begin.push_back(data.events.size());
  return data;
}

}  // namespace din
