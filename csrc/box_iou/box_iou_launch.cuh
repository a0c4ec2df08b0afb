// Chooses and launches the kernels of pairwise IoU and of its gradient. No torch.
#pragma once

#include <type_traits>

#include "box_iou/box_iou_cpu.h"
#include "box_iou/box_iou_kernels.cuh"

namespace retina_ops {

template <class T, IouKind K, int kPack>
void launch_box_iou_pack(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  const auto* boxes1 = static_cast<const T*>(problem.boxes1);
  const auto* boxes2 = static_cast<const T*>(problem.boxes2);
  const int64_t per_image =
      ceil_div<int64_t>(problem.n, kIouRows) * ceil_div<int64_t>(problem.m, int64_t(kIouThreads) * kPack);
  launch(box_iou_kernel<T, K, kPack>, dim3(static_cast<unsigned>((batch - first_image) * per_image)), dim3(kIouThreads),
         0, stream, boxes1, boxes2, problem.n, problem.m, pairwise_eps<ArithmeticOf<T>>(problem),
         static_cast<ArithmeticOf<T>*>(problem.iou), is_aligned(boxes1, 16) && is_aligned(boxes2, 16),
         first_image * per_image);
}

// The output is aligned to 16 bytes.
template <class T, IouKind K>
void launch_box_iou_kind(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  constexpr int kPack = 16 / sizeof(ArithmeticOf<T>);
  if (problem.m % kPack == 0) {  // every row of the output is aligned
    launch_box_iou_pack<T, K, kPack>(problem, first_image, batch, stream);
  } else {
    launch_box_iou_pack<T, K, 1>(problem, first_image, batch, stream);
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

// Images [first_image, batch): first_image is 0 but in tests of large indices.
template <class T>
void launch_box_iou(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  for_kind(problem.kind,
           [&](auto kind) { launch_box_iou_kind<T, decltype(kind)::value>(problem, first_image, batch, stream); });
}

inline void launch_box_iou(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  switch (problem.dtype) {
    case Dtype::kFloat32: return launch_box_iou<float>(problem, first_image, batch, stream);
    case Dtype::kFloat64: return launch_box_iou<double>(problem, first_image, batch, stream);
    case Dtype::kFloat16: return launch_box_iou<__half>(problem, first_image, batch, stream);
    case Dtype::kBFloat16: return launch_box_iou<__nv_bfloat16>(problem, first_image, batch, stream);
  }
}

// Images [first_image, batch). grad1, grad2: as the boxes, of their dtype, or null. In box_iou_grad.cu.
void launch_box_iou_grad(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                         cudaStream_t stream);

}  // namespace retina_ops
