// A loop over independent tasks on a few threads.
#pragma once

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace din {

// Calls task(0) … task(count - 1), each once, in ascending order of start, on at most `threads` threads of which the
// caller is one; the others inherit its priority. After an error no task starts any more. Returns the error of the
// lowest task that failed, so the same fault gives the same message on any number of threads.
absl::Status ParallelFor(size_t count, int threads, const std::function<absl::Status(size_t)>& task);

}  // namespace din
