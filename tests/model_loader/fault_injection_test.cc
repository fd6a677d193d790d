// Every call to the system, and every large allocation, that a load makes fails once: each time the load ends with an
// error that says so, nothing leaks, and what was live scores as before. So does every call of a look at the root.
//
// System calls: openat, fstat and fstatat here, and under libfiu's preload (the test's environment) also read, pread,
// readdir, mmap and the other POSIX calls that it knows, short reads included. Allocations: operator new and
// aligned_alloc.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "model_loader/load_model.h"
#include "model_loader/root_scanner.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace {

constexpr size_t kLargeAllocation = 64u << 10;

// Counts what one load does while armed, and says which of it fails. The load under test has one thread.
struct Injector {
  bool armed = false;
  size_t seen = 0;
  size_t fail_at = 0;            // counted from 1; 0: none
  const char* failed = nullptr;  // the name of what failed

  // True when this one has to fail.
  bool Next(const char* name) {
    if (!armed || ++seen != fail_at) return false;
    failed = name;
    return true;
  }
};
Injector calls, allocations;
long live_allocations = 0;

bool AllocationFails(const char* name, size_t bytes) { return bytes >= kLargeAllocation && allocations.Next(name); }

}  // namespace

// --- The seam
// ----------------------------------------------------------------------------------------------------------

// Not inlined: g++ would see malloc and delete meet.
__attribute__((noinline)) void* operator new(size_t bytes) {
  if (AllocationFails("operator new", bytes)) throw std::bad_alloc();
  void* const p = std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) throw std::bad_alloc();
  ++live_allocations;
  return p;
}
__attribute__((noinline)) void operator delete(void* p) noexcept {
  if (p != nullptr) --live_allocations;
  std::free(p);
}
void operator delete(void* p, size_t) noexcept { operator delete(p); }

extern "C" {

void* aligned_alloc(size_t alignment, size_t bytes) {
  if (AllocationFails("aligned_alloc", bytes)) return nullptr;
  void* p = nullptr;
  return posix_memalign(&p, alignment, bytes) == 0 ? p : nullptr;
}

int openat(int at, const char* path, int flags, ...) {
  if (calls.Next("openat")) {
    errno = EMFILE;
    return -1;
  }
  va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  return static_cast<int>(syscall(SYS_openat, at, path, flags, mode));
}

int fstat(int fd, struct stat* out) noexcept {
  if (calls.Next("fstat")) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH));
}

int fstatat(int at, const char* path, struct stat* out, int flags) noexcept {
  if (calls.Next("fstatat")) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(syscall(SYS_newfstatat, at, path, out, flags));
}

// libfiu, where it is preloaded.
using FiuCallback = int(const char* name, int* failnum, void** failinfo, unsigned int* flags);
__attribute__((weak)) int fiu_init(unsigned int flags);
__attribute__((weak)) int fiu_enable_external(const char* name, int failnum, void* failinfo, unsigned int flags,
                                              FiuCallback* callback);

}  // extern "C"

namespace din {
namespace {

// 1 fails the call with errno EIO; the call names are posix/io/rw/pread and the like.
int FailThisCall(const char* name, int*, void**, unsigned int*) { return calls.Next(name) ? 1 : 0; }

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

class FaultInjectionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* const preload = std::getenv("LD_PRELOAD");
    ASSERT_EQ(preload != nullptr && std::string(preload).find("fiu") != std::string::npos, fiu_init != nullptr);
    if (fiu_init == nullptr || fiu_enable_external == nullptr || fiu_init(0) != 0) return;
    // What only this process's own end does (close, munmap) cannot report an error.
    with_fiu_ = true;
    for (const char* point : {"posix/io/oc/open", "posix/io/rw/read", "posix/io/rw/pread", "posix/io/rw/read/reduce",
                              "posix/io/rw/pread/reduce", "posix/io/dir/fdopendir", "posix/io/dir/readdir",
                              "posix/mm/mmap", "posix/mm/madvise"}) {
      with_fiu_ &= fiu_enable_external(point, 1, reinterpret_cast<void*>(EIO), 0, FailThisCall) == 0;
    }
  }

  FaultInjectionTest() {
    const testing::RawModel raw = testing::PaperModel();
    testing::Rng rng(1);
    v1::GoldenCase golden = testing::RandomRequest(rng, raw.spec, raw.tensors, {.candidates = 40, .behaviours = 60});
    const auto model =
        testing::OrDie(DinModel::Create(raw.spec, raw.tensors, BestInstructionSet(), Precision::kFp32Split));
    scores_ = testing::ScoresOf(*model, golden);
    request_ = golden;
    golden.set_id("case");
    golden.set_tolerance(1e-5);
    for (const float score : scores_) golden.add_scores(score);
    const absl::Status written = WriteSnapshot(root_ / "ads", 1, {raw.spec, raw.tensors, {golden}, false, ""});
    EXPECT_TRUE(written.ok()) << written;
  }

