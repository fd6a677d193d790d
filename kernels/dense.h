// Fully connected layers: the tower and what surrounds it. Small ones on our own kernel, large ones on oneDNN.
// The only user of dnnl.hpp is dense.cc.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/activation.h"
#include "kernels/instruction_set.h"

namespace din {

// Folded weights of Linear + activation, row-major [out, in].
struct DenseLayerWeights {
  size_t in = 0;
  size_t out = 0;
  std::vector<float> weight;  // [out, in]
  std::vector<float> bias;    // [out]
  Activation activation;
};

// Immutable after Create; any number of threads. Rows are independent: a row's result is the same, bit for bit,
// whichever rows it is computed with and however many there are.
class DenseLayer {
 public:
  static absl::StatusOr<std::unique_ptr<const DenseLayer>> Create(const DenseLayerWeights& weights, InstructionSet isa);
  virtual ~DenseLayer() = default;

  virtual size_t in() const = 0;
  virtual size_t out() const = 0;
  // Bytes of scratch, 64-byte aligned, for Run with any number of rows.
  virtual size_t ScratchBytes() const = 0;
  // Rows that buffers must hold for Run(rows): rows rounded up to the block that the primitives work on. Input rows
  // past `rows` may hold anything finite; output rows past `rows` are overwritten with nothing of value.
  static size_t PaddedRows(size_t rows);
  // x [PaddedRows(rows), in] -> y [PaddedRows(rows), out], both contiguous, 64-byte aligned and not overlapping.
  // Does not fail. Allocates nothing itself after the calling thread's first call; oneDNN 2.6.3, which runs layers of
  // more than 1 MiB of weights, makes and frees six or seven small objects inside each execution of a primitive, of
  // which there is one per 64, 16 or 4 rows.
  void Run(const float* x, size_t rows, float* y, void* scratch) const { RunFrom(nullptr, x, rows, y, scratch); }
  // The same, adding to `start` instead of the layer's bias: [out], 64-byte aligned, its memory in whole 64 bytes.
  virtual void RunFrom(const float* start, const float* x, size_t rows, float* y, void* scratch) const = 0;
};

// What the layers run on: its version, such as "2.6.3".
std::string_view DenseLibrary();

}  // namespace din
