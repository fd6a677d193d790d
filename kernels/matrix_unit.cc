#include "kernels/matrix_unit.h"

#include <atomic>

#include "kernels/bf16.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define DIN_HAS_AMX 1
#endif

namespace din {
namespace {

// --- Plain loops -----------------------------------------------------------------------------------------------------

// TDPBF16PS, but for its way with denormal numbers: a chain for the even k of a tile and one for the odd ones.
void MultiplyTile(const uint16_t* a, size_t a_step, const float* b, size_t b_step, float* c, size_t c_step) {
  for (size_t m = 0; m < kMatrixRows; ++m, a += a_step, c += c_step) {
    float even[kMatrixColumns] = {};
    float odd[kMatrixColumns] = {};
    for (size_t k = 0; k < kMatrixDepth; k += 2) {
      const float left_even = FromBf16(a[k]);
      const float left_odd = FromBf16(a[k + 1]);
      for (size_t n = 0; n < kMatrixColumns; ++n) {
        const auto pair = std::bit_cast<uint32_t>(b[k / 2 * b_step + n]);
        even[n] += left_even * std::bit_cast<float>(pair << 16);
        odd[n] += left_odd * std::bit_cast<float>(pair & 0xFFFF0000u);
      }
    }
    for (size_t n = 0; n < kMatrixColumns; ++n) c[n] += even[n] + odd[n];
  }
}

template <size_t kTiles, bool kSplit>
void EmulatedMultiply(const MatrixTiles& t) {
  for (size_t tile = 0; tile < kTiles; ++tile) {
    const float* b = t.b + tile * kMatrixColumns;
    float* c = t.c + tile * kMatrixColumns;
    for (size_t m = 0; m < kMatrixRows; ++m) {
      for (size_t n = 0; n < kMatrixColumns; ++n) c[m * t.c_step + n] = t.bias[m * kMatrixColumns + n];
    }
    for (size_t k = 0; k < t.depth; k += kMatrixDepth) {
      const uint16_t* left = t.a + k;
      const float* right = b + k / 2 * t.b_step;
      MultiplyTile(left, t.a_step, right, t.b_step, c, t.c_step);
      if (kSplit) MultiplyTile(left + t.a_low, t.a_step, right, t.b_step, c, t.c_step);
      if (kSplit) MultiplyTile(left, t.a_step, right + t.b_low, t.b_step, c, t.c_step);
    }
  }
}

constexpr MatrixUnit kEmulated = {
    .begin = [] {},
    .end = [] {},
    .bf16 = {EmulatedMultiply<1, false>, EmulatedMultiply<2, false>, EmulatedMultiply<3, false>},
    .split = {EmulatedMultiply<1, true>, EmulatedMultiply<2, true>, EmulatedMultiply<3, true>},
};

// --- AMX -------------------------------------------------------------------------------------------------------------

#ifdef DIN_HAS_AMX

// Assembler of our own: GCC 12's intrinsics would need the whole file built for AMX, and its _tile_loadconfig lets the
// compiler drop the stores of what it loads. Compilers keep nothing in tile registers by themselves.
template <int kTile>
void LoadTile(const void* rows, size_t bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(bytes), "i"(kTile) : "memory");
}
template <int kTile>
void StoreTile(void* rows, size_t bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(bytes), "i"(kTile) : "memory");
}
template <int kSum, int kLeft, int kRight>
void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight));
}

