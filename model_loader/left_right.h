// A value that is read often, from many threads, and changed rarely.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

namespace din {

// Two copies: readers look at one while the writer changes the other, then they trade places, and the writer changes
// the second when the last reader has left it (Ramalhete and Correia, "Left-Right", 2013).
//
// Why not a mutex: the one who writes here makes way for requests. If it lost its core with the mutex held,
// every request would wait for a thread that the requests do not let run. Here readers wait for nobody. And why not
// std::atomic<std::shared_ptr>: GCC 12's holds a lock inside, and ThreadSanitizer does not understand it.
//
// Read from any thread; Write, too, one after the other. Neither may be called from inside the other's function.
template <typename T>
class LeftRight {
 public:
  LeftRight() = default;
  LeftRight(const LeftRight&) = delete;
  LeftRight& operator=(const LeftRight&) = delete;

  // Calls read(const T&) and returns what it returns. Keep it short: a writer waits.
  template <typename Function>
  auto Read(Function&& read) const {
    const Visit visit(readers_[entrance_.load()]);
    return read(copies_[shown_.load()]);
  }

  // Calls write(T&) once for each copy: it must do the same both times. Afterwards nobody sees the old value any more.
  template <typename Function>
  void Write(Function&& write) {
    const std::lock_guard lock(writers_);
    const int shown = shown_.load(), entrance = entrance_.load();
    write(copies_[1 - shown]);
    shown_.store(1 - shown);
    // Who came in before that may still be at the old copy. They leave by the counter that they came in by, while new
    // readers, who see the new copy, take the other one; so even an endless stream of readers does not hold us up.
    WaitUntilLeft(readers_[1 - entrance]);
    entrance_.store(1 - entrance);
    WaitUntilLeft(readers_[entrance]);
    write(copies_[shown]);
  }

 private:
  using Counter = std::atomic<long>;

  class Visit {
   public:
    explicit Visit(Counter& counter) : counter_(counter) { counter_.fetch_add(1); }
    ~Visit() { counter_.fetch_sub(1); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    Counter& counter_;
  };

  static void WaitUntilLeft(const Counter& counter) {
    // A reader inside is done in nanoseconds, unless it lost its core.
    for (int tries = 0; counter.load() != 0; ++tries) {
      if (tries < 100) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }

  std::array<T, 2> copies_{};
  mutable std::array<Counter, 2> readers_{};
  std::atomic<int> entrance_{0};
  std::atomic<int> shown_{0};
  std::mutex writers_;
};

}  // namespace din
