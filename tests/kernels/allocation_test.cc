// What the kernels allocate once they run: nothing. Every operator new of the process is counted here, oneDNN's too.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "kernels/activation_unit.h"
#include "kernels/dense.h"
#include "kernels/gather.h"
#include "tests/kernels/test_data.h"

namespace {

std::atomic<size_t> allocations{0};

// Not inlined: the compiler would take `new` for one allocator and `free` for another and warn.
[[gnu::noinline]] void* Allocate(size_t size, size_t alignment) {
  ++allocations;
  void* p = nullptr;
  if (posix_memalign(&p, std::max(alignment, sizeof(void*)), size) != 0) throw std::bad_alloc();
  return p;
}

[[gnu::noinline]] void Release(void* p) { std::free(p); }

}  // namespace

void* operator new(size_t size) { return Allocate(size, alignof(std::max_align_t)); }
void* operator new[](size_t size) { return Allocate(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void* operator new[](size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void operator delete(void* p) noexcept { Release(p); }
void operator delete[](void* p) noexcept { Release(p); }
void operator delete(void* p, size_t) noexcept { Release(p); }
void operator delete[](void* p, size_t) noexcept { Release(p); }
void operator delete(void* p, std::align_val_t) noexcept { Release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { Release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Release(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { Release(p); }

namespace din {
namespace {

template <typename Function>
size_t AllocationsOf(const Function& function) {
  const size_t before = allocations;
  function();
  return allocations - before;
}

TEST(AllocationTest, TheCounterCounts) {
  EXPECT_EQ(AllocationsOf([] {
              int* volatile p = new int(1);  // seen, so the compiler may not leave the pair out
              delete p;
            }),
            1u);
}

TEST(AllocationTest, AttentionGatherAndActivationAllocateNothing) {
  Random random(61);
  for (const InstructionSet isa : SupportedInstructionSets()) {
    for (const Normalise normalise : {Normalise::kNone, Normalise::kSoftmax, Normalise::kSigmoid}) {
      ActivationUnitWeights w{.width = 36,
                              .query_weight = random.Normal(36 * 36, 1),
                              .key_weight = random.Normal(36 * 36, 1),
                              .product_weight = random.Normal(36 * 36, 1)};
      w.hidden.push_back({36, {}, random.Normal(36, 1), random.OfKind(ActivationKind::kDice, 36)});
      w.out_weight = random.Normal(36, 1);
      w.normalise = normalise;
      const auto unit = ActivationUnit::Create(w, isa);
      const std::vector<float> table = random.Normal(100 * 36, 1);
      std::vector<uint32_t> rows(100);
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint32_t>(random.Below(100));
      GuardedFloats keys(100 * 36), queries(9 * 36), pooled(9 * 36), scratch(unit->ScratchFloats(9, 100));
      EXPECT_EQ(AllocationsOf([&] {
                  const EmbeddingTable t{table.data(), RowType::kF32, 100, 36};
                  Gather(t, rows, keys.data(), 36, isa);
                  Gather(t, {rows.data(), 9}, queries.data(), 36, isa);
                  unit->Pool({.queries = queries.data(),
                              .query_stride = 36,
                              .candidates = 9,
                              .keys = keys.data(),
                              .behaviours = 100,
                              .pooled = pooled.data(),
                              .pooled_stride = 36},
                             scratch.data());
                  GatherPool(t, rows, PoolKind::kMean, 0, 0, pooled.data(), isa);
                  Activate(w.hidden[0].activation, isa, pooled.data(), 9, 36, 36);
                  Sigmoid(isa, pooled.data(), 9 * 36);
                }),
                0u)
          << Name(isa);
    }
  }
}

// What running a layer of this shape on 133 rows takes; nothing of it may stay.
size_t AllocationsOfDense(size_t in, size_t out) {
  Random random(62);
  const DenseLayerWeights weights{in, out, random.Normal(in * out, 0.1f), random.Normal(out, 1),
                                  random.OfKind(ActivationKind::kDice, out)};
  const auto layer = DenseLayer::Create(weights, BestInstructionSet());
  EXPECT_TRUE(layer.ok()) << layer.status();
  const size_t rows = DenseLayer::PaddedRows(133);
  GuardedFloats x(rows * in), y(rows * out), scratch((*layer)->ScratchBytes() / sizeof(float) + 1);
  std::fill_n(x.data(), rows * in, 0.5f);
  const auto run = [&] { (*layer)->Run(x.data(), 133, y.data(), scratch.data()); };
  run();
  const size_t in_use = mallinfo2().uordblks;
  const size_t made = AllocationsOf(run);
  EXPECT_EQ(mallinfo2().uordblks, in_use);
  return made;
}

TEST(AllocationTest, ADenseLayerAllocatesNothing) {
  EXPECT_EQ(AllocationsOfDense(80, 40), 0u);
  EXPECT_EQ(AllocationsOfDense(512, 512), 0u);
}

// oneDNN 2.6.3 makes a map of the arguments inside every execution, 6 or 7 small allocations that it frees at once.
// Beyond those there is nothing: 133 rows are at most 34 blocks.
TEST(AllocationTest, ALargeDenseLayerAllocatesWhatOneDnnTakesForTheCall) {
  const size_t made = AllocationsOfDense(513, 512);
  std::cout << "oneDNN: " << made << " allocations for 133 rows\n";
  EXPECT_GT(made, 0u);
  EXPECT_LE(made, 34u * 7u);
}

}  // namespace
}  // namespace din