// Registers: 0-2 sums, 3 a, 4 what rounding left of a, 5-7 b.
template <size_t kTiles, bool kSplit>
void AmxMultiply(const MatrixTiles& t) {
  constexpr size_t kFloat = sizeof(float);
  const size_t a_bytes = t.a_step * sizeof(uint16_t);
  const size_t b_bytes = t.b_step * kFloat;
  LoadTile<0>(t.bias, kMatrixColumns * kFloat);
  if constexpr (kTiles > 1) LoadTile<1>(t.bias, kMatrixColumns * kFloat);
  if constexpr (kTiles > 2) LoadTile<2>(t.bias, kMatrixColumns * kFloat);
  const uint16_t* a = t.a;
  const float* b = t.b;
  for (size_t k = t.depth; k > 0; k -= kMatrixDepth, a += kMatrixDepth, b += kMatrixDepth / 2 * t.b_step) {
    LoadTile<3>(a, a_bytes);
    LoadTile<5>(b, b_bytes);
    MultiplyTiles<0, 3, 5>();
    if constexpr (kTiles > 1) {
      LoadTile<6>(b + kMatrixColumns, b_bytes);
      MultiplyTiles<1, 3, 6>();
    }
    if constexpr (kTiles > 2) {
      LoadTile<7>(b + 2 * kMatrixColumns, b_bytes);
      MultiplyTiles<2, 3, 7>();
    }
    if constexpr (kSplit) {
      LoadTile<4>(a + t.a_low, a_bytes);
      MultiplyTiles<0, 4, 5>();
      if constexpr (kTiles > 1) MultiplyTiles<1, 4, 6>();
      if constexpr (kTiles > 2) MultiplyTiles<2, 4, 7>();
      LoadTile<5>(b + t.b_low, b_bytes);
      MultiplyTiles<0, 3, 5>();
      if constexpr (kTiles > 1) {
        LoadTile<6>(b + t.b_low + kMatrixColumns, b_bytes);
        MultiplyTiles<1, 3, 6>();
      }
      if constexpr (kTiles > 2) {
        LoadTile<7>(b + t.b_low + 2 * kMatrixColumns, b_bytes);
        MultiplyTiles<2, 3, 7>();
      }
    }
  }
  const size_t c_bytes = t.c_step * kFloat;
  StoreTile<0>(t.c, c_bytes);
  if constexpr (kTiles > 1) StoreTile<1>(t.c + kMatrixColumns, c_bytes);
  if constexpr (kTiles > 2) StoreTile<2>(t.c + 2 * kMatrixColumns, c_bytes);
}

// Palette 1: every tile has 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

constinit const TileConfig kTileConfig;

constexpr MatrixUnit kAmx = {
    .begin = [] { asm volatile("ldtilecfg %0" ::"m"(kTileConfig)); },
    // Tiles in their initial state need not be saved when threads change.
    .end = [] { asm volatile("tilerelease"); },
    .bf16 = {AmxMultiply<1, false>, AmxMultiply<2, false>, AmxMultiply<3, false>},
    .split = {AmxMultiply<1, true>, AmxMultiply<2, true>, AmxMultiply<3, true>},
};

// The CPU has tiles of bf16, the kernel saves them, and lets this process use them: threads inherit that.
bool MayUseAmx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsSavesRegisters = 1u << 27;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kOsSavesRegisters) == 0) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (~d & (kAmxBf16 | kAmxTile)) != 0) return false;
  uint32_t saved = 0, high = 0;
  asm("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  constexpr uint32_t kTileState = 3u << 17;
  if ((saved & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // <asm/prctl.h>, since Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#endif

std::atomic<const MatrixUnit*>& Current() {
  static std::atomic<const MatrixUnit*> current{MatrixUnitOfCpu()};
  return current;
}

}  // namespace

const MatrixUnit* MatrixUnitOfCpu() {
#ifdef DIN_HAS_AMX
  static const bool has = MayUseAmx();
  return has ? &kAmx : nullptr;
#else
  return nullptr;
#endif
}

const MatrixUnit& EmulatedMatrixUnit() { return kEmulated; }

const MatrixUnit* CurrentMatrixUnit() { return Current(); }

ScopedMatrixUnit::ScopedMatrixUnit(const MatrixUnit* unit) : before_(Current().exchange(unit)) {}
ScopedMatrixUnit::~ScopedMatrixUnit() { Current() = before_; }

}  // namespace din
