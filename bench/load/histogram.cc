#include "bench/load/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace din::load {

Histogram::Histogram() : buckets_(kBuckets) {}

size_t Histogram::BucketOf(int64_t value) {
  const int width = std::bit_width(static_cast<uint64_t>(value));
  const int shift = std::max(0, width - (kSubBits + 1));
  return (static_cast<size_t>(shift) << kSubBits) + static_cast<size_t>(value >> shift);
}

int64_t Histogram::MiddleOf(size_t bucket) {
  if (bucket < (size_t{2} << kSubBits)) return static_cast<int64_t>(bucket);
  const int shift = static_cast<int>(bucket >> kSubBits) - 1;
  const int64_t low = static_cast<int64_t>(bucket - (static_cast<size_t>(shift) << kSubBits)) << shift;
  return low + (int64_t{1} << shift) / 2;
}

void Histogram::Add(int64_t value) {
  value = std::clamp<int64_t>(value, 0, kLargest);
  ++buckets_[BucketOf(value)];
  ++count_;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value);
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

void Histogram::Clear() { *this = Histogram(); }

int64_t Histogram::AtRank(double q, uint64_t population) const {
  if (population == 0) return 0;
  // 0.99 * 1000 is a little more than 990 in binary: without the tolerance the rank would be 991.
  const auto rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(q * static_cast<double>(population) - 1e-6)));
  if (rank > count_) return kInfinite;
  if (rank == count_) return max_;
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::clamp(MiddleOf(i), min_, max_);
  }
  return max_;
}

}  // namespace din::load
