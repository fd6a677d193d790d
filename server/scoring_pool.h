// The scoring threads and the queue in front of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "model/din_model.h"
#include "model/input.h"
#include "server/admission_controller.h"

namespace din {

// What one scoring thread works in. Grows to the largest request it has seen, then stays.
struct ScoringMemory {
  Workspace workspace;
  ScoringInput input;
  std::vector<float> scores;
  std::vector<uint64_t> ranking;
};

// One request on its way through the pool, which calls either Run or Refuse, once, as its last use of the job.
class ScoringJob {
 public:
  virtual ~ScoringJob() = default;
  // On a scoring thread.
  virtual void Run(ScoringMemory& memory) = 0;
  // Not run: DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE. On a scoring thread, or the one that ends the pool.
  virtual void Refuse(const absl::Status& status) = 0;

  // Set before Submit.
  Ticket ticket;
  SteadyTime deadline = SteadyTime::max();
  // Set by any thread at any time.
  std::atomic<bool> cancelled = false;
};

// The work of one job, in units that several scoring threads can do at the same time.
class SharedWork {
 public:
  virtual ~SharedWork() = default;
  // Units [begin, end), each unit once, on any scoring thread. May throw.
  virtual void Run(size_t begin, size_t end, ScoringMemory& memory) = 0;
};

// A fixed number of threads, each with memory of its own, behind one first-in-first-out queue. Scoring never runs on
// gRPC's few shared threads, and as many threads as cores keep a busy server's requests on one core each, from
// beginning to end. A thread with nothing to do may help another with a large job (Share), but jobs come first: a
// thread helps only while the queue is empty, and looks again after every piece. Submit from any thread. Standard
// primitives only, so ThreadSanitizer sees everything.
class ScoringPool {
 public:
  struct Options {
    int threads = 1;     // at least 1
    size_t queue = 256;  // jobs that may wait: what the AdmissionController admits
    bool share = true;   // false: Share asks nobody
    bool pin = false;    // each thread stays on a core of its own, as far as the affinity mask has some
  };

  explicit ScoringPool(const Options& options);
  // Refuses what has not begun, waits for what has.
  ~ScoringPool();
  ScoringPool(const ScoringPool&) = delete;
  ScoringPool& operator=(const ScoringPool&) = delete;

  // Borrows the job until Run or Refuse. RESOURCE_EXHAUSTED when the queue is full; the job is then untouched. Does not
  // allocate when it accepts.
  absl::Status Submit(ScoringJob* job);

  // For a job's Run, on its scoring thread: all units of `work`, by this thread and up to `helpers` others, if they are
  // idle and no job waits. Returns when all are done. What a helper has not begun, this thread does itself, so it never
  // waits for one to wake up. Throws what a unit threw; the rest may then not have been run. Does not
  // allocate.
  void Share(SharedWork& work, size_t units, size_t helpers, ScoringMemory& memory);

 private:
  struct Offer;

  void Work(int thread);
  static void Do(ScoringJob& job, ScoringMemory& memory);
  ScoringJob* Pop();
  bool Invite(Offer& offer, size_t helpers);
  Offer& Join();
  void Help(Offer& offer, ScoringMemory& memory);
  void Withdraw(Offer& offer);

  const bool share_;
  const bool pin_;
  std::mutex mutex_;
  std::condition_variable work_;  // a job was queued, or an offer made, or stopping_
  std::vector<ScoringJob*> ring_;
  size_t head_ = 0;
  std::atomic<size_t> size_ = 0;  // written under the mutex; helpers look without
  size_t idle_ = 0;               // threads that wait for work_
  std::vector<Offer*> offers_;    // those that want more helpers, oldest first
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace din
