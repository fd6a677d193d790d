// Holds AMX's instructions, as matrix_unit.cc uses them, to the same in plain loops, without an operating system
// underneath. Prints to the first serial port and ends with PASS or FAIL.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/bf16.h"
#include "kernels/matrix_unit.h"

extern "C" {
// What matrix_unit.cc takes from the C library. The kernel's permission is granted: there is none to ask.
long syscall(long, ...) { return 0; }
void* memset(void* to, int value, size_t n) {
  for (size_t i = 0; i < n; ++i) static_cast<char*>(to)[i] = static_cast<char>(value);
  return to;
}
}

namespace din {
namespace {

constexpr uint16_t kPort = 0x3F8;

void OutByte(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
uint8_t InByte(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
void Print(char c) {
  while ((InByte(kPort + 5) & 0x20) == 0) {
  }
  OutByte(kPort, static_cast<uint8_t>(c));
}
void Print(const char* text) {
  for (; *text != 0; ++text) Print(*text);
}
void Print(size_t n) {
  if (n >= 10) Print(n / 10);
  Print(static_cast<char>('0' + n % 10));
}

uint32_t state = 12345;
float Random() {  // in [-2, 2)
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state)) * 0x1p-30f;
}
float Left(float x) { return x - FromBf16(ToBf16(x)); }  // by rounding

constexpr size_t kDepth = 512;
constexpr size_t kColumns = 48;
uint16_t a[16 * 2 * kDepth];
float b[kDepth * kColumns];
float bias[256];
float sums[16 * kColumns];
float expected[16 * kColumns];

// True when both give the same bits.
bool Compare(const MatrixUnit& unit, size_t tiles, size_t depth, bool split) {
  const size_t columns = tiles * kMatrixColumns;
  for (size_t m = 0; m < 16; ++m) {
    for (size_t k = 0; k < depth; ++k) {
      const float x = Random();
      a[m * 2 * depth + k] = ToBf16(x);
      a[m * 2 * depth + depth + k] = ToBf16(Left(x));
    }
    const float x = Random();
    for (size_t n = 0; n < 16; ++n) bias[m * 16 + n] = x;
  }
  for (size_t k = 0; k < depth; k += 2) {
    for (size_t n = 0; n < columns; ++n) {
      const float x = Random();
      const float y = Random();
      b[k * columns + n] = Bf16Pair(x, y);
      b[(k + 1) * columns + n] = Bf16Pair(Left(x), Left(y));
    }
  }
  const auto run = [&](const MatrixUnit& u, float* c) {
    for (size_t i = 0; i < 16 * columns; ++i) c[i] = -1;
    u.begin();
    (split ? u.split : u.bf16)[tiles - 1]({.a = a,
                                           .a_step = 2 * depth,
                                           .b = b,
                                           .b_step = 2 * columns,
                                           .depth = depth,
                                           .bias = bias,
                                           .c = c,
                                           .c_step = columns,
                                           .a_low = depth,
                                           .b_low = columns});
    u.end();
  };
  run(unit, sums);
  run(EmulatedMatrixUnit(), expected);
  size_t differ = 0;
  for (size_t i = 0; i < 16 * columns; ++i)
    differ += std::bit_cast<uint32_t>(sums[i]) != std::bit_cast<uint32_t>(expected[i]);
  Print(split ? "fp32-split " : "bf16       ");
  Print(tiles);
  Print(" tiles, depth ");
  Print(depth);
  Print(": ");
  Print(differ);
  Print(" of ");
  Print(16 * columns);
  Print(" sums differ\n");
  return differ == 0;
}

}  // namespace
}  // namespace din

extern "C" void Main() {
  using namespace din;
  OutByte(kPort + 3, 3);  // 8 bits
  const MatrixUnit* unit = MatrixUnitOfCpu();
  bool same = unit != nullptr;
  if (unit == nullptr) Print("this CPU has no AMX\n");
  for (const bool split : {false, true}) {
    for (const size_t tiles : {1, 2, 3}) {
      for (const size_t depth : {32, 64, 96, 128, 512}) {
        if (unit != nullptr) same = Compare(*unit, tiles, depth, split) && same;
      }
    }
  }
  Print(same ? "PASS\n" : "FAIL\n");
}
