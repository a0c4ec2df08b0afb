// Chooses and launches the two kernels of the RetinaNet loss. No torch.
#pragma once

#include "retinanet_loss/retinanet_loss_box_kernels.cuh"
#include "retinanet_loss/retinanet_loss_cpu.h"
#include "retinanet_loss/retinanet_loss_logit_kernels.cuh"

namespace retina_ops {

constexpr int64_t kLossPartials = kPlanarMaxBlocks + kMaxLevels;

// A call on the device. limits.first: the first image that is computed.
struct RetinanetLossDevice : RetinanetLossProblem {
  const double* classification_factor;  // [] factor of the gradient of the classification loss, or null for 1
  const double* box_factor;             // [] factor of the gradient of the box loss, or null for 1
  double* partial;                      // [2, kLossPartials]
  unsigned* done;                       // [2] zero
  void* classification;                 // [] of the arithmetic type of the logits, or null: the gradient alone
  void* box;                            // [] of that of the deltas, or null: the gradient alone
  LaunchLimits limits;
  cudaStream_t stream;
};

// In retinanet_loss_classification.cu and retinanet_loss_box.cu.
void launch_retinanet_classification(const RetinanetLossDevice& device);
void launch_retinanet_box(const RetinanetLossDevice& device);

inline void launch_retinanet_loss(const RetinanetLossDevice& device) {
  launch_retinanet_classification(device);
  launch_retinanet_box(device);
}
RETINA_OPS_LAUNCH(launch_retinanet_loss, RetinanetLossDevice, logits, deltas, anchors, gt_boxes, gt_labels, gt_capacity,
                  matches, normalizer, alpha, gamma, box_loss, smooth_l1_beta, weights, logits_gradient,
                  deltas_gradient, classification_factor, box_factor, partial, done, classification, box, limits);

// Describes the levels, divides the blocks among them by their work, and returns the number of blocks.
// is_taken: whether a level is described; most: blocks at most; work: a level's number of items per image, where an
// item is what a thread computes at a time.
template <class T, class IsTaken, class Work>
int64_t loss_levels(LossArguments<T>& args, const RetinanetLossDevice& device, const HeadLevels& levels, void* gradient,
                    IsTaken is_taken, int64_t most, Work work) {
  args.count = 0;
  args.batch = levels.batch;
  args.anchors = levels.anchors;
  args.matches = device.matches;
  args.labels = device.gt_labels;
  args.capacity = device.gt_capacity;
  args.normalizer = device.normalizer;
  args.first_image = device.limits.first;
  int64_t total = 0, blocks = 0;
  const int64_t images = levels.batch - device.limits.first;
  for (int l = 0; l < levels.count; ++l) total += is_taken(levels.level[l]) ? images * work(levels.level[l]) : 0;
  const int64_t needed = ceil_div<int64_t>(total, kLossThreads);
  const int64_t allowed = most < device.limits.most_blocks ? most : device.limits.most_blocks;
  const int64_t shared = needed < allowed ? needed : allowed;
  for (int l = 0; l < levels.count; ++l) {
    const HeadLevel& from = levels.level[l];
    if (!is_taken(from)) continue;
    LossLevel<T>& to = args.level[args.count++];
    to.values = static_cast<const T*>(from.values);
    to.gradient = gradient != nullptr ? static_cast<T*>(gradient) + from.start : nullptr;
    to.cells = from.cells;
    to.per_cell = from.per_cell;
    to.first_anchor = from.first_anchor;
    to.gap = level_gap(levels, l);
    to.first_block = blocks;
    to.by_cells = Divider::of(from.cells > 0 ? from.cells : 1);
    to.by_per_cell = Divider::of(from.per_cell > 0 ? from.per_cell : 1);
    to.is_planar = from.is_planar;
    to.aligned = is_aligned(to.values, 16) && is_aligned(to.gradient, 16);
    // Rounded up, so that each level has at least one block. All levels together have little more than `shared`.
    blocks += total == 0 ? 1 : ceil_div<int64_t>(images * work(from) * shared + 1, total);
  }
  return blocks;
}

// The planar levels, or those by anchor. Returns false where there are none. adds: the sum is added to the result.
template <class T, Gamma G, bool kPlanar>
bool launch_classification_format(const RetinanetLossDevice& device, bool adds) {
  constexpr int64_t kPack = kPlanar ? kFocalPack<T> : kRowPack<T>;
  const int64_t classes = device.logits.channels;
  const int64_t chunks = ceil_div<int64_t>(classes, kPlaneClasses);
  ClassificationArguments<T> args{};
  const int64_t blocks = loss_levels(
      args, device, device.logits, device.logits_gradient,
      [](const HeadLevel& level) { return level.is_planar == kPlanar; }, kPlanar ? kPlanarMaxBlocks : kLossMaxBlocks,
      [&](const HeadLevel& level) {
        return kPlanar ? level.per_cell * chunks * ceil_div<int64_t>(level.cells, kPack)
                       : ceil_div<int64_t>(level.cells * classes, kPack);
      });
  if (args.count == 0) return false;
  for (int l = 0; kPlanar && l < args.count; ++l) {
    LossLevel<T>& level = args.level[l];
    // The widest access that divides the distance from one plane to the next.
    const int64_t bytes = level.cells * static_cast<int64_t>(sizeof(T));
    level.access = !level.aligned ? 0 : bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 0;
    level.by_cells = Divider::of(level.cells > 0 ? ceil_div<int64_t>(level.cells, kPack) : 1);
  }
  args.upstream = device.classification_factor;
  args.partial = device.partial;
  args.done = device.done;
  args.result = static_cast<ArithmeticOf<T>*>(device.classification);
  args.classes = Divider::of(classes);
  const auto alpha = static_cast<ArithmeticOf<T>>(device.alpha);
  args.positive_weight = alpha < 0 ? 1 : alpha;
  args.negative_weight = alpha < 0 ? 1 : 1 - alpha;
  args.gamma = device.gamma;
  launch(retinanet_classification_kernel<T, G, kPlanar>, dim3(static_cast<unsigned>(blocks)), dim3(kLossThreads), 0,
         device.stream, args, adds);
  return true;
}

// One launch, or two where some levels are planar and others by anchor (a map of one cell is both).
template <class T, Gamma G>
void launch_classification_gamma(const RetinanetLossDevice& device) {
  const bool any = launch_classification_format<T, G, true>(device, false);
  launch_classification_format<T, G, false>(device, any);
}

template <class T, BoxLoss K>
void launch_box_kind(const RetinanetLossDevice& device) {
  using A = ArithmeticOf<T>;
  BoxLossArguments<T> args{};
  const int64_t blocks = loss_levels(
      args, device, device.deltas, device.deltas_gradient, [](const HeadLevel&) { return true; }, kLossMaxBlocks,
      [](const HeadLevel& level) { return level.anchors(); });
  args.upstream = device.box_factor;
  args.partial = device.partial + kLossPartials;
  args.done = device.done + 1;
  args.result = static_cast<A*>(device.box);
  args.anchor_boxes = static_cast<const A*>(device.anchors);
  args.gt_boxes = static_cast<const A*>(device.gt_boxes);
  args.coding = box_coding_of<A>(device.weights);
  args.beta = static_cast<A>(device.smooth_l1_beta);
  args.boxes_aligned = is_aligned(args.anchor_boxes, 16) && is_aligned(args.gt_boxes, 16);
  launch(retinanet_box_kernel<T, K>, dim3(static_cast<unsigned>(blocks)), dim3(kLossThreads), 0, device.stream, args);
}

// Values of gamma with kernels of their own, as for the focal loss alone.
template <class T>
void launch_classification_typed(const RetinanetLossDevice& device) {
  switch (gamma_case(device.gamma)) {
    case Gamma::kZero: return launch_classification_gamma<T, Gamma::kZero>(device);
    case Gamma::kTwo: return launch_classification_gamma<T, Gamma::kTwo>(device);
    default: return launch_classification_gamma<T, Gamma::kAny>(device);
  }
}

template <class T>
void launch_box_typed(const RetinanetLossDevice& device) {
  switch (device.box_loss) {
    case BoxLoss::kL1: return launch_box_kind<T, BoxLoss::kL1>(device);
    case BoxLoss::kSmoothL1: return launch_box_kind<T, BoxLoss::kSmoothL1>(device);
    case BoxLoss::kGeneralized: return launch_box_kind<T, BoxLoss::kGeneralized>(device);
    case BoxLoss::kDistance: return launch_box_kind<T, BoxLoss::kDistance>(device);
    case BoxLoss::kComplete: return launch_box_kind<T, BoxLoss::kComplete>(device);
  }
}

}  // namespace retina_ops
