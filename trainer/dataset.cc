#include "trainer/dataset.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace din {
namespace {

constexpr std::string_view kUnknown = "unknown";

// As a snapshot's INT64 vocabulary would spell it, so "007" and "+7" are not integers but names.
bool IsCanonicalInteger(const std::string& id) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), value);
  return error == std::errc() && end == id.data() + id.size() && id == std::to_string(value);
}

absl::string_view Key(std::string_view text) { return {text.data(), text.size()}; }

std::vector<Field> Named(std::vector<std::string> names) {
  std::vector<Field> fields;
  for (std::string& name : names) fields.push_back({std::move(name), {}});
  return fields;
}

}  // namespace

std::string_view Dataset::FieldName(size_t field) const {
  if (field == 0) return "item";
  if (field < item_fields()) return categories[field - 1].name;
  field -= item_fields();
  return field < user_fields.size() ? user_fields[field].name : context_fields[field - user_fields.size()].name;
}

size_t Dataset::FieldRows(size_t field) const {
  if (field == 0) return items.size();
  if (field < item_fields()) return categories[field - 1].values.size();
  field -= item_fields();
  return field < user_fields.size() ? user_fields[field].values.size()
                                    : context_fields[field - user_fields.size()].values.size();
}

const std::string& Dataset::FieldValue(size_t field, int32_t value) const {
  if (field == 0) return items[value].id;
  if (field < item_fields()) return categories[field - 1].values[value];
  field -= item_fields();
  return field < user_fields.size() ? user_fields[field].values[value]
                                    : context_fields[field - user_fields.size()].values[value];
}

absl::Status SplitByAction(Dataset& data) {
  if (data.actions.size() < 2) {
    return absl::InvalidArgumentError("data: one action only, there is nothing to split the behaviours by");
  }
  data.streams.clear();
  for (const std::string& action : data.actions) data.streams.push_back({absl::StrCat("history_", action), {0}, {}});
  for (size_t user = 0; user < data.users(); ++user) {
    for (const Event& event : data.EventsOf(user)) data.streams[event.action].events.push_back(event);
    for (Stream& stream : data.streams) stream.user_begin.push_back(stream.events.size());
  }
  return absl::OkStatus();
}

void AddTimeContext(Dataset& data) {
  const size_t rows = data.events.size() + data.impressions.size();  // at least as many as are in use
  std::vector<int64_t> time(rows);
  for (const Event& event : data.events) time[event.row] = event.time;
  for (const Impression& shown : data.impressions) time[shown.row] = shown.time;

  Field hour{"hour", {}}, weekday{"weekday", {}};
  for (int i = 0; i < 24; ++i) hour.values.push_back(std::to_string(i));
  for (int i = 0; i < 7; ++i) weekday.values.push_back(std::to_string(i));
  const size_t before = data.context_fields.size();
  std::vector<int32_t> context;
  context.reserve(rows * (before + 2));
  for (size_t row = 0; row < rows; ++row) {
    for (size_t f = 0; f < before; ++f)
      context.push_back(row * before + f < data.context.size() ? data.context[row * before + f] : 0);
    constexpr int64_t kHour = 3600, kDay = 24 * kHour, kEpochWeekday = 4;  // 1 January 1970 was a Thursday
    const auto cut = [](int64_t a, int64_t b) { return a / b - (a % b < 0); };
    const int64_t day = cut(time[row], kDay);
    context.push_back(static_cast<int32_t>((time[row] - day * kDay) / kHour));
    context.push_back(static_cast<int32_t>(day + kEpochWeekday - 7 * cut(day + kEpochWeekday, 7)));
  }
  data.context = std::move(context);
  data.context_fields.push_back(std::move(hour));
  data.context_fields.push_back(std::move(weekday));
}

DatasetBuilder::DatasetBuilder(Names names)
    : category_index_(names.categories.size()),
      user_field_index_(names.user_fields.size()),
      context_index_(names.context_fields.size()) {
  data_.categories = Named(std::move(names.categories));
  data_.user_fields = Named(std::move(names.user_fields));
  data_.context_fields = Named(std::move(names.context_fields));
}

int32_t DatasetBuilder::Intern(std::string_view value, Index& index, std::vector<std::string>& values) {
  const auto known = index.find(Key(value));
  if (known != index.end()) return known->second;
  const auto place = static_cast<int32_t>(values.size());
  index.emplace(std::string(value), place);
  values.emplace_back(value);
  return place;
}

void DatasetBuilder::InternAll(std::span<const std::string_view> values, std::vector<Index>& indices,
                               std::vector<Field>& fields, std::vector<int32_t>& out) {
  for (size_t f = 0; f < fields.size(); ++f) {
    out.push_back(Intern(values[f].empty() ? kUnknown : values[f], indices[f], fields[f].values));
  }
}

