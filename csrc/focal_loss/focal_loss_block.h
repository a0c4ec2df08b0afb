// The focal loss of blocks of elements: loops of constant length, which the compiler vectorises with any width. CPU
// only, no torch.
#pragma once

#include "focal_loss/focal_loss.h"
#include "focal_loss/focal_loss_cpu.h"

namespace retina_ops {

constexpr int kFocalWidth = 64;  // elements per block: four 512-bit registers of float

template <class T>
struct FocalBlock {
  alignas(64) T logits[kFocalWidth];
  alignas(64) T exponential[kFocalWidth];
  alignas(64) T targets[kFocalWidth];
  alignas(64) T loss[kFocalWidth];
  alignas(64) T derivative[kFocalWidth];
  alignas(64) T upstream[kFocalWidth];
  alignas(64) T alpha[kFocalWidth];
};

// The position in a block of its i-th element: bfloat16 is read and written in pairs (load_pairs), the rest in order.
RETINA_OPS_HOST_DEVICE int block_position(const FocalProblem& problem, int i) {
  return problem.dtype == Dtype::kBFloat16 ? i / 2 + i % 2 * (kFocalWidth / 2) : i;
}

// Reads `count` elements of `base` to their positions; the others become 0. dtype: that of the problem, or of the soft
// targets.
RETINA_OPS_HOST_DEVICE void load_elements(const FocalProblem& problem, const void* base, Dtype dtype, int64_t first,
                                          float* __restrict out, int count) {
  if (dtype == Dtype::kBFloat16) return load_pairs<kFocalWidth>(base, first, out, count);
  if (problem.dtype != Dtype::kBFloat16) return load_block<kFocalWidth>(base, dtype, first, out, count);
  alignas(64) float in_order[kFocalWidth];
  load_block<kFocalWidth>(base, dtype, first, in_order, count);
  for (int i = 0; i < kFocalWidth / 2; ++i) {
    out[i] = quiet_nan(in_order[2 * i]);
    out[i + kFocalWidth / 2] = quiet_nan(in_order[2 * i + 1]);
  }
}
RETINA_OPS_HOST_DEVICE void load_elements(const FocalProblem&, const void* base, Dtype dtype, int64_t first,
                                          double* out, int count) {
  load_block<kFocalWidth>(base, dtype, first, out, count);
}

// Writes the elements at the first `count` positions to `base`, of the problem's dtype.
RETINA_OPS_HOST_DEVICE void store_elements(const FocalProblem& problem, void* base, int64_t first, const float* values,
                                           int count) {
  if (problem.dtype == Dtype::kBFloat16) return store_pairs<kFocalWidth>(base, first, values, count);
  store_block<kFocalWidth>(base, problem.dtype, first, values, count);
}
RETINA_OPS_HOST_DEVICE void store_elements(const FocalProblem& problem, void* base, int64_t first, const double* values,
                                           int count) {
  store_block<kFocalWidth>(base, problem.dtype, first, values, count);
}

template <class T, class Math>
RETINA_OPS_HOST_DEVICE void exponentials(const T* __restrict logits, T* __restrict exponential) {
  for (int i = 0; i < kFocalWidth; ++i) exponential[i] = focal_exponential<T, Math>(logits[i]);
}

// Computes a block of negatives: losses without their weight (the sum is multiplied by it at the end), and derivatives
// times derivative_weight.
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE void compute_negatives(const T* __restrict logits, T* __restrict exponential, T* __restrict loss,
                                              T* __restrict derivative, double gamma, T derivative_weight) {
  exponentials<T, Math>(logits, exponential);
  const T sign = kOrder == 2 ? derivative_weight : -derivative_weight;  // dz/dx = -1
  for (int i = 0; i < kFocalWidth; ++i) {
    const FocalTerms<T> terms = focal_hard<T, G, kOrder == 2 ? 2 : 1, Math>(-logits[i], exponential[i], gamma);
    loss[i] = terms.loss;
    if constexpr (kOrder != 0) derivative[i] = sign * terms.derivative;
  }
}

// Whether any target of the block differs from 0.
template <class T>
RETINA_OPS_HOST_DEVICE bool any_target(const FocalBlock<T>& block) {
  int any = 0;
  for (int i = 0; i < kFocalWidth; ++i) any |= block.targets[i] != T(0) ? 1 : 0;
  return any != 0;
}

// Computes a block of soft targets: losses and derivatives without weights.
template <class T, Gamma G, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE void compute_soft(FocalBlock<T>& block, double gamma) {
  exponentials<T, Math>(block.logits, block.exponential);
  for (int i = 0; i < kFocalWidth; ++i) {
    const FocalTerms<T> terms =
        focal_soft<T, G, kOrder == 2 ? 2 : 1, Math>(block.logits[i], block.targets[i], block.exponential[i], gamma);
    block.loss[i] = terms.loss;
    if constexpr (kOrder != 0) block.derivative[i] = terms.derivative;
  }
}

// The sum of the losses of a run of blocks: 16 sums in double, one per lane. Lane k first adds elements k, k + 16, k +
// 32 and k + 48 of a block in T; with CoarseMath, those of eight blocks.
template <class T, class Math>
struct LossSum {
  static_assert(kFocalWidth == 64, "add() takes four elements per lane");
  static constexpr int kBlocks = Math::kIsCoarse ? 8 : 1;
  alignas(64) T partial[16] = {};
  alignas(64) double lanes[16] = {};
  int blocks = 0;

  RETINA_OPS_HOST_DEVICE void add(const T* loss) {
    for (int k = 0; k < 16; ++k) partial[k] += (loss[k] + loss[k + 16]) + (loss[k + 32] + loss[k + 48]);
    if (++blocks == kBlocks) flush();
  }
  RETINA_OPS_HOST_DEVICE void flush() {
    for (int k = 0; k < 16; ++k) {
      lanes[k] += static_cast<double>(partial[k]);
      partial[k] = T(0);
    }
    blocks = 0;
  }
  RETINA_OPS_HOST_DEVICE double total() {
    flush();
    double sum = 0.0;
    for (int k = 0; k < 16; ++k) sum += lanes[k];
    return sum;
  }
};

// Finishes a block of `count` elements: adds their losses to the sum, and writes the losses, times loss_weight, and the
// derivatives where the problem asks for them. The derivatives are written only if they are in the block
// (has_derivative); if not, they were computed in place. Elements past `count` are neither added nor written.
template <class T, int kOrder, class Math>
RETINA_OPS_HOST_DEVICE void finish_block(const FocalProblem& problem, FocalBlock<T>& block, int64_t first, int count,
                                         bool has_derivative, T loss_weight, LossSum<T, Math>& sum) {
  if (count < kFocalWidth) {
    for (int i = count; i < kFocalWidth; ++i) block.loss[block_position(problem, i)] = T(0);
  }
  sum.add(block.loss);
  if (problem.loss_out != nullptr) {
    for (int i = 0; i < kFocalWidth; ++i) block.loss[i] *= loss_weight;
    store_elements(problem, problem.loss_out, first, block.loss, count);
  }
  if (kOrder != 0 && has_derivative) {
    if (problem.upstream != nullptr) {
      load_elements(problem, problem.upstream, problem.dtype, first, block.upstream, count);
      for (int i = 0; i < kFocalWidth; ++i) block.derivative[i] *= block.upstream[i];
    }
    store_elements(problem, problem.grad_out, first, block.derivative, count);
  }
}

}  // namespace retina_ops
