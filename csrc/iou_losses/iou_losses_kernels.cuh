// The IoU losses on CUDA. No torch.
//
// Floors for float32: 36 bytes a pair for the loss, 48 for a sum and the gradient by one set of boxes; about 70
// operations and 2 divisions (7 for complete), which hide behind the memory. A thread owns one pair: four coordinates
// are one 16-byte access (8 bytes for half). One kernel serves every mixture of dtypes.
#pragma once

#include "common/block.cuh"
#include "common/box_access.cuh"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

constexpr int kIouLossThreads = 256;
constexpr int64_t kIouLossMaxBlocks = 1024;  // of the reducing kernel: fixed, so that sums do not depend on the device

// One call; A is the type of the arithmetic. Arrays are contiguous.
template <class A>
struct IouLossKernelArguments {
  const void* boxes1;  // [n, 4] of dtype1
  const void* boxes2;  // [n, 4] of dtype2
  Dtype dtype1, dtype2;
  A eps;
  A* loss;                        // [n], or null
  void* grad1;                    // [n, 4] of dtype1: upstream * gradient, or null
  void* grad2;                    // [n, 4] of dtype2, or null
  const A* upstream;              // [n], or null
  const double* upstream_scalar;  // [] on the device where upstream is null
  double scale;                   // of the reducing kernel: times the sum and the gradient
  int64_t first;                  // pairs [first, n) are computed: 0 but in tests of large indices
  int64_t n;
  bool aligned;  // every array of boxes allows accesses of four values
};

template <class A, IouLoss K>
__device__ __forceinline__ IouLossTerms<A> terms_of_pair(const IouLossKernelArguments<A>& a, int64_t i) {
  return iou_loss<K, A, FusedMath>(load_box_of<A>(a.boxes1, a.dtype1, i, a.aligned),
                                   load_box_of<A>(a.boxes2, a.dtype2, i, a.aligned), a.eps);
}

template <class A>
__device__ __forceinline__ void store_gradients(const IouLossKernelArguments<A>& a, int64_t i,
                                                const IouLossTerms<A>& terms, A factor) {
  if (a.grad1 != nullptr) store_box_of(a.grad1, a.dtype1, i, a.aligned, terms.for_predicted, factor);
  if (a.grad2 != nullptr) store_box_of(a.grad2, a.dtype2, i, a.aligned, terms.for_target, factor);
}

// The loss of each pair, or upstream times its gradients. launch: one thread a pair.
template <class A, IouLoss K, bool kWithGrad>
__global__ void __launch_bounds__(kIouLossThreads) iou_loss_elementwise_kernel(IouLossKernelArguments<A> a) {
  const int64_t i = a.first + static_cast<int64_t>(blockIdx.x) * kIouLossThreads + threadIdx.x;
  if (i >= a.n) return;
  const IouLossTerms<A> terms = terms_of_pair<A, K>(a, i);
  if constexpr (kWithGrad) {
    store_gradients(a, i, terms, a.upstream != nullptr ? a.upstream[i] : static_cast<A>(*a.upstream_scalar));
  } else {
    a.loss[i] = terms.loss;
  }
}

// scale times the sum of the losses and, where kWithGrad, times the gradients, in one pass.
// launch: at most kIouLossMaxBlocks blocks; partial: [blocks] workspace; done: [] zero; result: [].
template <class A, IouLoss K, bool kWithGrad>
__global__ void __launch_bounds__(kIouLossThreads)
    iou_loss_reduced_kernel(IouLossKernelArguments<A> a, double* partial, unsigned* done, A* result) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kIouLossThreads;
  double sum = 0.0;
  for (int64_t i = a.first + static_cast<int64_t>(blockIdx.x) * kIouLossThreads + threadIdx.x; i < a.n; i += stride) {
    const IouLossTerms<A> terms = terms_of_pair<A, K>(a, i);
    sum += static_cast<double>(terms.loss);
    if constexpr (kWithGrad) store_gradients(a, i, terms, static_cast<A>(a.scale));
  }
  double total;
  if (grid_sum<kIouLossThreads>(sum, partial, done, total)) *result = static_cast<A>(total * a.scale);
}

}  // namespace retina_ops
