// The activations, once, for whatever is in the lanes: the units of a row (tower), or behaviours (attention).
// Compiled for every target of Highway, hence this guard instead of #pragma once.
#if defined(DIN_KERNELS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIN_KERNELS_ACTIVATION_INL_H_
#undef DIN_KERNELS_ACTIVATION_INL_H_
#else
#define DIN_KERNELS_ACTIVATION_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/activation.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kLog2E = 1.44269504f;

#if HWY_TARGET <= HWY_AVX3
// Two instructions that Highway has no name for: y - floor(y), and x * 2^floor(y). Both take any y: an infinite one
// gives 0 and, in the scale, 0 or infinity.
HWY_INLINE hn::Vec512<float> AboveFloor(hn::Vec512<float> y) { return {_mm512_reduce_ps(y.raw, 9)}; }
HWY_INLINE hn::Vec256<float> AboveFloor(hn::Vec256<float> y) { return {_mm256_reduce_ps(y.raw, 9)}; }
template <size_t kLanes>
HWY_INLINE hn::Vec128<float, kLanes> AboveFloor(hn::Vec128<float, kLanes> y) {
  return {_mm_reduce_ps(y.raw, 9)};
}
HWY_INLINE hn::Vec512<float> ScaleByExp2(hn::Vec512<float> x, hn::Vec512<float> y) {
  return {_mm512_scalef_ps(x.raw, y.raw)};
}
HWY_INLINE hn::Vec256<float> ScaleByExp2(hn::Vec256<float> x, hn::Vec256<float> y) {
  return {_mm256_scalef_ps(x.raw, y.raw)};
}
template <size_t kLanes>
HWY_INLINE hn::Vec128<float, kLanes> ScaleByExp2(hn::Vec128<float, kLanes> x, hn::Vec128<float, kLanes> y) {
  return {_mm_scalef_ps(x.raw, y.raw)};
}

// 2^(x * scale) for any x that is a number; relative error 1e-7 and what the rounding of the product brings.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2OfProduct(D d, V x, V scale) {
  const V y = hn::Mul(x, scale);
  const V f = AboveFloor(y);
  // Minimax for the relative error on [0, 1] among polynomials with p(0) = 1 and p(1) = 2, exactly so in floats: 1e-7.
  V p = hn::Set(d, 1.879319316e-03f);
  p = hn::MulAdd(p, f, hn::Set(d, 8.990998380e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.581867695e-02f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.401593029e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931517124e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return ScaleByExp2(p, y);
}
#else
// exp(87) and exp(-87) are normal numbers; beyond, a sigmoid is 0 or 1 for any purpose.
inline constexpr float kExpLimit = 87.0f;

// 2^(x * scale) for a scale of log2(e) or its negative and any x that is a number, which counts as one in +-87;
// relative error 1e-7 and what the rounding of the product brings. 2^y = 2^n 2^f with n the nearest integer. Adding 1.5
// * 2^23 rounds y to n and leaves n in the low bits of the sum, from where a shift takes it into the exponent.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2OfProduct(D d, V x, V scale) {
  const hn::RebindToSigned<D> di;
  x = hn::Min(hn::Max(x, hn::Set(d, -kExpLimit)), hn::Set(d, kExpLimit));
  const V rounder = hn::Set(d, 12582912.0f);
  const V rounded = hn::MulAdd(x, scale, rounder);
  const V f = hn::MulSub(x, scale, hn::Sub(rounded, rounder));
  // Minimax for the relative error on [-0.5, 0.5] among polynomials with p(0) = 1: 1e-7.
  V p = hn::Set(d, 1.326469122e-03f);
  p = hn::MulAdd(p, f, hn::Set(d, 9.671518579e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550720915e-02f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402224392e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931470037e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, rounded))));
}
#endif

// exp(x), for x <= 0; relative error 1e-7 (1 + |x|).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpOfNegative(D d, V x) {
  return Exp2OfProduct(d, x, hn::Set(d, kLog2E));
}