  absl::StatusOr<ModelHandle> Load() const { return LoadModel(root_.path(), "ads", 1, {.read = {.threads = 1}}); }

  // Lets everything that `injector` counts in one load fail, one after the other.
  void Sweep(Injector& injector) {
    const auto live = Load();  // and whatever is allocated once per process
    ASSERT_TRUE(live.ok()) << live.status();
    injector = {.armed = true};
    ASSERT_TRUE(Load().ok());
    injector.armed = false;
    const size_t last = injector.seen;
    ASSERT_GT(last, 5u);
    std::set<std::string> failed, harmless;
    std::vector<long> leaks;
    leaks.reserve(last);
    for (size_t n = 1; n <= last; ++n) {
      const size_t descriptors = OpenDescriptors();
      const long before = live_allocations;
      auto loaded = std::make_unique<absl::StatusOr<ModelHandle>>();
      injector = {.armed = true, .fail_at = n};
      *loaded = Load();
      injector.armed = false;
      ASSERT_NE(injector.failed, nullptr);
      const auto what = [&] { return std::string(injector.failed) + ", number " + std::to_string(n); };
      failed.insert(injector.failed);
      if (loaded->ok()) {
        // A short read is read on, and huge pages are a wish.
        harmless.insert(injector.failed);
        ASSERT_EQ(testing::ScoresOf(*(**loaded)->model, request_), scores_) << what();
      } else {
        ASSERT_THAT(std::string(loaded->status().message()), ::testing::HasSubstr("/ads/1")) << what();
      }
      ASSERT_EQ(testing::ScoresOf(*(*live)->model, request_), scores_) << what();
      loaded.reset();
      ASSERT_EQ(OpenDescriptors(), descriptors) << what();
      leaks.push_back(live_allocations - before);
    }
    for (const std::string& name : failed) {
      std::printf("  %s%s\n", name.c_str(), harmless.contains(name) ? " (the load goes on)" : "");
    }
    // The names above, and what is allocated once per process, are not many; a leak would be one for each failure.
    EXPECT_LT(std::ranges::count_if(leaks, [](long leak) { return leak != 0; }), 8) << ::testing::PrintToString(leaks);
    std::printf("  %zu failures, libfiu %s\n", last, with_fiu_ ? "preloaded" : "not there");
    if (with_fiu_ && &injector == &calls) {
      for (const char* point : {"openat", "posix/io/rw/pread", "posix/mm/mmap"}) {
        EXPECT_TRUE(failed.contains(point)) << point << " is not among what failed";
      }
    }
    for (const std::string& name : harmless) {
      EXPECT_TRUE(name.ends_with("/reduce") || name == "posix/mm/madvise") << name << " failed, and the load did not";
    }
  }

  static bool with_fiu_;
  TempDirectory root_;
  v1::GoldenCase request_;
  std::vector<float> scores_;
};
bool FaultInjectionTest::with_fiu_ = false;

TEST_F(FaultInjectionTest, EverySystemCallOfALoadFailsCleanly) { Sweep(calls); }

TEST_F(FaultInjectionTest, EveryLargeAllocationOfALoadFailsCleanly) { Sweep(allocations); }

// A version of which the memory is not known is not for loading, and the next look makes up for it.
TEST_F(FaultInjectionTest, EverySystemCallOfAScanFailsCleanly) {
  const auto whole = [&](RootScanner& scanner) {
    const auto models = scanner.Scan();
    return models.ok() && models->size() == 1 && models->front().versions.ok() && models->front().versions->size() == 1
               ? models->front().versions->front()
               : FoundVersion{.status = absl::UnavailableError("not seen")};
  };
  RootScanner first(root_.path());
  const FoundVersion expected = whole(first);
  ASSERT_TRUE(expected.status.ok()) << expected.status;
  ASSERT_GT(expected.bytes, 0u);
  RootScanner counted(root_.path());
  calls = {.armed = true};
  whole(counted);
  calls.armed = false;
  const size_t last = calls.seen;
  ASSERT_GT(last, 5u);
  for (size_t n = 1; n <= last; ++n) {
    RootScanner scanner(root_.path());
    calls = {.armed = true, .fail_at = n};
    const FoundVersion seen = whole(scanner);
    calls.armed = false;
    ASSERT_NE(calls.failed, nullptr);
    const std::string what = std::string(calls.failed) + ", number " + std::to_string(n);
    if (seen.status.ok()) {
      EXPECT_EQ(seen.bytes, expected.bytes) << what;
    }
    const FoundVersion next = whole(scanner);
    EXPECT_TRUE(next.status.ok()) << what << ": " << next.status;
    EXPECT_EQ(next.bytes, expected.bytes) << what;
    EXPECT_EQ(next.digest, expected.digest) << what;
  }
  std::printf("  %zu failures, libfiu %s\n", last, with_fiu_ ? "preloaded" : "not there");
}

}  // namespace
}  // namespace din
