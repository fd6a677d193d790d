#include "server/event_feed.h"

#include <algorithm>

namespace din {

void EventFeed::Add(const LifecycleEvent& event) {
  {
    const std::lock_guard lock(mutex_);
    if (entries_.size() == kRemembered) entries_.pop_front();
    entries_.push_back({next_++, std::chrono::system_clock::now(), event});
  }
  added_.notify_all();
}

uint64_t EventFeed::NextNumber() const {
  const std::lock_guard lock(mutex_);
  return next_;
}

std::vector<EventFeed::Entry> EventFeed::From(uint64_t number, std::chrono::milliseconds most) const {
  std::unique_lock lock(mutex_);
  added_.wait_for(lock, most, [&] { return next_ > number; });
  const auto first =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.number >= number; });
  return {first, entries_.end()};
}

}  // namespace din
