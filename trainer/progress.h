// A progress line for people: rewritten in place on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <string>

namespace din {

// One thread.
class Progress {
 public:
  // Writes to `out`, which must outlive this; nullptr: silent.
  explicit Progress(std::FILE* out);

  // `done` is the part of the whole work in [0, 1]; `text` describes the state. Shown a few times a second on a
  // terminal, every few seconds elsewhere, with the time left at the pace so far.
  void Update(double done, const std::string& text) {
    Update(done, [&] { return text; });
  }
  // The same; `text` is asked only when it will be shown.
  void Update(double done, const std::function<std::string()>& text);
  // A line that stays.
  void Line(const std::string& text);
  // Another piece of work begins: its pace and its time left count from here.
  void Restart() { start_ = Clock::now(); }

  double seconds() const;  // since construction or Restart

 private:
  using Clock = std::chrono::steady_clock;
  std::FILE* out_;
  bool terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
};

}  // namespace din
