// What the CPU and the CUDA operators of match_anchors share: argument checks and the problem for the kernels.
#pragma once

#include <optional>

#include "anchor_matching/anchor_matching_cpu.h"
#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous, and its outputs.
struct MatchCall {
  Tensor anchors;
  Tensor gt_boxes;
  Tensor gt_counts;
  std::optional<Tensor> regions;
  std::optional<Tensor> region_counts;
  Tensor matches;
  Tensor foreground;
  MatchProblem problem;
};

inline void check_padded_boxes(const char* op, const char* name, const Tensor& boxes, const Tensor& counts,
                               const Tensor& anchors) {
  check(boxes.dim() == 3 && boxes.size(2) == 4, op, ": ", name, " must be [B, M, 4], got ", shape_string(boxes));
  check(boxes.scalar_type() == anchors.scalar_type(), op, ": ", name, " must have the dtype of anchors, ",
        dtype_name(anchors.scalar_type()), ", got ", dtype_name(boxes.scalar_type()));
  check(counts.dim() == 1 && counts.size(0) == boxes.size(0) && counts.scalar_type() == ScalarType::Int, op,
        ": counts of ", name, " must be int32 [", boxes.size(0), "], got ", dtype_name(counts.scalar_type()), " ",
        shape_string(counts));
  check(same_device(anchors, boxes) && same_device(anchors, counts), op, ": anchors, ", name,
        " and its counts must be on one device");
}

inline MatchCall check_match_anchors(const Tensor& anchors, const Tensor& gt_boxes, const Tensor& gt_counts,
                                     const std::optional<Tensor>& regions, const std::optional<Tensor>& region_counts,
                                     double fg_iou_thresh, double bg_iou_thresh, bool allow_low_quality,
                                     double ignore_iof, double min_pos_iou) {
  const char* op = "match_anchors";
  check_floating(op, "anchors", anchors);
  check_padded_boxes(op, "gt_boxes", gt_boxes, gt_counts, anchors);
  const int64_t batch = gt_boxes.size(0);
  const bool per_image = anchors.dim() == 3;
  check((anchors.dim() == 2 || (per_image && anchors.size(0) == batch)) && anchors.size(anchors.dim() - 1) == 4, op,
        ": anchors must be [A, 4] or [", batch, ", A, 4], got ", shape_string(anchors));
  check(bg_iou_thresh <= fg_iou_thresh, op, ": bg_iou_thresh must be at most fg_iou_thresh, got ", bg_iou_thresh,
        " and ", fg_iou_thresh);
  check(regions.has_value() == region_counts.has_value(), op,
        ": ignore_regions and their counts must be given together");
  if (regions) {
    check_padded_boxes(op, "ignore_regions", *regions, *region_counts, anchors);
    check(regions->size(0) == batch, op, ": ignore_regions must be [", batch, ", R, 4], got ", shape_string(*regions));
    check(ignore_iof > 0.0, op, ": ignore_iof must be above 0, got ", ignore_iof);
  }
  const int64_t anchor_count = anchors.size(anchors.dim() - 2);
  MatchCall call{torch::stable::contiguous(anchors),
                 torch::stable::contiguous(gt_boxes),
                 torch::stable::contiguous(gt_counts),
                 std::nullopt,
                 std::nullopt,
                 torch::stable::new_empty(anchors, {batch, anchor_count}, ScalarType::Long),
                 torch::stable::new_zeros(anchors, {batch}, ScalarType::Long),
                 MatchProblem{}};
  MatchProblem& problem = call.problem;
  if (regions) {
    call.regions = torch::stable::contiguous(*regions);
    call.region_counts = torch::stable::contiguous(*region_counts);
    problem.regions = call.regions->const_data_ptr();
    problem.region_counts = call.region_counts->const_data_ptr<int32_t>();
    problem.region_capacity = regions->size(1);
  }
  problem.anchors = call.anchors.const_data_ptr();
  problem.anchors_per_image = per_image;
  problem.gt_boxes = call.gt_boxes.const_data_ptr();
  problem.gt_counts = call.gt_counts.const_data_ptr<int32_t>();
  problem.dtype = dtype_of(anchors);
  problem.batch = batch;
  problem.anchor_count = anchor_count;
  problem.gt_capacity = gt_boxes.size(1);
  problem.fg_iou = fg_iou_thresh;
  problem.bg_iou = bg_iou_thresh;
  problem.ignore_iof = ignore_iof;
  problem.allow_low_quality = allow_low_quality;
  problem.min_pos_iou = min_pos_iou;
  problem.matches = call.matches.mutable_data_ptr<int64_t>();
  problem.foreground = call.foreground.mutable_data_ptr<int64_t>();
  return call;
}

}  // namespace retina_ops
