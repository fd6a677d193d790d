#include "kernels/dense.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "dnnl.hpp"
#include "kernels/small_dense.h"

// Debian's oneDNN runs on GNU OpenMP. Not <omp.h>: it may belong to another compiler's runtime.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads();

namespace din {
namespace {

// oneDNN's primitives have a fixed number of rows. A call is cut into as many of the largest as fit, then smaller ones.
constexpr std::array<size_t, 3> kBlockRows = {64, 16, 4};
constexpr size_t kSmallestBlock = kBlockRows.back();

// Up to 1 MiB of weights, a second-level cache, they are ours: 2 to 12 times faster than oneDNN on one row, 4 to 40 %
// on 200, and nothing is allocated. At 2 and 8 MiB the two are equal where the third-level cache is large; oneDNN's
// blocks do not rely on that. A layer stays with one of the two, for the order in which they add up is not the same.
constexpr size_t kSmallWeights = size_t{1} << 18;

using dnnl::memory;
constexpr auto kFloat = memory::data_type::f32;

// This thread is all that oneDNN may use while it lives: otherwise it opens a team of threads, per thread.
class SingleThread {
 public:
  SingleThread() : saved_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThread() { omp_set_num_threads(saved_); }
  SingleThread(const SingleThread&) = delete;
  SingleThread& operator=(const SingleThread&) = delete;

 private:
  const int saved_;
};

// oneDNN accepts a primitive, a stream and memories together only if they are of one engine.
const dnnl::engine& CpuEngine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::dim Dim(size_t n) { return static_cast<memory::dim>(n); }
memory::desc RowMajor(size_t rows, size_t columns) {
  return {{Dim(rows), Dim(columns)}, kFloat, memory::format_tag::ab};
}

// oneDNN's memory objects are mutable handles on buffers and cost an allocation, so they can neither be shared by
// threads nor made in a request. Each thread keeps one per shape; shapes are few, and come back with the next model.
class ThreadState {
 public:
  enum class Role { kSource, kBias, kDestination, kScratchpad };

  static ThreadState& Get() {
    thread_local ThreadState state;
    return state;
  }

  const dnnl::stream& stream() const { return stream_; }

  dnnl_memory_t Handle(Role role, size_t rows, size_t columns, void* data) {
    for (Entry& e : entries_) {
      if (e.role == role && e.rows == rows && e.columns == columns) return e.Point(data);
    }
    const memory::desc desc = role == Role::kScratchpad
                                  ? memory::desc({Dim(columns) + 1}, memory::data_type::u8, memory::format_tag::a)
                              : role == Role::kBias ? memory::desc({Dim(columns)}, kFloat, memory::format_tag::a)
                                                    : RowMajor(rows, columns);
    entries_.push_back({role, rows, columns, memory(desc, CpuEngine(), data)});
    return entries_.back().Point(data);
  }

 private:
  struct Entry {
    Role role;
    size_t rows;
    size_t columns;
    memory handle;

    dnnl_memory_t Point(void* data) {
      handle.set_data_handle(data);
      return handle.get();
    }
  };

  dnnl::stream stream_{CpuEngine()};
  std::vector<Entry> entries_;
};

// y = weight x + bias for a fixed number of rows.
struct Block {
  size_t rows = 0;
  dnnl::inner_product_forward primitive;
  memory weight;
  size_t scratch_bytes = 0;
};

class OneDnnLayer final : public DenseLayer {
 public:
  OneDnnLayer(const DenseLayerWeights& weights, InstructionSet isa)
      : in_(weights.in),
        out_(weights.out),
        isa_(isa),
        activation_(weights.activation),
        bias_({{Dim(out_)}, kFloat, memory::format_tag::a}, CpuEngine()) {
    std::memcpy(bias_.get_data_handle(), weights.bias.data(), out_ * sizeof(float));
    for (const size_t rows : kBlockRows) AddBlock(rows, weights.weight);
    KeepInterchangeableBlocks(weights.weight);
  }

  size_t in() const override { return in_; }
  size_t out() const override { return out_; }

  size_t ScratchBytes() const override {
    size_t bytes = 0;
    for (const Block& block : blocks_) bytes = std::max(bytes, block.scratch_bytes);
    return bytes;
  }

  void RunFrom(const float* start, const float* x, size_t rows, float* y, void* scratch) const override {
    const SingleThread single_thread;
    size_t row = 0;
    for (const Block& block : blocks_) {
      for (; row + block.rows <= PaddedRows(rows); row += block.rows) {
        Execute(block, start, x + row * in_, y + row * out_, scratch);
      }
    }
    Activate(activation_, isa_, y, rows, out_, out_);
  }

 private:
  void AddBlock(size_t rows, const std::vector<float>& weight) {
    const memory::desc any({Dim(out_), Dim(in_)}, kFloat, memory::format_tag::any);
    const dnnl::inner_product_forward::desc desc(dnnl::prop_kind::forward_inference, RowMajor(rows, in_), any,
                                                 bias_.get_desc(), RowMajor(rows, out_));
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the default one belongs to the creating thread
    const dnnl::inner_product_forward::primitive_desc chosen(desc, attributes, CpuEngine());
    Block block{rows, dnnl::inner_product_forward(chosen), memory(), chosen.scratchpad_desc().get_size()};
    if (!blocks_.empty() && blocks_.back().weight.get_desc() == chosen.weights_desc()) {
      block.weight = blocks_.back().weight;
    } else {
      block.weight = memory(chosen.weights_desc(), CpuEngine());
      memory plain(RowMajor(out_, in_), CpuEngine(), const_cast<float*>(weight.data()));
      dnnl::stream stream(CpuEngine());
      dnnl::reorder(plain, block.weight).execute(stream, plain, block.weight);
      stream.wait();
    }
    blocks_.push_back(std::move(block));
  }

