// Draws for tests and benches. The same on every machine with the same standard library.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <random>
#include <vector>

namespace din::testing {

using Rng = std::mt19937_64;

inline size_t Below(Rng& rng, size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(rng); }
inline size_t Between(Rng& rng, size_t low, size_t high) { return low + Below(rng, high - low + 1); }
inline bool Chance(Rng& rng, double p) { return std::bernoulli_distribution(p)(rng); }
inline double Uniform(Rng& rng, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(rng);
}
inline double Normal(Rng& rng, double sigma) { return std::normal_distribution<double>(0, sigma)(rng); }

inline std::vector<double> Normals(Rng& rng, size_t n, double sigma) {
  std::vector<double> out(n);
  for (double& v : out) v = Normal(rng, sigma);
  return out;
}

template <typename T>
T Pick(Rng& rng, std::initializer_list<T> from) {
  return from.begin()[Below(rng, from.size())];
}

}  // namespace din::testing
