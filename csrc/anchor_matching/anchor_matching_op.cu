// match_anchors for CUDA tensors: workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include "anchor_matching/anchor_matching_kernels.cuh"
#include "anchor_matching/anchor_matching_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

template <class T>
void launch_match(const MatchCall& call, cudaStream_t stream) {
  using A = ArithmeticOf<T>;
  const MatchProblem& problem = call.problem;
  const Tensor best = torch::stable::new_zeros(call.anchors, {problem.batch * problem.gt_capacity + 1},
                                               sizeof(A) == 8 ? ScalarType::Long : ScalarType::Int);
  MatchKernelArguments<T> a{};
  a.anchors = static_cast<const T*>(problem.anchors);
  a.gt_boxes = static_cast<const T*>(problem.gt_boxes);
  a.gt_counts = problem.gt_counts;
  a.regions = static_cast<const T*>(problem.regions);
  a.region_counts = problem.region_counts;
  a.best = static_cast<IouBits<A>*>(best.mutable_data_ptr());
  a.matches = problem.matches;
  a.anchor_count = problem.anchor_count;
  a.gt_capacity = problem.gt_capacity;
  a.region_capacity = problem.region_capacity;
  a.anchors_stride = problem.anchors_per_image ? problem.anchor_count : 0;
  a.blocks_per_image = ceil_div<int64_t>(problem.anchor_count, kMatchThreads);
  a.thresholds = {static_cast<A>(problem.fg_iou), static_cast<A>(problem.bg_iou), static_cast<A>(problem.ignore_iof)};
  a.allow_low_quality = problem.allow_low_quality;
  a.aligned = is_aligned(a.anchors, 16) && is_aligned(a.gt_boxes, 16) && is_aligned(a.regions, 16);
  const dim3 grid(static_cast<unsigned>(problem.batch * a.blocks_per_image));
  launch(match_best_kernel<T>, grid, dim3(kMatchThreads), 0, stream, a);
  RETINA_OPS_LAUNCH_CHECK();
  launch(match_decide_kernel<T>, grid, dim3(kMatchThreads), 0, stream, a);
  RETINA_OPS_LAUNCH_CHECK();
}

Tensor match_anchors_cuda(const Tensor& anchors, const Tensor& gt_boxes, const Tensor& gt_counts,
                          std::optional<Tensor> regions, std::optional<Tensor> region_counts, double fg_iou,
                          double bg_iou, bool allow_low_quality, double ignore_iof) {
  const torch::stable::accelerator::DeviceGuard guard(anchors.get_device_index());
  const MatchCall call = check_match_anchors(anchors, gt_boxes, gt_counts, regions, region_counts, fg_iou, bg_iou,
                                             allow_low_quality, ignore_iof);
  if (call.matches.numel() == 0) return call.matches;
  const cudaStream_t stream = current_stream(anchors);
  switch (call.problem.dtype) {
    case Dtype::kFloat32: launch_match<float>(call, stream); break;
    case Dtype::kFloat64: launch_match<double>(call, stream); break;
    case Dtype::kFloat16: launch_match<__half>(call, stream); break;
    case Dtype::kBFloat16: launch_match<__nv_bfloat16>(call, stream); break;
  }
  return call.matches;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("match_anchors", TORCH_BOX(&match_anchors_cuda)); }

}  // namespace retina_ops