  void Execute(const Block& block, const float* start, const float* x, float* y, void* scratch) const {
    ThreadState& thread = ThreadState::Get();
    using Role = ThreadState::Role;
    dnnl_memory_t bias =
        start == nullptr ? bias_.get() : thread.Handle(Role::kBias, 1, out_, const_cast<float*>(start));
    const std::array<dnnl_exec_arg_t, 5> args = {{
        {DNNL_ARG_SRC, thread.Handle(Role::kSource, block.rows, in_, const_cast<float*>(x))},
        {DNNL_ARG_WEIGHTS, block.weight.get()},
        {DNNL_ARG_BIAS, bias},
        {DNNL_ARG_DST, thread.Handle(Role::kDestination, block.rows, out_, y)},
        {DNNL_ARG_SCRATCHPAD, thread.Handle(Role::kScratchpad, 1, block.scratch_bytes, scratch)},
    }};
    const dnnl_status_t status = dnnl_primitive_execute(block.primitive.get(), thread.stream().get(),
                                                        static_cast<int>(args.size()), args.data());
    if (status != dnnl_success) {  // out of memory, or a bug: no score is better than a wrong one
      std::fprintf(stderr, "oneDNN failed on a dense layer %zu -> %zu: status %d\n", in_, out_, status);
      std::abort();
    }
  }

  void KeepInterchangeableBlocks(const std::vector<float>& weight);

  const size_t in_;
  const size_t out_;
  const InstructionSet isa_;
  const Activation activation_;
  memory bias_;
  std::vector<Block> blocks_;  // by rows, descending
};

// oneDNN's kernels add up in an order of their own, which may depend on the number of rows, and even on a row's place
// among them (its AVX2 kernel on 8 rows does). Each block is tried on copies of random rows: only those stay whose rows
// all equal, bit for bit, what the smallest gives. With the orders different, a wrong block passes 32 trials of at
// least one output with a probability far below 2^-32.
void OneDnnLayer::KeepInterchangeableBlocks(const std::vector<float>& weight) {
  constexpr size_t kTrials = 32;
  memory x(RowMajor(kBlockRows.front(), in_), CpuEngine());
  memory y(RowMajor(kBlockRows.front(), out_), CpuEngine());
  memory scratch({{Dim(ScratchBytes()) + 1}, memory::data_type::u8, memory::format_tag::a}, CpuEngine());
  auto* const in = static_cast<float*>(x.get_data_handle());
  auto* const out = static_cast<float*>(y.get_data_handle());

  const auto interchangeable = [&](const Block& block, const Block& smallest) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> expected(out_);
    for (size_t trial = 0; trial < kTrials; ++trial) {
      std::generate_n(in, in_, [&] { return normal(random); });
      for (size_t r = 1; r < block.rows; ++r) std::copy_n(in, in_, in + r * in_);
      Execute(smallest, nullptr, in, out, scratch.get_data_handle());
      std::copy_n(out, out_, expected.data());
      Execute(block, nullptr, in, out, scratch.get_data_handle());
      for (size_t r = 0; r < block.rows; ++r) {
        if (std::memcmp(out + r * out_, expected.data(), out_ * sizeof(float)) != 0) return false;
      }
    }
    return true;
  };
  if (!interchangeable(blocks_.back(), blocks_.back())) AddBlock(1, weight);
  const Block smallest = blocks_.back();
  std::erase_if(blocks_, [&](const Block& block) { return !interchangeable(block, smallest); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<const DenseLayer>> DenseLayer::Create(const DenseLayerWeights& weights,
                                                                     InstructionSet isa) {
  if (weights.in * weights.out <= kSmallWeights) return CreateSmallDenseLayer(weights, isa);
  const SingleThread single_thread;
  try {
    return std::make_unique<const OneDnnLayer>(weights, isa);
  } catch (const dnnl::error& e) {
    return absl::InternalError(absl::StrCat("oneDNN refuses a dense layer ", weights.in, " -> ", weights.out, ": ",
                                            e.what(), " (status ", static_cast<int>(e.status), ")"));
  }
}

size_t DenseLayer::PaddedRows(size_t rows) { return (rows + kSmallestBlock - 1) / kSmallestBlock * kSmallestBlock; }

std::string_view DenseLibrary() {
  static const std::string name = [] {
    const dnnl::version_t* version = dnnl::version();
    return absl::StrCat(version->major, ".", version->minor, ".", version->patch);
  }();
  return name;
}

bool LimitDenseInstructionSet([[maybe_unused]] InstructionSet limit) {
#if !defined(__x86_64__)
  return true;  // there is one set, and oneDNN refuses every limit
#else
  switch (limit) {
    case InstructionSet::kBaseline:
      return dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41) == dnnl::status::success;
    case InstructionSet::kAvx2:
      return dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2) == dnnl::status::success;
    case InstructionSet::kAvx512:
      return dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core) == dnnl::status::success;
  }
  return false;
#endif
}

}  // namespace din
