#include "server/admission_controller.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace din {

void Ticket::Start() {
  if (controller_ == nullptr || started_) return;
  started_ = true;
  controller_->running_.fetch_add(1, std::memory_order_relaxed);
  controller_->waiting_.fetch_sub(1, std::memory_order_relaxed);
}

void Ticket::Release() {
  AdmissionController* controller = std::exchange(controller_, nullptr);
  if (controller == nullptr) return;
  (started_ ? controller->running_ : controller->waiting_).fetch_sub(1, std::memory_order_relaxed);
}

absl::StatusOr<Ticket> AdmissionController::TryAdmit(const Request& request, SteadyTime now) {
  if (now >= request.deadline) {
    const auto late = std::chrono::duration_cast<std::chrono::microseconds>(now - request.deadline);
    return absl::DeadlineExceededError(absl::StrCat("deadline: passed ", late.count(), " us before admission"));
  }
  size_t waiting = waiting_.load(std::memory_order_relaxed);
  do {
    if (waiting >= options_.queue) {
      return absl::ResourceExhaustedError(
          absl::StrCat("queue: ", waiting, " requests waiting, limit ", options_.queue));
    }
  } while (!waiting_.compare_exchange_weak(waiting, waiting + 1, std::memory_order_relaxed));
  return Ticket(this);
}

}  // namespace din
