#include "kernels/gather.h"

#include <algorithm>
#include <type_traits>

#include "hwy/cache_control.h"
#include "kernels/dispatch-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gather.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace din {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// How elements [i, i + lanes of D) of a row become floats, reading exactly those.
struct F32 {
  using Element = float;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const float* row, size_t i) {
    return hn::LoadU(d, row + i);
  }
};

struct BF16 {
  using Element = uint16_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint16_t* row, size_t i) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, row + i))));
  }
};

struct F16 {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_SSE4
  // Without an instruction for it. (Highway's own emulation knows neither infinities nor NaNs.) The multiplication
  // never sees a denormal float, so a thread that flushes denormals gets the same.
  using Element = uint16_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint16_t* row, size_t i) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> du;
    const hn::RebindToSigned<D> di;
    const auto bits = hn::PromoteTo(du, hn::LoadU(d16, row + i));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto exponent = hn::And(bits, hn::Set(du, 0x7C00u));
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFu));
    // The exponent's bias is 15 in a half and 127 in a float; that of an infinity or NaN is all ones in both.
    const auto normal = hn::Add(hn::ShiftLeft<13>(magnitude), hn::Set(du, 112u << 23));
    const auto special = hn::Or(hn::ShiftLeft<13>(magnitude), hn::Set(du, 255u << 23));
    const auto subnormal =
        hn::BitCast(du, hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-24f)));
    const auto finite = hn::IfThenElse(hn::Eq(exponent, hn::Zero(du)), subnormal, normal);
    const auto value = hn::IfThenElse(hn::Eq(exponent, hn::Set(du, 0x7C00u)), special, finite);
    return hn::BitCast(d, hn::Or(sign, value));
  }
#else
  using Element = hwy::float16_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const hwy::float16_t* row, size_t i) {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), row + i));
  }
#endif
};

struct I8 {
  using Element = int8_t;
  float scale;
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, const int8_t* row, size_t i) const {
    const hn::RebindToSigned<D> d32;
    const auto whole = hn::PromoteTo(d32, hn::LoadU(hn::Rebind<int8_t, D>(), row + i));
    return hn::Mul(hn::ConvertTo(d, whole), hn::Set(d, scale));
  }
};

// kZeroRow.
struct Zeros {
  using Element = float;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const float*, size_t) {
    return hn::Zero(d);
  }
};

// What becomes of `value` and what is in `out`.
struct Assign {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Combine(D, const float*, V value) {
    return value;
  }
};
struct Sum {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Combine(D d, const float* out, V value) {
    return hn::Add(hn::LoadU(d, out), value);
  }
};
struct Max {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V Combine(D d, const float* out, V value) {
    return hn::Max(hn::LoadU(d, out), value);
  }
};

// out[i, dim) = Combine(out, row) in vectors of D and the rest in ever smaller ones: nothing past either is touched.
template <class Operation, class Format, class D>
HWY_INLINE void CombineRow(D d, Format format, const typename Format::Element* HWY_RESTRICT row,
                           float* HWY_RESTRICT out, size_t i, size_t dim) {
  for (; i + hn::Lanes(d) <= dim; i += hn::Lanes(d)) {
    hn::StoreU(Operation::Combine(d, out + i, format.Load(d, row, i)), d, out + i);
  }
  if constexpr (hn::MaxLanes(d) > 1) {
    if (i < dim) CombineRow<Operation>(hn::Half<D>(), format, row, out, i, dim);
  }
}

template <class Format>
const typename Format::Element* RowAt(const EmbeddingTable& table, uint32_t row) {
  using Element = typename Format::Element;
  if (HWY_UNLIKELY(table.overlay != nullptr)) {
    const size_t there = row + table.overlay_offset;
    if (HWY_UNLIKELY(table.overlay->Has(there))) {
      return static_cast<const Element*>(table.overlay->rows) + table.overlay->PlaceOf(there) * table.dim;
    }
  }
  return static_cast<const Element*>(table.data) + row * table.dim;
}

template <class Format>
Format FormatOf(const EmbeddingTable& table, uint32_t row) {
  if constexpr (std::is_same_v<Format, I8>) return {table.scales[row]};
  return {};
}

// `at`: where the row is; not used for kZeroRow.
template <class Format, class Operation>
void CombineTableRow(const EmbeddingTable& table, uint32_t row, const typename Format::Element* at, float* out) {
  const hn::ScalableTag<float> d;
  if (row == kZeroRow) return CombineRow<Operation>(d, Zeros(), nullptr, out, 0, table.dim);
  CombineRow<Operation>(d, FormatOf<Format>(table, row), at, out, 0, table.dim);
}

