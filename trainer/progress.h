// A progress line for people: rewritten in place on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace din {

// One thread.
class Progress {
 public:
  // Writes to `out`, which must outlive this; nullptr: silent.
  explicit Progress(std::FILE* out);

  // `done` is the part of the whole work in [0, 1]; `text` describes the state. Shown a few times a second on a
  // terminal, every few seconds elsewhere, with the time left at the pace so far.
  void Update(double done, const std::string& text);
  // A line that stays.
  void Line(const std::string& text);

  double seconds() const;  // since construction

 private:
  using Clock = std::chrono::steady_clock;
  std::FILE* out_;
  bool terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
};

}  // namespace din
