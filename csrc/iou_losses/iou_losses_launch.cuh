// Chooses and launches the kernels of the IoU losses. No torch.
#pragma once

#include "iou_losses/iou_losses_kernels.cuh"

namespace retina_ops {

// What a CUDA call has beside its IouLossProblem; all on the device.
struct IouLossDevice {
  double scale;     // of a reduction
  double* partial;  // [kIouLossMaxBlocks] workspace of a reduction, or null: elementwise
  unsigned* done;   // [] zero
  void* result;     // [] float32, float64 for float64 boxes
  int64_t first;    // pairs [first, n) are computed: 0 but in tests of large indices
  int64_t n;
  cudaStream_t stream;
};

template <class A, IouLoss K, bool kWithGrad>
void launch_iou_loss(const IouLossProblem& problem, const IouLossDevice& device) {
  IouLossKernelArguments<A> a{};
  a.boxes1 = problem.boxes1;
  a.boxes2 = problem.boxes2;
  a.dtype1 = problem.dtype1;
  a.dtype2 = problem.dtype2;
  a.eps = static_cast<A>(problem.eps);
  a.loss = static_cast<A*>(problem.loss);
  a.grad1 = problem.grad1;
  a.grad2 = problem.grad2;
  a.upstream = static_cast<const A*>(problem.upstream);
  a.upstream_scalar = problem.upstream_scalar;
  a.scale = device.scale;
  a.first = device.first;
  a.n = device.n;
  a.aligned =
      is_aligned(a.boxes1, 16) && is_aligned(a.boxes2, 16) && is_aligned(a.grad1, 16) && is_aligned(a.grad2, 16);
  const int64_t blocks = ceil_div<int64_t>(device.n - device.first, kIouLossThreads);
  if (device.partial != nullptr) {
    const dim3 grid(static_cast<unsigned>(blocks < 1 ? 1 : blocks < kIouLossMaxBlocks ? blocks : kIouLossMaxBlocks));
    launch(iou_loss_reduced_kernel<A, K, kWithGrad>, grid, dim3(kIouLossThreads), 0, device.stream, a, device.partial,
           device.done, static_cast<A*>(device.result));
  } else if (blocks > 0) {
    launch(iou_loss_elementwise_kernel<A, K, kWithGrad>, dim3(static_cast<unsigned>(blocks)), dim3(kIouLossThreads), 0,
           device.stream, a);
  }
}

template <class A, IouLoss K>
void launch_iou_loss_kind(const IouLossProblem& problem, const IouLossDevice& device) {
  if (problem.grad1 != nullptr || problem.grad2 != nullptr) {
    launch_iou_loss<A, K, true>(problem, device);
  } else {
    launch_iou_loss<A, K, false>(problem, device);
  }
}

template <class A>
void launch_iou_loss_typed(const IouLossProblem& problem, const IouLossDevice& device) {
  switch (problem.kind) {
    case IouLoss::kGeneralized: return launch_iou_loss_kind<A, IouLoss::kGeneralized>(problem, device);
    case IouLoss::kDistance: return launch_iou_loss_kind<A, IouLoss::kDistance>(problem, device);
    default: return launch_iou_loss_kind<A, IouLoss::kComplete>(problem, device);
  }
}

inline void launch_iou_loss(const IouLossProblem& problem, const IouLossDevice& device) {
  if (problem.dtype1 == Dtype::kFloat64) {
    launch_iou_loss_typed<double>(problem, device);
  } else {
    launch_iou_loss_typed<float>(problem, device);
  }
}

}  // namespace retina_ops
