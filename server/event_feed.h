// What happens to models, for those who watch.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "model_loader/lifecycle.h"

namespace din {

// The last events, numbered from 0. Any thread; Add waits for nobody who reads.
class EventFeed {
 public:
  struct Entry {
    uint64_t number = 0;
    std::chrono::system_clock::time_point time;
    LifecycleEvent event;
  };

  void Add(const LifecycleEvent& event);
  // Of the event that comes next.
  uint64_t NextNumber() const;
  // The events from `number` on; waits at most that long for one. Who is too slow misses the oldest.
  std::vector<Entry> From(uint64_t number, std::chrono::milliseconds most) const;

 private:
  static constexpr size_t kRemembered = 1024;

  mutable std::mutex mutex_;
  mutable std::condition_variable added_;
  std::deque<Entry> entries_;
  uint64_t next_ = 0;
};

}  // namespace din
