#include "server/scoring_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <exception>
#include <string>

#include "absl/strings/str_cat.h"

namespace din {
namespace {

// To the core of the affinity mask that is this thread's by its number; more threads than cores share.
void PinThisThread(int thread) {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return;
  int left = thread % CPU_COUNT(&cores);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &cores) || left-- > 0) continue;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof(cores), &cores);
    return;
  }
}

}  // namespace

// On the owner's stack while it is in Share.
struct ScoringPool::Offer {
  // Of half the units left, each thread takes an equal part: large pieces first, since a piece has costs of its own,
  // then smaller ones, so that all threads end at about the same time. False: all are taken, or one failed.
  bool Take(size_t* begin, size_t* end) {
    if (failed.load(std::memory_order_relaxed)) return false;
    *begin = next.load(std::memory_order_relaxed);
    do {
      if (*begin == units) return false;
      *end = *begin + std::max<size_t>(1, (units - *begin) / (2 * threads));
    } while (!next.compare_exchange_weak(*begin, *end, std::memory_order_relaxed));
    return true;
  }

  void RunPiece(size_t begin, size_t end, ScoringMemory& memory) {
    try {
      work.Run(begin, end, memory);
    } catch (...) {
      if (!failed.exchange(true, std::memory_order_relaxed)) error = std::current_exception();
    }
  }

  SharedWork& work;
  const size_t units;
  size_t threads = 1;            // the owner and the helpers invited
  size_t places = 0;             // helpers that may still join; under the pool's mutex
  std::atomic<size_t> next = 0;  // the first unit that nobody has taken
  std::atomic<int> helping = 0;  // counting itself out is a helper's last use of the offer
  std::atomic<bool> failed = false;
  std::exception_ptr error;  // of the first piece that failed; the owner's to read once it has withdrawn
};

ScoringPool::ScoringPool(const Options& options)
    : share_(options.share), pin_(options.pin), ring_(std::max<size_t>(options.queue, 1)) {
  offers_.reserve(static_cast<size_t>(options.threads));
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
      return absl::ResourceExhaustedError(
          absl::StrCat("queue: ", size_.load(), " requests waiting, limit ", ring_.size()));
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

void ScoringPool::Share(SharedWork& work, size_t units, size_t helpers, ScoringMemory& memory) {
  Offer offer{work, units};
  if (!share_ || units < 2 || helpers == 0 || !Invite(offer, helpers)) return work.Run(0, units, memory);
  for (size_t begin, end; offer.Take(&begin, &end);) offer.RunPiece(begin, end, memory);
  Withdraw(offer);
  if (offer.error != nullptr) std::rethrow_exception(offer.error);
}

bool ScoringPool::Invite(Offer& offer, size_t helpers) {
  {
    std::lock_guard lock(mutex_);
    helpers = std::min(helpers, idle_);
    if (helpers == 0 || size_ > 0 || stopping_) return false;
    offer.threads += helpers;
    offer.places = helpers;
    offers_.push_back(&offer);
  }
  for (; helpers > 0; --helpers) work_.notify_one();
  return true;
}

// Under the mutex.
ScoringPool::Offer& ScoringPool::Join() {
  Offer& offer = *offers_.front();
  offer.helping.fetch_add(1, std::memory_order_relaxed);
  if (--offer.places == 0) offers_.erase(offers_.begin());
  return offer;
}

void ScoringPool::Help(Offer& offer, ScoringMemory& memory) {
  for (size_t begin, end; size_.load(std::memory_order_relaxed) == 0 && offer.Take(&begin, &end);) {
    offer.RunPiece(begin, end, memory);
  }
  offer.helping.fetch_sub(1, std::memory_order_release);
}

// From here on nobody joins. Whoever has joined is within the last pieces, and those are small: it is done in less time
// than it takes to sleep and be woken.
void ScoringPool::Withdraw(Offer& offer) {
  {
    std::lock_guard lock(mutex_);
    std::erase(offers_, &offer);
  }
  while (offer.helping.load(std::memory_order_acquire) > 0) std::this_thread::yield();
}

void ScoringPool::Work(int thread) {
  pthread_setname_np(pthread_self(), absl::StrCat("score-", thread).c_str());  // as top -H and perf show it
  if (pin_) PinThisThread(thread);
  ScoringMemory memory;
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    work_.wait(lock, [this] { return size_ > 0 || !offers_.empty() || stopping_; });
    --idle_;
    if (size_ > 0) {
      ScoringJob* job = Pop();
      lock.unlock();
      Do(*job, memory);
    } else if (!stopping_) {
      Offer& offer = Join();
      lock.unlock();
      Help(offer, memory);
    } else {
      return;
    }
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
