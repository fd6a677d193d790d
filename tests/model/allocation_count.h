// Counts allocations: link allocation_count.cc into a test, and every operator new of its binary is counted.
#pragma once

namespace din {

// Since the start of the process, by all threads.
long AllocationCount();

}  // namespace din
