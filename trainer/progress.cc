#include "trainer/progress.h"

#include <unistd.h>

#include "absl/strings/str_format.h"

namespace din {

Progress::Progress(std::FILE* out) : out_(out), terminal_(out != nullptr && isatty(fileno(out)) != 0) {}

double Progress::seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void Progress::Update(double done, const std::function<std::string()>& text) {
  const auto pause = std::chrono::milliseconds(terminal_ ? 200 : 5000);
  const Clock::time_point now = Clock::now();
  if (out_ == nullptr || now - shown_ < pause || done <= 0) return;
  shown_ = now;
  const double left = seconds() * (1 - done) / done;
  const std::string line = absl::StrFormat("%3.0f %%  %s  ETA %.0f s", 100 * done, text(), left);
  std::fprintf(out_, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(out_);
}

void Progress::Line(const std::string& text) {
  if (out_ == nullptr) return;
  std::fprintf(out_, terminal_ ? "\r\033[K%s\n" : "%s\n", text.c_str());
  std::fflush(out_);
}

}  // namespace din
