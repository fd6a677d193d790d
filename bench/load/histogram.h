// Latencies over eleven orders of magnitude in 36 KiB: log-linear buckets, as in HdrHistogram (hdrhistogram.org).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace din::load {

// Counts non-negative integers (here nanoseconds). Values below 256 are exact; above, each power of two is cut into 128
// equal buckets, so the value reported for a bucket, its middle, is off by at most 1/256 (0.4 %). Minimum, maximum and
// mean are exact. One thread.
class Histogram {
 public:
  static constexpr int64_t kLargest = (int64_t{1} << 42) - 1;  // 73 minutes; larger values are counted as this one

  Histogram();

  // Negative values count as 0.
  void Add(int64_t value);
  void Merge(const Histogram& other);
  void Clear();

  uint64_t count() const { return count_; }
  int64_t min() const { return count_ == 0 ? 0 : min_; }
  int64_t max() const { return max_; }
  double Mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

  // The value at rank ceil(q * count), ranks from 1; 0 when empty. q in [0, 1].
  int64_t Quantile(double q) const { return AtRank(q, count_); }

  // The same among `population` values, of which those that were not added are infinitely large: a request that never
  // got an answer is slower than each that did. kInfinite when the rank falls among them.
  static constexpr int64_t kInfinite = INT64_MAX;
  int64_t AtRank(double q, uint64_t population) const;

 private:
  static constexpr int kSubBits = 7;  // 2^7 buckets per power of two
  static constexpr size_t kBuckets = (42 - (kSubBits + 1) + 2) << kSubBits;
  static size_t BucketOf(int64_t value);
  static int64_t MiddleOf(size_t bucket);

  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  int64_t min_ = INT64_MAX;
  int64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace din::load