void DatasetBuilder::AddItem(std::string_view id, std::string_view title,
                             std::span<const std::string_view> categories) {
  if (!item_index_.try_emplace(std::string(id), static_cast<int32_t>(items_.size())).second) return;
  items_.push_back({.id = std::string(id), .title = std::string(title)});
  InternAll(categories, category_index_, data_.categories, item_categories_);
}

void DatasetBuilder::AddUser(std::string_view id, std::span<const std::string_view> values) {
  const auto user = static_cast<size_t>(Intern(id, user_index_, data_.user_ids));
  user_described_.resize(data_.user_ids.size());
  if (user_described_[user]) return;
  user_described_[user] = true;
  std::vector<int32_t> row;
  InternAll(values, user_field_index_, data_.user_fields, row);
  data_.user_values.resize(data_.user_ids.size() * row.size(), -1);
  std::ranges::copy(row, data_.user_values.begin() + static_cast<ptrdiff_t>(user * row.size()));
}

bool DatasetBuilder::AddEvent(const EventRow& row) {
  const auto known = item_index_.find(Key(row.item));
  if (known == item_index_.end()) return false;
  const int32_t user = Intern(row.user, user_index_, data_.user_ids);
  const int32_t action = Intern(row.action, action_index_, data_.actions);
  rows_.push_back({user,
                   row.kind,
                   {.item = known->second,
                    .value = row.value,
                    .time = row.time,
                    .action = action,
                    .row = static_cast<uint32_t>(rows_.size())}});
  InternAll(row.context, context_index_, data_.context_fields, data_.context);
  return true;
}

// Leaves `rows_` with the new indices of the items that occur.
void DatasetBuilder::TakeItems(Dataset& data) {
  const size_t fields = data.categories.size();
  std::vector<int32_t> new_index(items_.size(), -1);
  for (Row& row : rows_) {
    int32_t& index = new_index[row.event.item];
    if (index < 0) {
      index = static_cast<int32_t>(data.items.size());
      const auto values = item_categories_.begin() + static_cast<ptrdiff_t>(row.event.item * fields);
      data.item_categories.insert(data.item_categories.end(), values, values + static_cast<ptrdiff_t>(fields));
      data.items.push_back(std::move(items_[row.event.item]));
    }
    row.event.item = index;
  }
  data.integer_ids = std::ranges::all_of(data.items, IsCanonicalInteger, &Item::id);
}

// `rows` ascend by user and time.
void DatasetBuilder::TakeRows(std::vector<Row> rows, Dataset& data) {
  data.user_begin.assign(1, 0);
  int32_t user = 0;
  size_t earlier = 0;  // events of the user before the time at hand
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    for (; user < row.user; ++user) data.user_begin.push_back(data.events.size());
    const size_t mine = data.events.size() - data.user_begin.back();
    if (i == 0 || rows[i - 1].user != row.user || rows[i - 1].event.time != row.event.time) earlier = mine;
    if (row.kind != EventRow::kDone) {
      data.impressions.push_back({.user = row.user,
                                  .item = row.event.item,
                                  .label = row.kind == EventRow::kClicked ? 1.0f : 0.0f,
                                  .position = static_cast<int32_t>(earlier),
                                  .time = row.event.time,
                                  .row = row.event.row});
    }
    if (row.kind == EventRow::kNotClicked) continue;
    data.events.push_back(row.event);
    data.events.back().order = static_cast<int32_t>(mine);
  }
  data.user_begin.resize(data.users() + 1, data.events.size());
  std::ranges::stable_sort(data.impressions, {}, &Impression::time);
}

absl::StatusOr<Dataset> DatasetBuilder::Build() && {
  if (rows_.empty()) return absl::InvalidArgumentError("data: no events");
  if (rows_.size() > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("data: ", rows_.size(), " events > limit ", INT32_MAX));
  }
  std::stable_sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
    return std::pair(a.user, a.event.time) < std::pair(b.user, b.event.time);
  });
  // Users of whom nothing is known, and those who were described but did nothing, are unknown in every field.
  for (size_t f = 0; f < data_.user_fields.size(); ++f) {
    const size_t fields = data_.user_fields.size();
    data_.user_values.resize(data_.users() * fields, -1);
    for (size_t user = 0; user < data_.users(); ++user) {
      int32_t& value = data_.user_values[user * fields + f];
      if (value < 0) value = Intern(kUnknown, user_field_index_[f], data_.user_fields[f].values);
    }
  }
  TakeItems(data_);
  TakeRows(std::move(rows_), data_);
  return std::move(data_);
}

}  // namespace din
