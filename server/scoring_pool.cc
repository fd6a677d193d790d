#include "server/scoring_pool.h"

#include <pthread.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace din {

ScoringPool::ScoringPool(const Options& options) : ring_(std::max<size_t>(options.queue, 1)) {
  threads_.reserve(static_cast<size_t>(options.threads));
  for (int t = 0; t < options.threads; ++t) threads_.emplace_back(&ScoringPool::Work, this, t);
}

ScoringPool::~ScoringPool() {
  std::vector<ScoringJob*> left;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    while (size_ > 0) left.push_back(Pop());
  }
  work_.notify_all();
  for (ScoringJob* job : left) job->Refuse(absl::UnavailableError("server: stopping"));
  for (std::thread& thread : threads_) thread.join();
}

absl::Status ScoringPool::Submit(ScoringJob* job) {
  {
    std::lock_guard lock(mutex_);
    if (size_ == ring_.size()) {
      return absl::ResourceExhaustedError(absl::StrCat("queue: ", size_, " requests waiting, limit ", ring_.size()));
    }
    ring_[(head_ + size_) % ring_.size()] = job;
    ++size_;
  }
  work_.notify_one();
  return absl::OkStatus();
}

ScoringJob* ScoringPool::Pop() {
  ScoringJob* job = ring_[head_];
  head_ = (head_ + 1) % ring_.size();
  --size_;
  return job;
}

void ScoringPool::Work(int thread) {
  pthread_setname_np(pthread_self(), absl::StrCat("score-", thread).c_str());  // as top -H and perf show it
  ScoringMemory memory;
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return size_ > 0 || stopping_; });
    if (size_ == 0) return;
    ScoringJob* job = Pop();
    lock.unlock();
    Do(*job, memory);
    lock.lock();
  }
}

// Nobody waits any more for what is late or cancelled, so not a microsecond goes into it.
void ScoringPool::Do(ScoringJob& job, ScoringMemory& memory) {
  job.ticket.Start();
  if (job.cancelled.load(std::memory_order_relaxed)) {
    job.Refuse(absl::CancelledError("cancelled in the queue"));
  } else if (std::chrono::steady_clock::now() >= job.deadline) {
    job.Refuse(absl::DeadlineExceededError("deadline: passed in the queue"));
  } else {
    job.Run(memory);
  }
}

}  // namespace din
