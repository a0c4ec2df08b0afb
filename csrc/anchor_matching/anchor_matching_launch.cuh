// Launches the two kernels of anchor matching. No torch.
#pragma once

#include "anchor_matching/anchor_matching_cpu.h"
#include "anchor_matching/anchor_matching_kernels.cuh"

namespace retina_ops {

// best: workspace [batch, gt_capacity] of unsigned (of unsigned long long for float64 boxes), zero.
// first_image: 0 but in tests of large indices.
template <class T>
void launch_match_anchors(const MatchProblem& problem, void* best, int64_t first_image, cudaStream_t stream) {
  using A = ArithmeticOf<T>;
  MatchKernelArguments<T> a{};
  a.anchors = static_cast<const T*>(problem.anchors);
  a.gt_boxes = static_cast<const T*>(problem.gt_boxes);
  a.gt_counts = problem.gt_counts;
  a.regions = static_cast<const T*>(problem.regions);
  a.region_counts = problem.region_counts;
  a.best = static_cast<IouBits<A>*>(best);
  a.matches = problem.matches;
  a.foreground = reinterpret_cast<unsigned long long*>(problem.foreground);
  a.anchor_count = problem.anchor_count;
  a.gt_capacity = problem.gt_capacity;
  a.region_capacity = problem.region_capacity;
  a.anchors_stride = problem.anchors_per_image ? problem.anchor_count : 0;
  a.blocks_per_image = ceil_div<int64_t>(problem.anchor_count, kMatchThreads);
  a.first_block = first_image * a.blocks_per_image;
  a.thresholds = {static_cast<A>(problem.fg_iou), static_cast<A>(problem.bg_iou), static_cast<A>(problem.ignore_iof)};
  a.allow_low_quality = problem.allow_low_quality;
  a.aligned = is_aligned(a.anchors, 16) && is_aligned(a.gt_boxes, 16) && is_aligned(a.regions, 16);
  const dim3 grid(static_cast<unsigned>((problem.batch - first_image) * a.blocks_per_image));
  launch(match_best_kernel<T>, grid, dim3(kMatchThreads), 0, stream, a);
  launch(match_decide_kernel<T>, grid, dim3(kMatchThreads), 0, stream, a);
}

inline void launch_match_anchors(const MatchProblem& problem, void* best, int64_t first_image, cudaStream_t stream) {
  switch (problem.dtype) {
    case Dtype::kFloat32: return launch_match_anchors<float>(problem, best, first_image, stream);
    case Dtype::kFloat64: return launch_match_anchors<double>(problem, best, first_image, stream);
    case Dtype::kFloat16: return launch_match_anchors<__half>(problem, best, first_image, stream);
    case Dtype::kBFloat16: return launch_match_anchors<__nv_bfloat16>(problem, best, first_image, stream);
  }
}

}  // namespace retina_ops
