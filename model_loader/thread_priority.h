// Work that must not be noticed by requests.
#pragma once

namespace din {

// From now on the calling thread, and each that it starts, runs (and reads from disk) only where no other thread of
// the machine wants to: SCHED_IDLE, or nice 19 where that is not allowed. There is no way back without privileges.
void LowerThreadPriority();

}  // namespace din
