#include "model_loader/thread_priority.h"

#include <sched.h>
#include <sys/resource.h>

namespace din {

void LowerThreadPriority() {
  const sched_param none{};
  if (sched_setscheduler(0, SCHED_IDLE, &none) == 0) return;
  // On Linux this, too, is a property of the thread. If even that fails, the load is merely noticed more.
  (void)setpriority(PRIO_PROCESS, 0, 19);
}

}  // namespace din
