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

// Units [u, units) of one row, in vectors of D and the rest in ever smaller ones: nothing past the row is touched.
template <ActivationKind kKind, class D>
void ActivateRow(D d, const Activation& a, float* HWY_RESTRICT x, size_t u, size_t units) {
  for (; u + hn::Lanes(d) <= units; u += hn::Lanes(d)) {
    hn::StoreU(ActivateUnit<kKind, UnitsInLanes>(d, a, u, hn::LoadU(d, x + u)), d, x + u);
  }
  if constexpr (hn::MaxLanes(d) > 1) {
    if (u < units) ActivateRow<kKind>(hn::Half<D>(), a, x, u, units);
  }
}

template <ActivationKind kKind>
void ActivateRows(const Activation& a, float* x, size_t rows, size_t units, size_t stride) {
  for (size_t r = 0; r < rows; ++r) ActivateRow<kKind>(hn::ScalableTag<float>(), a, x + r * stride, 0, units);
}

// One lane at a time: the variant is rare and its sums run along the row.
void ActivateDiceRow(const Activation& a, float* HWY_RESTRICT x, size_t units) {
  const hn::CappedTag<float, 1> d;
  float mean = 0;
  for (size_t u = 0; u < units; ++u) mean += x[u];
  mean /= static_cast<float>(units);
  float sum = static_cast<float>(units) * a.eps;
  for (size_t u = 0; u < units; ++u) sum += (x[u] - mean) * (x[u] - mean);
  const auto inverse = InverseDeviation(d, hn::Set(d, sum));
  for (size_t u = 0; u < units; ++u) {
    const auto value = hn::LoadU(d, x + u);
    const auto z = hn::Mul(hn::Sub(value, hn::Set(d, mean)), inverse);
    hn::StoreU(Gate<ExactSigmoid>(d, value, z, hn::LoadU(d, a.alpha.data() + u)), d, x + u);
  }
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