// Rows are spread over gigabytes: enough of them must be under way to hide the memory's latency.
constexpr size_t kRowsAhead = 8;
// What of a row is asked for ahead; the hardware follows longer ones by itself.
constexpr size_t kBytesAhead = 512;
constexpr size_t kCacheLine = 64;

// Where row i is, which is under way then. Always inlined: GCC 12 takes a function that only prefetches for one without
// effects and drops the calls.
template <class Format>
HWY_INLINE const typename Format::Element* PrefetchRow(const EmbeddingTable& table, std::span<const uint32_t> rows,
                                                       size_t i) {
  if (i >= rows.size() || rows[i] == kZeroRow) return nullptr;
  const auto* const row = RowAt<Format>(table, rows[i]);
  const size_t bytes = std::min(table.dim * sizeof(*row), kBytesAhead);
  for (size_t b = 0; b < bytes; b += kCacheLine) hwy::Prefetch(reinterpret_cast<const char*>(row) + b);
  if constexpr (std::is_same_v<Format, I8>) hwy::Prefetch(&table.scales[rows[i]]);
  return row;
}

// Calls visit(i, where row i is) for every row, with those after it under way. An overlay is asked once for each.
template <class Format, class Visit>
void ForEachRow(const EmbeddingTable& table, std::span<const uint32_t> rows, const Visit& visit) {
  const typename Format::Element* ahead[kRowsAhead];
  for (size_t i = 0; i < kRowsAhead; ++i) ahead[i] = PrefetchRow<Format>(table, rows, i);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto* const at = ahead[i % kRowsAhead];
    ahead[i % kRowsAhead] = PrefetchRow<Format>(table, rows, i + kRowsAhead);
    visit(i, at);
  }
}

template <class Format>
void GatherAs(const EmbeddingTable& table, std::span<const uint32_t> rows, float* out, size_t out_stride) {
  ForEachRow<Format>(table, rows, [&](size_t i, const typename Format::Element* at) HWY_ATTR {
    CombineTableRow<Format, Assign>(table, rows[i], at, out + i * out_stride);
  });
}

template <class Format>
void GatherPoolAs(const EmbeddingTable& table, std::span<const uint32_t> rows, PoolKind kind, float* out) {
  ForEachRow<Format>(table, rows, [&](size_t i, const typename Format::Element* at) HWY_ATTR {
    if (i == 0) {
      CombineTableRow<Format, Assign>(table, rows[i], at, out);
    } else if (kind == PoolKind::kMax) {
      CombineTableRow<Format, Max>(table, rows[i], at, out);
    } else {
      CombineTableRow<Format, Sum>(table, rows[i], at, out);
    }
  });
}

void GatherImpl(const EmbeddingTable& table, std::span<const uint32_t> rows, float* out, size_t out_stride) {
  switch (table.type) {
    case RowType::kF32:
      return GatherAs<F32>(table, rows, out, out_stride);
    case RowType::kF16:
      return GatherAs<F16>(table, rows, out, out_stride);
    case RowType::kBF16:
      return GatherAs<BF16>(table, rows, out, out_stride);
    case RowType::kI8:
      return GatherAs<I8>(table, rows, out, out_stride);
  }
}

void GatherPoolImpl(const EmbeddingTable& table, std::span<const uint32_t> rows, PoolKind kind, float* out) {
  switch (table.type) {
    case RowType::kF32:
      return GatherPoolAs<F32>(table, rows, kind, out);
    case RowType::kF16:
      return GatherPoolAs<F16>(table, rows, kind, out);
    case RowType::kBF16:
      return GatherPoolAs<BF16>(table, rows, kind, out);
    case RowType::kI8:
      return GatherPoolAs<I8>(table, rows, kind, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace din
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace din {

HWY_EXPORT(GatherImpl);
HWY_EXPORT(GatherPoolImpl);

void Gather(const EmbeddingTable& table, std::span<const uint32_t> rows, float* out, size_t out_stride,
            InstructionSet isa) {
  Select(HWY_DISPATCH_TABLE(GatherImpl), isa)(table, rows, out, out_stride);
}

void GatherPool(const EmbeddingTable& table, std::span<const uint32_t> rows, PoolKind kind, float divisor_epsilon,
                float empty_value, float* out, InstructionSet isa) {
  if (rows.empty()) {
    std::fill_n(out, table.dim, kind == PoolKind::kSum ? 0.0f : empty_value);
    return;
  }
  Select(HWY_DISPATCH_TABLE(GatherPoolImpl), isa)(table, rows, kind, out);
  if (kind != PoolKind::kMean) return;
  const float divisor = static_cast<float>(rows.size()) + divisor_epsilon;
  for (size_t d = 0; d < table.dim; ++d) out[d] /= divisor;
}

}  // namespace din
#endif  // HWY_ONCE
