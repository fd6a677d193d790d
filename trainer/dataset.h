// What happened: users, the items they touched in order of time, what was shown to them, and what is known about both.
//
// Raw ids become dense indices here, once; everything after works on indices. Immutable once it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace din {

// One thing that a user did.
struct Event {
  int32_t item = 0;    // index into Dataset::items
  float value = 0;     // the rating, where there is one
  int64_t time = 0;    // unix seconds, or any number that orders a user's events
  int32_t order = 0;   // place among all events of the user
  int32_t action = 0;  // index into Dataset::actions
  uint32_t row = 0;    // of Dataset::context
};

// One item that was shown to a user, clicked or not (impression logs).
struct Impression {
  int32_t user = 0;
  int32_t item = 0;
  float label = 0;       // 0 or 1
  int32_t position = 0;  // how many events of the user have an earlier time
  int64_t time = 0;
  uint32_t row = 0;  // of Dataset::context
};

struct Item {
  std::string id;     // raw
  std::string title;  // for people; may be empty
};

// A feature of kind ID and the values that occur; indices into `values` stand for them.
struct Field {
  std::string name;
  std::vector<std::string> values;
};

// A part of the events that is a behaviour list of its own (liked, disliked; clicked, bought).
struct Stream {
  std::string name;
  std::vector<size_t> user_begin;  // users + 1 offsets into `events`
  std::vector<Event> events;       // as in Dataset
};

struct Dataset {
  std::vector<Item> items;
  bool integer_ids = false;              // every item's id is a decimal int64
  std::vector<Field> categories;         // what is known of items
  std::vector<int32_t> item_categories;  // [items, categories]
  std::vector<std::string> user_ids;     // raw
  std::vector<Field> user_fields;
  std::vector<int32_t> user_values;   // [users, user fields]
  std::vector<Field> context_fields;  // what is known of the moment
  std::vector<int32_t> context;       // [rows, context fields]
  std::vector<std::string> actions;
  std::vector<size_t> user_begin;       // users + 1 offsets into `events`
  std::vector<Event> events;            // by user; within a user by time, equal times in the order of the file
  std::vector<Impression> impressions;  // by time; empty unless the data has labels
  std::vector<Stream> streams;          // empty: all events are one behaviour list

  size_t users() const { return user_ids.size(); }
  std::span<const Event> EventsOf(size_t user) const {
    return {events.data() + user_begin[user], user_begin[user + 1] - user_begin[user]};
  }

  // The id features: an item's id and its categories, which candidates and behaviours have alike (section 4.1 of DIN),
  // then the side fields, of the user and of the moment, one value a sample.
  size_t item_fields() const { return 1 + categories.size(); }
  size_t side_fields() const { return user_fields.size() + context_fields.size(); }
  size_t fields() const { return item_fields() + side_fields(); }
  size_t sequences() const { return streams.empty() ? 1 : streams.size(); }
  std::string_view FieldName(size_t field) const;
  size_t FieldRows(size_t field) const;
  const std::string& FieldValue(size_t field, int32_t value) const;  // raw
  int32_t ItemValue(int32_t item, size_t field) const {
    return field == 0 ? item : item_categories[item * categories.size() + field - 1];
  }
  int32_t SideValue(int32_t user, uint32_t row, size_t side_field) const {
    return side_field < user_fields.size() ? user_values[user * user_fields.size() + side_field]
                                           : context[row * context_fields.size() + side_field - user_fields.size()];
  }
};

// Makes one stream of each action. INVALID_ARGUMENT when there is but one.
absl::Status SplitByAction(Dataset& data);

// Adds the hour and the weekday (UTC; 0 is Sunday) of every event as context.
void AddTimeContext(Dataset& data);

// A row of an event log, as it is read.
struct EventRow {
  std::string_view user;
  std::string_view item;
  float value = 0;
  int64_t time = 0;
  std::string_view action;                     // may be empty
  std::span<const std::string_view> context;   // one per context field
  enum Kind { kDone, kClicked, kNotClicked };  // kDone: no label; kNotClicked is shown, but nothing that the user did
  Kind kind = kDone;
};

// Collects rows in any order. One thread.
class DatasetBuilder {
 public:
  struct Names {
    std::vector<std::string> categories = {"category"};
    std::vector<std::string> user_fields;
    std::vector<std::string> context_fields;
  };
  explicit DatasetBuilder(Names names);
  DatasetBuilder() : DatasetBuilder(Names()) {}

  // One value for each field of the names. The first description of an item, or a user, wins.
  void AddItem(std::string_view id, std::string_view title, std::span<const std::string_view> categories);
  void AddItem(std::string_view id, std::string_view title, std::string_view category) {
    AddItem(id, title, {&category, 1});
  }
  void AddUser(std::string_view id, std::span<const std::string_view> values);
  // False, and nothing is added, when the item has not been described. A user who has not been is unknown in every
  // user field.
  bool AddEvent(const EventRow& row);

  // Items without events or impressions are left out: nothing could be learnt about them. INVALID_ARGUMENT when
  // nothing happened, or more than 2^31 - 1 things.
  absl::StatusOr<Dataset> Build() &&;

 private:
  using Index = absl::flat_hash_map<std::string, int32_t>;
  struct Row {
    int32_t user;
    EventRow::Kind kind;
    Event event;
  };
  // The index of `value`, which is appended to `values` when it is new.
  static int32_t Intern(std::string_view value, Index& index, std::vector<std::string>& values);
  static void InternAll(std::span<const std::string_view> values, std::vector<Index>& indices,
                        std::vector<Field>& fields, std::vector<int32_t>& out);
  void TakeItems(Dataset& data);
  static void TakeRows(std::vector<Row> rows, Dataset& data);

  Dataset data_;
  std::vector<Item> items_;
  std::vector<int32_t> item_categories_;
  Index item_index_;
  Index user_index_;
  Index action_index_;
  std::vector<Index> category_index_;
  std::vector<Index> user_field_index_;
  std::vector<Index> context_index_;
  std::vector<bool> user_described_;
  std::vector<Row> rows_;
};

}  // namespace din
