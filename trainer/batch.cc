#include "trainer/batch.h"

#include <algorithm>
#include <numeric>

namespace din {

std::vector<KeptValues> KeepValues(const Dataset& data, const Occurrences& occurrences, size_t most_frequent) {
  std::vector<KeptValues> kept(data.fields());
  for (size_t f = 0; f < data.fields(); ++f) {
    const size_t values = data.FieldRows(f);
    kept[f].rows = values;
    if (most_frequent == 0 || values <= most_frequent) continue;
    std::vector<int32_t> order(values);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::ranges::greater(), [&](int32_t v) { return occurrences[f][v]; });
    order.resize(most_frequent);
    std::ranges::sort(order);
    kept[f].rows = most_frequent;
    kept[f].row_of.assign(values, static_cast<int32_t>(most_frequent));
    for (size_t row = 0; row < order.size(); ++row) kept[f].row_of[order[row]] = static_cast<int32_t>(row);
  }
  return kept;
}

BatchBuilder::BatchBuilder(const Dataset& data, std::span<const KeptValues> kept, int max_history)
    : data_(data), kept_(kept), max_history_(max_history) {
  for (const KeptValues& k : kept) places_.emplace_back(k.rows + 1);
}

int64_t BatchBuilder::Use(size_t field, int32_t value, Batch& batch) {
  const size_t row = kept_[field].Row(value);
  Place& place = places_[field][row];
  if (place.batch != batch_number_) {
    std::vector<int64_t>& distinct = batch.fields[field].distinct;
    place = {batch_number_, static_cast<uint32_t>(distinct.size())};
    distinct.push_back(static_cast<int64_t>(row));
  }
  return place.index;
}

void BatchBuilder::Build(std::span<const Sample> samples, Batch& batch) {
  ++batch_number_;
  batch.fields.resize(data_.fields());
  batch.sequences.resize(data_.sequences());
  for (Batch::Rows& rows : batch.fields) {
    rows.distinct.clear();
    rows.sample.clear();
    rows.behaviours.resize(data_.sequences());
    for (std::vector<int64_t>& behaviours : rows.behaviours) behaviours.clear();
  }
  for (Batch::Owners& sequence : batch.sequences) {
    sequence.begin.assign(1, 0);
    sequence.owner.clear();
  }
  batch.labels.clear();
  const size_t item_fields = data_.item_fields();
  for (const Sample& sample : samples) {
    for (size_t f = 0; f < item_fields; ++f) {
      batch.fields[f].sample.push_back(Use(f, data_.ItemValue(sample.item, f), batch));
    }
    for (size_t f = 0; f < data_.side_fields(); ++f) {
      const int32_t value = data_.SideValue(sample.user, sample.row, f);
      batch.fields[item_fields + f].sample.push_back(Use(item_fields + f, value, batch));
    }
    for (size_t s = 0; s < data_.sequences(); ++s) {
      Batch::Owners& sequence = batch.sequences[s];
      const std::span<const Event> history = HistoryOf(data_, sample, max_history_, s);
      for (size_t f = 0; f < item_fields; ++f) {
        std::vector<int64_t>& behaviours = batch.fields[f].behaviours[s];
        for (const Event& event : history) behaviours.push_back(Use(f, data_.ItemValue(event.item, f), batch));
      }
      sequence.owner.insert(sequence.owner.end(), history.size(), static_cast<int64_t>(batch.labels.size()));
      sequence.begin.push_back(static_cast<int64_t>(sequence.owner.size()));
    }
    batch.labels.push_back(sample.label);
  }
}

}  // namespace din
