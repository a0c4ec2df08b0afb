// Chooses and launches the kernels of pairwise IoU and of its gradient. No torch.
#pragma once

#include <type_traits>

#include "box_iou/box_iou.h"
#include "box_iou/box_iou_kernels.cuh"

namespace retina_ops {

// A call on the device. The output is aligned to 16 bytes. limits.first: the first image that is computed.
struct BoxIouDevice : BoxIouProblem {
  int64_t batch;
  LaunchLimits limits;
  cudaStream_t stream;
};

template <class A, IouKind K, int kPack>
void launch_box_iou_pack(const BoxIouDevice& device) {
  const int64_t per_image =
      ceil_div<int64_t>(device.n, kIouRows) * ceil_div<int64_t>(device.m, int64_t(kIouThreads) * kPack);
  const int64_t blocks = (device.batch - device.limits.first) * per_image;
  launch(box_iou_kernel<A, K, kPack>, dim3(static_cast<unsigned>(blocks)), dim3(kIouThreads), 0, device.stream,
         device.boxes1, device.boxes2, device.dtype, device.n, device.m, pairwise_eps<A>(device),
         static_cast<A*>(device.iou), is_aligned(device.boxes1, 16) && is_aligned(device.boxes2, 16),
         device.limits.first * per_image);
}

template <class A, IouKind K>
void launch_box_iou_kind(const BoxIouDevice& device) {
  constexpr int kPack = 16 / sizeof(A);
  if (device.m % kPack == 0) {  // every row of the output is aligned
    launch_box_iou_pack<A, K, kPack>(device);
  } else {
    launch_box_iou_pack<A, K, 1>(device);
  }
}

// Calls `function` with the kind as a constant.
template <class Function>
void for_kind(IouKind kind, const Function& function) {
  switch (kind) {
    case IouKind::kPlain: return function(std::integral_constant<IouKind, IouKind::kPlain>{});
    case IouKind::kGeneralized: return function(std::integral_constant<IouKind, IouKind::kGeneralized>{});
    case IouKind::kDistance: return function(std::integral_constant<IouKind, IouKind::kDistance>{});
    case IouKind::kComplete: return function(std::integral_constant<IouKind, IouKind::kComplete>{});
  }
}

// At least one pair.
inline void launch_box_iou(const BoxIouDevice& device) {
  for_kind(device.kind, [&](auto kind) {
    constexpr IouKind kKind = decltype(kind)::value;
    if (device.dtype == Dtype::kFloat64) {
      launch_box_iou_kind<double, kKind>(device);
    } else {
      launch_box_iou_kind<float, kKind>(device);
    }
  });
}
RETINA_OPS_LAUNCH(launch_box_iou, BoxIouDevice, boxes1, boxes2, dtype, n, m, iou, kind, eps, batch, limits);

// A call of the gradient on the device. limits.first: the first image that is computed.
struct BoxIouGradDevice : BoxIouGradProblem {
  void* grad1;  // [batch, n, 4] of the dtype of the boxes, or null
  void* grad2;  // [batch, m, 4] of that dtype, or null
  LaunchLimits limits;
  cudaStream_t stream;
};

void launch_box_iou_grad(const BoxIouGradDevice& device);  // in box_iou_grad.cu
RETINA_OPS_FIELDS(BoxIouProblem, boxes1, boxes2, dtype, n, m, kind, eps);
RETINA_OPS_LAUNCH(launch_box_iou_grad, BoxIouGradDevice, forward, grad, batch, row_sums, column_sums, grad1, grad2,
                  limits);

}  // namespace retina_ops