// factor * sigmoid(x), the sigmoid with an absolute error of 1e-7 and in [0, 1] for every x that is a number. The
// division is rounded alike on every CPU, which the estimate instructions are not.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SigmoidTimes(D d, V x, V factor) {
  return hn::Div(factor, hn::Add(Exp2OfProduct(d, x, hn::Set(d, -kLog2E)), hn::Set(d, 1.0f)));
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Sigmoid(D d, V x) {
  return SigmoidTimes(d, x, hn::Set(d, 1.0f));
}

// How exact a sigmoid is: as above, or to 1e-4, for what is rounded to bf16 (4e-3) next.
struct ExactSigmoid {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Of(D d, V x) {
    return Sigmoid(d, x);
  }
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Times(D d, V x, V factor) {
    return SigmoidTimes(d, x, factor);
  }
};
#if HWY_TARGET <= HWY_AVX3
struct CoarseSigmoid {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Of(D d, V x) {
    const V y = hn::Mul(x, hn::Set(d, -kLog2E));
    const V f = AboveFloor(y);
    // As in Exp2OfProduct, of degree 3: 1e-4.
    V p = hn::Set(d, 7.826797016e-02f);
    p = hn::MulAdd(p, f, hn::Set(d, 2.263076823e-01f));
    p = hn::MulAdd(p, f, hn::Set(d, 6.954243475e-01f));
    p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
    return hn::ApproximateReciprocal(hn::Add(ScaleByExp2(p, y), hn::Set(d, 1.0f)));
  }
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Times(D d, V x, V factor) {
    return hn::Mul(Of(d, x), factor);
  }
};
#endif

// Less what CentreOf says.
template <class SigmoidKind>
struct CentredSigmoid {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Of(D d, V x) {
    return hn::Sub(SigmoidKind::Of(d, x), hn::Set(d, 0.5f));
  }
};

// How a parameter of unit u reaches the lanes.
struct UnitsInLanes {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const float* parameter, size_t u) {
    return hn::LoadU(d, parameter + u);
  }
};
struct UnitInAllLanes {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const float* parameter, size_t u) {
    return hn::Set(d, parameter[u]);
  }
};

// x * (alpha + (1 - alpha) * sigmoid(z))
template <class SigmoidKind, class D, class V = hn::Vec<D>>
HWY_INLINE V Gate(D d, V x, V z, V alpha) {
  return hn::Mul(x, hn::Add(SigmoidKind::Times(d, z, hn::Sub(hn::Set(d, 1.0f), alpha)), alpha));
}

// Every kind that works on one number at a time; kDiceRow needs the whole row first.
template <ActivationKind kKind, class Parameter, class SigmoidKind = ExactSigmoid, class D, class V = hn::Vec<D>>
HWY_INLINE V ActivateUnit(D d, const Activation& a, size_t u, V x) {
  if constexpr (kKind == ActivationKind::kSigmoid) {
    return SigmoidKind::Of(d, x);
  } else if constexpr (kKind == ActivationKind::kTanh) {
    return hn::MulSub(hn::Set(d, 2.0f), SigmoidKind::Of(d, hn::Add(x, x)), hn::Set(d, 1.0f));
  } else if constexpr (kKind == ActivationKind::kSlope) {
    const V alpha = Parameter::Get(d, a.alpha.data(), u);
    return hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, hn::Mul(alpha, x));
  } else {
    static_assert(kKind == ActivationKind::kDice);
    const V z = hn::MulAdd(Parameter::Get(d, a.scale.data(), u), x, Parameter::Get(d, a.shift.data(), u));
    return Gate<SigmoidKind>(d, x, z, Parameter::Get(d, a.alpha.data(), u));
  }
}

// 1 / sqrt(sum), where sum = 0 (a row of equal numbers, eps = 0) must not become a NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V InverseDeviation(D d, V sum) {
  const V smallest_normal = hn::Set(d, 1.17549435e-38f);
  return hn::Div(hn::Set(d, 1.0f), hn::Sqrt(hn::Max(sum, smallest_normal)));
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#endif
