// The kernels of retinanet_loss/, launched as by their operator.
#include "retinanet_loss/retinanet_loss_launch.cuh"

#include "case_levels.h"

using namespace retina_ops;

void run_retinanet_loss(const Case& c) {
  const int64_t first = c.integer("first");
  RetinanetLossProblem problem{};
  problem.logits = levels_of(c, "logits", c.integer("classes"), first);
  problem.deltas = levels_of(c, "deltas", 4, first);
  problem.gt_capacity = c.integer("gt_capacity");
  const int64_t box = problem.deltas.dtype == Dtype::kFloat64 ? 32 : 16;
  problem.anchors = c.array("anchors");
  problem.gt_boxes = c.array("gt_boxes", first * problem.gt_capacity * box);
  problem.gt_labels = c.array<int64_t>("gt_labels", first * problem.gt_capacity * 8);
  problem.matches = c.array<int64_t>("matches", first * problem.logits.anchors * 8);
  problem.normalizer = c.array<double>("normalizer", first * 8);
  problem.alpha = c.number("alpha");
  problem.gamma = c.number("gamma");
  problem.box_loss = static_cast<BoxLoss>(c.integer("box_loss"));
  problem.smooth_l1_beta = c.number("smooth_l1_beta");
  for (int i = 0; i < 4; ++i) problem.weights[i] = c.number("w" + std::to_string(i));
  problem.logits_gradient = c.array("logits_gradient");
  problem.deltas_gradient = c.array("deltas_gradient");
  RetinanetLossDevice device{};
  device.upstream_classification = c.array<double>("upstream_classification");
  device.upstream_box = c.array<double>("upstream_box");
  device.partial = c.array<double>("partial");
  device.done = c.array<unsigned>("done");
  device.classification = c.array("classification");
  device.box = c.array("box");
  device.first_image = first;
  device.most_blocks = c.integer("most_blocks");
  launch_retinanet_classification(problem, device);
  launch_retinanet_box(problem, device);
}
