// The kernels of retinanet_loss/, launched as by their operator.
#include "retinanet_loss/retinanet_loss_launch.cuh"

#include <string>

#include "case.h"

using namespace retina_ops;

namespace {

// Levels NAME0, NAME1, ... and where each begins in the array of gradients. The first image is image `first`.
HeadLevels levels_of(const Case& c, const std::string& name, int64_t channels, int64_t first) {
  HeadLevels all{};
  all.count = static_cast<int>(c.integer("levels"));
  all.dtype = c.dtype(name + "_dtype");
  all.batch = first + c.integer("batch");
  all.channels = channels;
  const int64_t size = all.dtype == Dtype::kFloat64 ? 8 : all.dtype == Dtype::kFloat32 ? 4 : 2;
  for (int l = 0; l < all.count; ++l) {
    const std::string number = std::to_string(l);
    HeadLevel& level = all.level[l];
    level.is_planar = c.flag("planar" + number);
    level.cells = c.integer("cells" + number);
    level.per_cell = c.integer("per_cell" + number);
    level.first_anchor = all.anchors;
    const int64_t before = first * level.anchors() * channels;
    level.values = c.array(name + number, before * size);
    level.start = all.elements - before;
    all.anchors += level.anchors();
    const int64_t end = all.elements + c.integer("batch") * level.anchors() * channels;
    all.elements = (end + kLevelAlignment - 1) / kLevelAlignment * kLevelAlignment;
  }
  return all;
}

}  // namespace

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
  launch_retinanet_classification(problem, device);
  launch_retinanet_box(problem, device);
}
