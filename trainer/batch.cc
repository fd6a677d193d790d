#include "trainer/batch.h"

namespace din {

BatchBuilder::BatchBuilder(const Dataset& data, int max_history) : data_(data), max_history_(max_history) {
  places_[kItemField].resize(data.items.size());
  places_[kCategoryField].resize(data.categories.size());
}

int64_t BatchBuilder::Use(Field field, int32_t row, Batch& batch) {
  Place& place = places_[field][row];
  if (place.batch != batch_number_) {
    std::vector<int64_t>& distinct = batch.fields[field].distinct;
    place = {batch_number_, static_cast<uint32_t>(distinct.size())};
    distinct.push_back(row);
  }
  return place.index;
}

void BatchBuilder::Build(std::span<const Sample> samples, Batch& batch) {
  ++batch_number_;
  for (Batch::Rows& rows : batch.fields) {
    rows.distinct.clear();
    rows.candidate.clear();
    rows.behaviour.clear();
  }
  batch.begin.assign(1, 0);
  batch.owner.clear();
  batch.labels.clear();
  Batch::Rows& items = batch.fields[kItemField];
  Batch::Rows& categories = batch.fields[kCategoryField];
  for (const Sample& sample : samples) {
    items.candidate.push_back(Use(kItemField, sample.item, batch));
    categories.candidate.push_back(Use(kCategoryField, data_.items[sample.item].category, batch));
    for (const Event& event : HistoryOf(data_, sample, max_history_)) {
      items.behaviour.push_back(Use(kItemField, event.item, batch));
      categories.behaviour.push_back(Use(kCategoryField, data_.items[event.item].category, batch));
      batch.owner.push_back(static_cast<int64_t>(batch.labels.size()));
    }
    batch.begin.push_back(static_cast<int64_t>(batch.owner.size()));
    batch.labels.push_back(sample.label);
  }
}

}  // namespace din
