// match_anchors for CUDA tensors: workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "anchor_matching/anchor_matching_kernels.cuh"
#include "anchor_matching/anchor_matching_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

std::tuple<Tensor, Tensor> match_anchors_cuda(const Tensor& anchors, const Tensor& gt_boxes, const Tensor& gt_counts,
                                              std::optional<Tensor> regions, std::optional<Tensor> region_counts,
                                              double fg_iou, double bg_iou, bool allow_low_quality, double ignore_iof,
                                              double min_pos_iou) {
  const torch::stable::accelerator::DeviceGuard guard(anchors.get_device_index());
  const MatchCall call = check_match_anchors(anchors, gt_boxes, gt_counts, regions, region_counts, fg_iou, bg_iou,
                                             allow_low_quality, ignore_iof, min_pos_iou);
  if (call.matches.numel() == 0) return {call.matches, call.foreground};
  const MatchProblem& problem = call.problem;
  const Tensor best = torch::stable::new_zeros(anchors, {problem.batch * problem.gt_capacity + 1},
                                               problem.dtype == Dtype::kFloat64 ? ScalarType::Long : ScalarType::Int);
  launch_match_anchors({problem, best.mutable_data_ptr(), {}, current_stream(anchors)});
  RETINA_OPS_LAUNCH_CHECK();
  return {call.matches, call.foreground};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("match_anchors", TORCH_BOX(&match_anchors_cuda)); }

}  // namespace retina_ops
