// Random numbers, instruction sets and memory for the kernels' tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "kernels/activation.h"
#include "kernels/instruction_set.h"

namespace din {

// Seeded, and says so: the seed is in the output of a test that fails.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) { std::cout << "seed " << seed << "\n"; }

  float Uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(engine_); }

  std::vector<float> Normal(size_t n, float deviation) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> out(n);
    for (float& v : out) v = normal(engine_);
    return out;
  }

  std::vector<float> Uniforms(size_t n, float low, float high) {
    std::vector<float> out(n);
    for (float& v : out) v = Uniform(low, high);
    return out;
  }

  // Statistics as trained models have them: slopes of a few units, alphas between 0 and 1.
  Activation OfKind(ActivationKind kind, size_t units) {
    Activation a{.kind = kind};
    if (kind == ActivationKind::kDice) {
      a.scale = Uniforms(units, -3, 3);
      a.shift = Uniforms(units, -1, 1);
    }
    if (kind == ActivationKind::kDice || kind == ActivationKind::kDiceRow || kind == ActivationKind::kSlope) {
      a.alpha = Uniforms(units, 0, 1);
    }
    if (kind == ActivationKind::kDiceRow) a.eps = 1e-3f;
    return a;
  }

 private:
  std::mt19937 engine_;
};

inline constexpr ActivationKind kAllActivations[] = {ActivationKind::kNone,  ActivationKind::kSigmoid,
                                                     ActivationKind::kTanh,  ActivationKind::kSlope,
                                                     ActivationKind::kDice,  ActivationKind::kDiceRow};

// `n` floats, `misalignment` floats past a 64-byte boundary, between two guards.
class GuardedFloats {
 public:
  explicit GuardedFloats(size_t n, size_t misalignment = 0) : n_(n), first_(kGuard + misalignment) {
    const size_t bytes = (first_ + n + kGuard) * sizeof(float);
    memory_.reset(static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    size_ = bytes / sizeof(float);
    std::memset(memory_.get(), kPattern, bytes);
  }

  float* data() { return memory_.get() + first_; }
  float& operator[](size_t i) { return data()[i]; }

  // Neither guard was written, nor any float in [begin, end).
  bool GuardsIntact() const { return Untouched(0, first_) && Untouched(first_ + n_, size_); }
  bool IsUntouched(size_t begin, size_t end) const { return Untouched(first_ + begin, first_ + end); }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr unsigned char kPattern = 0xA5;

  struct Free {
    void operator()(float* p) const { std::free(p); }
  };

  bool Untouched(size_t begin, size_t end) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.get());
    for (size_t i = begin * sizeof(float); i < end * sizeof(float); ++i) {
      if (bytes[i] != kPattern) return false;
    }
    return true;
  }

  size_t n_;
  size_t first_;
  size_t size_ = 0;
  std::unique_ptr<float, Free> memory_;
};

}  // namespace din
