// Matrix units (Intel AMX): the sums of the pair work on tiles of bf16. All of its instructions are in matrix_unit.cc;
// how a request flows through is drawn in activation_unit.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace din {

// A tile is 16 rows of 64 bytes: of a, 16 rows of 32 bf16; of b, 16 pairs of rows of 16 columns, a pair of bf16 in the
// bits of a float (bf16.h); of c, 16 rows of 16 floats.
inline constexpr size_t kMatrixRows = 16;
inline constexpr size_t kMatrixColumns = 16;
inline constexpr size_t kMatrixDepth = 32;

//   c[m][n] = bias[m] + sum over k of a[m][k] * b[k][n]     for 16 rows m and 1 to 3 tiles of 16 columns n
//
// An element's bits depend on its row of a and its column of b alone. Denormal numbers count as zero.
struct MatrixTiles {
  const uint16_t* a;  // bf16 [16][a_step]
  size_t a_step;      // numbers from one row to the next
  const float* b;     // pairs [depth / 2][b_step]
  size_t b_step;      // floats from one pair of rows to the next
  size_t depth;       // values of k, a multiple of 32
  const float* bias;  // [16][16]: each 16 times
  float* c;           // [16][c_step]
  size_t c_step;      // floats
  // What rounding to bf16 left of a and b, as far behind them; for `split`, which computes
  // a b + low(a) b + a low(b) and leaves out low(a) low(b), below 2^-18 of the product.
  size_t a_low = 0;
  size_t b_low = 0;
};

struct MatrixUnit {
  using Multiply = void(const MatrixTiles& tiles);
  // A thread calls `multiply` between these two, which set its tile registers up and give them back.
  void (*begin)();
  void (*end)();
  Multiply* bf16[3];  // by the tiles of columns, less one
  Multiply* split[3];
};

// What this CPU has and the kernel lets the process use; null where there is none. Asks once.
const MatrixUnit* MatrixUnitOfCpu();
// The same in plain loops.
const MatrixUnit& EmulatedMatrixUnit();

// What activation units are created for: MatrixUnitOfCpu(), unless a test has chosen another.
const MatrixUnit* CurrentMatrixUnit();

// While one lives, CurrentMatrixUnit() is this. For tests, from one thread.
class ScopedMatrixUnit {
 public:
  explicit ScopedMatrixUnit(const MatrixUnit* unit);
  ~ScopedMatrixUnit();
  ScopedMatrixUnit(const ScopedMatrixUnit&) = delete;
  ScopedMatrixUnit& operator=(const ScopedMatrixUnit&) = delete;

 private:
  const MatrixUnit* const before_;
};

}  // namespace din
