#include "kernels/interaction.h"

#include "kernels/dispatch-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/interaction.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// In vectors of D and the rest in ever smaller ones: nothing past either is read.
template <class D>
float InnerProduct(D d, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t n) {
  float product = 0;
  size_t i = 0;
  if (n >= hn::Lanes(d)) {
    auto sum = hn::Zero(d);
    for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
    product = hn::GetLane(hn::SumOfLanes(d, sum));
  }
  if constexpr (hn::MaxLanes(d) > 1) {
    if (i < n) product += InnerProduct(hn::Half<D>(), a + i, b + i, n - i);
  }
  return product;
}

void InnerProductsImpl(const InteractionArgs& args) {
  const hn::ScalableTag<float> d;
  for (size_t r = 0; r < args.rows; ++r) {
    float* out = args.out + r * args.out_stride;
    for (size_t i = 0; i < args.vectors.size(); ++i) {
      const RowVectors& a = args.vectors[i];
      for (size_t j = i + 1; j < args.vectors.size(); ++j, ++out) {
        const RowVectors& b = args.vectors[j];
        const bool known = r > 0 && a.stride == 0 && b.stride == 0;
        *out = known ? *(out - args.out_stride)
                     : InnerProduct(d, a.data + r * a.stride, b.data + r * b.stride, args.width);
      }
    }
  }
}

template <class V>
struct Pairs {
  V sum;       // of the vectors so far
  V products;  // of each with the sum of those before it
};

// Adds elements [i, i + lanes of D) of row r: of the vectors for all rows, or of the others.
template <class D, class V = hn::Vec<D>>
HWY_INLINE Pairs<V> AddVectors(D d, const InteractionArgs& args, size_t i, size_t r, bool shared, Pairs<V> pairs) {
  for (const RowVectors& vector : args.vectors) {
    if ((vector.stride == 0) != shared) continue;
    const V v = hn::LoadU(d, vector.data + r * vector.stride + i);
    pairs.products = hn::MulAdd(v, pairs.sum, pairs.products);
    pairs.sum = hn::Add(pairs.sum, v);
  }
  return pairs;
}

template <class D>
void BiInteractionFrom(D d, const InteractionArgs& args, size_t i) {
  for (; i + hn::Lanes(d) <= args.width; i += hn::Lanes(d)) {
    const auto common = AddVectors(d, args, i, 0, true, {hn::Zero(d), hn::Zero(d)});
    for (size_t r = 0; r < args.rows; ++r) {
      hn::StoreU(AddVectors(d, args, i, r, false, common).products, d, args.out + r * args.out_stride + i);
    }
  }
  if constexpr (hn::MaxLanes(d) > 1) {
    if (i < args.width) BiInteractionFrom(hn::Half<D>(), args, i);
  }
}

void BiInteractionImpl(const InteractionArgs& args) { BiInteractionFrom(hn::ScalableTag<float>(), args, 0); }

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {

HWY_EXPORT(InnerProductsImpl);
HWY_EXPORT(BiInteractionImpl);

void InnerProducts(const InteractionArgs& args, InstructionSet isa) {
  Select(HWY_DISPATCH_TABLE(InnerProductsImpl), isa)(args);
}

void BiInteraction(const InteractionArgs& args, InstructionSet isa) {
  Select(HWY_DISPATCH_TABLE(BiInteractionImpl), isa)(args);
}

}  // namespace din
#endif  // HWY_ONCE
