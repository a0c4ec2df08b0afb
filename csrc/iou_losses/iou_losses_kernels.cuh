// The IoU losses on CUDA: the kernels and their launch. No torch.
//
// Lower bounds for float32: 36 bytes per pair for the loss, 48 for a sum and the gradient by one set of boxes; about 70
// operations and 2 divisions per pair (7 for the complete IoU), which the memory accesses hide. A thread computes one
// pair: four coordinates are one 16-byte access (8 bytes for half dtypes). One kernel serves every mixture of dtypes.
#pragma once

#include "common/block.cuh"
#include "common/box_access.cuh"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

constexpr int kIouLossThreads = 256;
// Of the reducing kernel. The number is fixed, so that sums do not depend on the device.
constexpr int64_t kIouLossMaxBlocks = 1024;

// One call. A is the type of the arithmetic. Arrays are contiguous.
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
  double scale;                   // factor of the sum and its gradients; for the reducing kernel
  int64_t first;                  // pairs [first, n) are computed
  int64_t n;
  bool aligned;  // every array of boxes allows accesses of four values
};

template <class A, IouLoss K>
__device__ __forceinline__ IouLossTerms<A> terms_of_pair(const IouLossKernelArguments<A>& args, int64_t i) {
  return iou_loss<K, A, FusedMath>(load_box_of<A>(args.boxes1, args.dtype1, i, args.aligned),
                                   load_box_of<A>(args.boxes2, args.dtype2, i, args.aligned), args.eps);
}

template <class A>
__device__ __forceinline__ void store_gradients(const IouLossKernelArguments<A>& args, int64_t i,
                                                const IouLossTerms<A>& terms, A factor) {
  if (args.grad1 != nullptr) store_box_of(args.grad1, args.dtype1, i, args.aligned, terms.for_predicted, factor);
  if (args.grad2 != nullptr) store_box_of(args.grad2, args.dtype2, i, args.aligned, terms.for_target, factor);
}

// The loss of each pair, or upstream times its gradients. launch: one thread per pair.
template <class A, IouLoss K, bool kWithGrad>
__global__ void __launch_bounds__(kIouLossThreads) iou_loss_elementwise_kernel(IouLossKernelArguments<A> args) {
  const int64_t i = args.first + static_cast<int64_t>(blockIdx.x) * kIouLossThreads + threadIdx.x;
  if (i >= args.n) return;
  const IouLossTerms<A> terms = terms_of_pair<A, K>(args, i);
  if constexpr (kWithGrad) {
    store_gradients(args, i, terms,
                    args.upstream != nullptr ? args.upstream[i] : static_cast<A>(*args.upstream_scalar));
  } else {
    args.loss[i] = terms.loss;
  }
}

// scale times the sum of the losses and, where kWithGrad, scale times the gradients, in one pass.
// launch: at most kIouLossMaxBlocks blocks; partial: [blocks] workspace; done: [] zero; result: [].
template <class A, IouLoss K, bool kWithGrad>
__global__ void __launch_bounds__(kIouLossThreads)
    iou_loss_reduced_kernel(IouLossKernelArguments<A> args, double* partial, unsigned* done, A* result) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kIouLossThreads;
  double sum = 0.0;
  for (int64_t i = args.first + static_cast<int64_t>(blockIdx.x) * kIouLossThreads + threadIdx.x; i < args.n;
       i += stride) {
    const IouLossTerms<A> terms = terms_of_pair<A, K>(args, i);
    sum += static_cast<double>(terms.loss);
    if constexpr (kWithGrad) store_gradients(args, i, terms, static_cast<A>(args.scale));
  }
  double total;
  if (grid_sum<kIouLossThreads>(sum, partial, done, total)) *result = static_cast<A>(total * args.scale);
}

// A call on the device. limits.first: the first pair that is computed.
struct IouLossDevice : IouLossProblem {
  int64_t n;        // pairs
  double scale;     // factor of a reduction
  double* partial;  // [kIouLossMaxBlocks] workspace of a reduction, or null: elementwise
  unsigned* done;   // [] zero; of a reduction
  void* result;     // [] float32, or float64 for float64 boxes; of a reduction
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class A, IouLoss K, bool kWithGrad>
void launch_iou_loss_kernel(const IouLossDevice& device) {
  IouLossKernelArguments<A> args{};
  args.boxes1 = device.boxes1;
  args.boxes2 = device.boxes2;
  args.dtype1 = device.dtype1;
  args.dtype2 = device.dtype2;
  args.eps = static_cast<A>(device.eps);
  args.loss = static_cast<A*>(device.loss);
  args.grad1 = device.grad1;
  args.grad2 = device.grad2;
  args.upstream = static_cast<const A*>(device.upstream);
  args.upstream_scalar = device.upstream_scalar;
  args.scale = device.scale;
  args.n = device.n;
  args.aligned = is_aligned(args.boxes1, 16) && is_aligned(args.boxes2, 16) && is_aligned(args.grad1, 16) &&
                 is_aligned(args.grad2, 16);
  args.first = device.limits.first;
  const int64_t blocks = ceil_div<int64_t>(device.n - device.limits.first, kIouLossThreads);
  if (device.partial != nullptr) {
    launch(iou_loss_reduced_kernel<A, K, kWithGrad>, grid_of(blocks, kIouLossMaxBlocks, device.limits),
           dim3(kIouLossThreads), 0, device.stream, args, device.partial, device.done, static_cast<A*>(device.result));
  } else if (blocks > 0) {
    launch(iou_loss_elementwise_kernel<A, K, kWithGrad>, dim3(static_cast<unsigned>(blocks)), dim3(kIouLossThreads), 0,
           device.stream, args);
  }
}

template <class A, IouLoss K>
void launch_iou_loss_kind(const IouLossDevice& device) {
  if (device.grad1 != nullptr || device.grad2 != nullptr) {
    launch_iou_loss_kernel<A, K, true>(device);
  } else {
    launch_iou_loss_kernel<A, K, false>(device);
  }
}

template <class A>
void launch_iou_loss_typed(const IouLossDevice& device) {
  switch (device.kind) {
    case IouLoss::kGeneralized: return launch_iou_loss_kind<A, IouLoss::kGeneralized>(device);
    case IouLoss::kDistance: return launch_iou_loss_kind<A, IouLoss::kDistance>(device);
    default: return launch_iou_loss_kind<A, IouLoss::kComplete>(device);
  }
}

inline void launch_iou_loss(const IouLossDevice& device) {
  if (device.dtype1 == Dtype::kFloat64) {
    launch_iou_loss_typed<double>(device);
  } else {
    launch_iou_loss_typed<float>(device);
  }
}
RETINA_OPS_LAUNCH(launch_iou_loss, IouLossDevice, kind, eps, boxes1, dtype1, boxes2, dtype2, loss, grad1, grad2,
                  upstream, upstream_scalar, n, scale, partial, done, result, limits);

}  // namespace retina_ops
