// The kernels of anchor_matching/, launched as by their operator.
#include "anchor_matching/anchor_matching_launch.cuh"

#include "case.h"

using namespace retina_ops;

// The first image is image `first`: the arrays' pointers are moved back by as much.
void run_match_anchors(const Case& c) {
  const int64_t first = c.integer("first");
  const Dtype dtype = c.dtype("dtype");
  const int64_t box = bytes_of_box(dtype);
  MatchProblem problem{};
  problem.anchor_count = c.integer("anchor_count");
  problem.gt_capacity = c.integer("gt_capacity");
  problem.region_capacity = c.integer("region_capacity");
  problem.anchors_per_image = c.flag("anchors_per_image");
  problem.anchors = c.array("anchors", problem.anchors_per_image ? first * problem.anchor_count * box : 0);
  problem.gt_boxes = c.array("gt_boxes", first * problem.gt_capacity * box);
  problem.gt_counts = c.array<int32_t>("gt_counts", first * 4);
  problem.regions = c.array("regions", first * problem.region_capacity * box);
  problem.region_counts = c.array<int32_t>("region_counts", first * 4);
  problem.dtype = dtype;
  problem.batch = first + c.integer("batch");
  problem.fg_iou = c.number("fg_iou");
  problem.bg_iou = c.number("bg_iou");
  problem.ignore_iof = c.number("ignore_iof");
  problem.allow_low_quality = c.flag("allow_low_quality");
  problem.matches = c.array<int64_t>("matches", first * problem.anchor_count * 8);
  problem.foreground = c.array<int64_t>("foreground", first * 8);
  void* best = c.array("best", first * problem.gt_capacity * (dtype == Dtype::kFloat64 ? 8 : 4));
  launch_match_anchors(problem, best, first, nullptr);
}
