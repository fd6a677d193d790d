#include "kernels/activation.h"

#include "kernels/dispatch-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

// Both take units [u, units) of one row in vectors of D and the rest in ever smaller ones: nothing past the row is
// touched.

// In place, x = value(d, u, x).
template <class D, class Value>
HWY_INLINE void ReplaceUnits(D d, float* HWY_RESTRICT x, size_t u, size_t units, const Value& value) {
  for (; u + hn::Lanes(d) <= units; u += hn::Lanes(d)) hn::StoreU(value(d, u, hn::LoadU(d, x + u)), d, x + u);
  if constexpr (hn::MaxLanes(d) > 1) {
    if (u < units) ReplaceUnits(hn::Half<D>(), x, u, units, value);
  }
}

// The sum of value(d, x).
template <class D, class Value>
HWY_INLINE float SumOfUnits(D d, const float* x, size_t u, size_t units, const Value& value) {
  auto sum = hn::Zero(d);
  for (; u + hn::Lanes(d) <= units; u += hn::Lanes(d)) sum = hn::Add(sum, value(d, hn::LoadU(d, x + u)));
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  if constexpr (hn::MaxLanes(d) > 1) {
    if (u < units) total += SumOfUnits(hn::Half<D>(), x, u, units, value);
  }
  return total;
}

template <ActivationKind kKind>
void ActivateRows(const Activation& a, float* x, size_t rows, size_t units, size_t stride) {
  for (size_t r = 0; r < rows; ++r, x += stride) {
    ReplaceUnits(hn::ScalableTag<float>(), x, 0, units, [&](auto d, size_t u, auto value) HWY_ATTR {
      return ActivateUnit<kKind, UnitsInLanes>(d, a, u, value);
    });
  }
}

void ActivateDiceRow(const Activation& a, float* x, size_t units) {
  const hn::ScalableTag<float> all;
  const auto n = static_cast<float>(units);
  const float mean = SumOfUnits(all, x, 0, units, [](auto, auto value) HWY_ATTR { return value; }) / n;
  const float squares = SumOfUnits(all, x, 0, units, [=](auto d, auto value) HWY_ATTR {
    const auto centred = hn::Sub(value, hn::Set(d, mean));
    return hn::Mul(centred, centred);
  });
  const float inverse = hn::GetLane(InverseDeviation(all, hn::Set(all, squares + n * a.eps)));
  ReplaceUnits(all, x, 0, units, [&, mean, inverse](auto d, size_t u, auto value) HWY_ATTR {
    const auto z = hn::Mul(hn::Sub(value, hn::Set(d, mean)), hn::Set(d, inverse));
    return Gate<ExactSigmoid>(d, value, z, hn::LoadU(d, a.alpha.data() + u));
  });
}

void ActivateImpl(const Activation& a, float* x, size_t rows, size_t units, size_t stride) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return;
    case ActivationKind::kSigmoid:
      return ActivateRows<ActivationKind::kSigmoid>(a, x, rows, units, stride);
    case ActivationKind::kTanh:
      return ActivateRows<ActivationKind::kTanh>(a, x, rows, units, stride);
    case ActivationKind::kSlope:
      return ActivateRows<ActivationKind::kSlope>(a, x, rows, units, stride);
    case ActivationKind::kDice:
      return ActivateRows<ActivationKind::kDice>(a, x, rows, units, stride);
    case ActivationKind::kDiceRow:
      for (size_t r = 0; r < rows; ++r) ActivateDiceRow(a, x + r * stride, units);
      return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {

HWY_EXPORT(ActivateImpl);

void Activate(const Activation& activation, InstructionSet isa, float* x, size_t rows, size_t units, size_t stride) {
  Select(HWY_DISPATCH_TABLE(ActivateImpl), isa)(activation, x, rows, units, stride);
}

void Sigmoid(InstructionSet isa, float* x, size_t n) {
  static const Activation sigmoid{.kind = ActivationKind::kSigmoid};
  Activate(sigmoid, isa, x, 1, n, n);
}

}  // namespace din
#endif  // HWY_ONCE
