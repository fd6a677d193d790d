// What happened: users, the items they touched in order of time, and what is known about the items.
//
// Raw ids become dense indices here, once; everything after works on indices. Immutable after Build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace din {

struct Event {
  int32_t item = 0;  // index into Dataset::items
  float value = 0;   // the rating, where there is one
  int64_t time = 0;  // unix seconds, or any number that orders a user's events
};

struct Item {
  int64_t id = 0;        // raw
  int32_t category = 0;  // index into Dataset::categories
  std::string title;     // for people; may be empty
};

struct Dataset {
  std::vector<Item> items;
  std::vector<std::string> categories;
  std::vector<int64_t> user_ids;   // raw
  std::vector<size_t> user_begin;  // users + 1 offsets into `events`
  std::vector<Event> events;       // by user; within a user by time, equal times in the order of the file

  size_t users() const { return user_ids.size(); }
  std::span<const Event> EventsOf(size_t user) const {
    return {events.data() + user_begin[user], user_begin[user + 1] - user_begin[user]};
  }
};

// Collects rows in any order. One thread.
class DatasetBuilder {
 public:
  // The first description of an item wins.
  void AddItem(int64_t id, std::string_view title, std::string_view category);
  // False, and nothing is added, when the item has not been described.
  bool AddEvent(int64_t user, int64_t item, float value, int64_t time);

  // Items without events are left out: nothing could be learnt about them. INVALID_ARGUMENT when there are no events.
  absl::StatusOr<Dataset> Build() &&;

 private:
  struct Row {
    int32_t user;
    Event event;
  };
  std::vector<Item> items_;
  absl::flat_hash_map<int64_t, int32_t> item_index_;
  std::vector<std::string> categories_;
  absl::flat_hash_map<std::string, int32_t> category_index_;
  std::vector<int64_t> user_ids_;
  absl::flat_hash_map<int64_t, int32_t> user_index_;
  std::vector<Row> rows_;
};

}  // namespace din
