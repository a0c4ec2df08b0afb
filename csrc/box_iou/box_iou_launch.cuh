// Chooses and launches the kernels of pairwise IoU and of its gradient. No torch.
#pragma once

#include <type_traits>

#include "box_iou/box_iou.h"
#include "box_iou/box_iou_kernels.cuh"

namespace retina_ops {

template <class A, IouKind K, int kPack>
void launch_box_iou_pack(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  const int64_t per_image =
      ceil_div<int64_t>(problem.n, kIouRows) * ceil_div<int64_t>(problem.m, int64_t(kIouThreads) * kPack);
  launch(box_iou_kernel<A, K, kPack>, dim3(static_cast<unsigned>((batch - first_image) * per_image)), dim3(kIouThreads),
         0, stream, problem.boxes1, problem.boxes2, problem.dtype, problem.n, problem.m, pairwise_eps<A>(problem),
         static_cast<A*>(problem.iou), is_aligned(problem.boxes1, 16) && is_aligned(problem.boxes2, 16),
         first_image * per_image);
}

// The output is aligned to 16 bytes.
template <class A, IouKind K>
void launch_box_iou_kind(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  constexpr int kPack = 16 / sizeof(A);
  if (problem.m % kPack == 0) {  // every row of the output is aligned
    launch_box_iou_pack<A, K, kPack>(problem, first_image, batch, stream);
  } else {
    launch_box_iou_pack<A, K, 1>(problem, first_image, batch, stream);
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
inline void launch_box_iou(const BoxIouProblem& problem, int64_t first_image, int64_t batch, cudaStream_t stream) {
  for_kind(problem.kind, [&](auto kind) {
    constexpr IouKind kKind = decltype(kind)::value;
    if (problem.dtype == Dtype::kFloat64) {
      launch_box_iou_kind<double, kKind>(problem, first_image, batch, stream);
    } else {
      launch_box_iou_kind<float, kKind>(problem, first_image, batch, stream);
    }
  });
}

// Images [first_image, batch). grad1, grad2: as the boxes, of their dtype, or null. In box_iou_grad.cu.
void launch_box_iou_grad(const BoxIouGradProblem& problem, int64_t first_image, void* grad1, void* grad2,
                         cudaStream_t stream);

}  // namespace retina_ops
