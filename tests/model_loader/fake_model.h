// Models without weights, for tests of who holds what.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "model_loader/load_model.h"

namespace din {

// Set by threads that must never free a model.
inline thread_local bool is_request_thread = false;

// Counts the models that exist, and who frees them. Must outlive them.
struct ModelCounter {
  std::atomic<int> alive = 0;
  std::atomic<int> most_alive = 0;
  std::atomic<int> freed_by_others = 0;  // than `freeing_thread`, or, where there is none, by a request
  std::atomic<std::thread::id> freeing_thread{};
};

inline ModelHandle FakeModel(const std::string& name, int64_t version, ModelCounter& counter) {
  const int alive = ++counter.alive;
  for (int most = counter.most_alive; most < alive && !counter.most_alive.compare_exchange_weak(most, alive);) {
  }
  auto* const model = new LoadedModel;
  model->name = name;
  model->version = version;
  return ModelHandle(model, [&counter](const LoadedModel* m) {
    const std::thread::id only = counter.freeing_thread;
    const bool other = only == std::thread::id() ? is_request_thread : std::this_thread::get_id() != only;
    if (other) ++counter.freed_by_others;
    --counter.alive;
    delete m;
  });
}

}  // namespace din
