// Chooses and launches the two kernels of the RetinaNet loss. No torch.
#pragma once

#include "retinanet_loss/retinanet_loss_box_kernels.cuh"
#include "retinanet_loss/retinanet_loss_cpu.h"
#include "retinanet_loss/retinanet_loss_logit_kernels.cuh"

namespace retina_ops {

constexpr int64_t kLossPartials = kPlanarMaxBlocks + kMaxLevels;

// The outputs and workspace that a CUDA call has beside its problem; all on the device.
struct RetinanetLossDevice {
  const double* upstream_classification;  // [] or null for 1
  const double* upstream_box;             // [] or null for 1
  double* partial;                        // [2, kLossPartials]
  unsigned* done;                         // [2] zero
  void* classification;                   // [] of the arithmetic type of the logits, or null: gradients alone
  void* box;                              // [] of that of the deltas, or null
  int64_t first_image;                    // 0 but in tests of large indices
  cudaStream_t stream;
  int64_t most_blocks = kPlanarMaxBlocks;  // fewer in tests, so that threads take several items
};

void launch_retinanet_classification(const RetinanetLossProblem& problem, const RetinanetLossDevice& device);
void launch_retinanet_box(const RetinanetLossProblem& problem, const RetinanetLossDevice& device);

inline int64_t most_blocks(const RetinanetLossDevice& device, int64_t most) {
  return device.most_blocks < most ? device.most_blocks : most;
}

// Describes the levels, shares the blocks out among them by their work, and returns how many blocks there are.
// is_taken: levels that are described; most: blocks; work: items of a thread for one image of a level, by the level.
template <class T, class IsTaken, class Work>
int64_t loss_levels(LossArguments<T>& a, const RetinanetLossProblem& problem, const HeadLevels& levels, void* gradient,
                    int64_t first_image, IsTaken is_taken, int64_t most, Work work) {
  a.count = 0;
  a.first_image = first_image;
  a.batch = levels.batch;
  a.anchors = levels.anchors;
  a.matches = problem.matches;
  a.labels = problem.gt_labels;
  a.capacity = problem.gt_capacity;
  a.normalizer = problem.normalizer;
  int64_t total = 0, blocks = 0;
  const int64_t images = levels.batch - first_image;
  for (int l = 0; l < levels.count; ++l) total += is_taken(levels.level[l]) ? images * work(levels.level[l]) : 0;
  const int64_t wanted = ceil_div<int64_t>(total, kLossThreads);
  const int64_t shared = wanted < most ? wanted : most;
  for (int l = 0; l < levels.count; ++l) {
    const HeadLevel& from = levels.level[l];
    if (!is_taken(from)) continue;
    LossLevel<T>& to = a.level[a.count++];
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
    // Rounded up, so that a level has a block at least; the shares of all levels add up to little more than `shared`.
    blocks += total == 0 ? 1 : ceil_div<int64_t>(images * work(from) * shared + 1, total);
  }
  return blocks;
}

// Of the levels of one kind; true where there are any.
template <class T, Gamma G, bool kPlanar>
bool launch_retinanet_classification(const RetinanetLossProblem& problem, const RetinanetLossDevice& device,
                                     bool adds) {
  constexpr int64_t kPack = kPlanar ? kFocalPack<T> : kRowPack<T>;
  const int64_t classes = problem.logits.channels;
  const int64_t chunks = ceil_div<int64_t>(classes, kPlaneClasses);
  ClassificationArguments<T> a{};
  const int64_t blocks = loss_levels(
      a, problem, problem.logits, problem.logits_gradient, device.first_image,
      [](const HeadLevel& level) { return level.is_planar == kPlanar; },
      most_blocks(device, kPlanar ? kPlanarMaxBlocks : kLossMaxBlocks),
      [&](const HeadLevel& level) {
        return kPlanar ? level.per_cell * chunks * ceil_div<int64_t>(level.cells, kPack)
                       : ceil_div<int64_t>(level.cells * classes, kPack);
      });
  if (a.count == 0) return false;
  for (int l = 0; kPlanar && l < a.count; ++l) {
    LossLevel<T>& level = a.level[l];
    // What every plane's beginning is a multiple of.
    const int64_t bytes = level.cells * static_cast<int64_t>(sizeof(T));
    level.access = !level.aligned ? 0 : bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 0;
    level.by_cells = Divider::of(level.cells > 0 ? ceil_div<int64_t>(level.cells, kPack) : 1);
  }
  a.upstream = device.upstream_classification;
  a.partial = device.partial;
  a.done = device.done;
  a.result = static_cast<ArithmeticOf<T>*>(device.classification);
  a.classes = Divider::of(classes);
  const auto alpha = static_cast<ArithmeticOf<T>>(problem.alpha);
  a.positive_weight = alpha < 0 ? 1 : alpha;
  a.negative_weight = alpha < 0 ? 1 : 1 - alpha;
  a.gamma = problem.gamma;
  launch(retinanet_classification_kernel<T, G, kPlanar>, dim3(static_cast<unsigned>(blocks)), dim3(kLossThreads), 0,
         device.stream, a, adds);
  return true;
}

// One launch, or two where some levels are planar and others by anchor (a map of one cell is both).
template <class T, Gamma G>
void launch_retinanet_classification(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  const bool any = launch_retinanet_classification<T, G, true>(problem, device, false);
  launch_retinanet_classification<T, G, false>(problem, device, any);
}

template <class T, BoxLoss K>
void launch_retinanet_box(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  using A = ArithmeticOf<T>;
  BoxLossArguments<T> a{};
  const int64_t blocks = loss_levels(
      a, problem, problem.deltas, problem.deltas_gradient, device.first_image, [](const HeadLevel&) { return true; },
      most_blocks(device, kLossMaxBlocks), [](const HeadLevel& level) { return level.anchors(); });
  a.upstream = device.upstream_box;
  a.partial = device.partial + kLossPartials;
  a.done = device.done + 1;
  a.result = static_cast<A*>(device.box);
  a.anchor_boxes = static_cast<const A*>(problem.anchors);
  a.gt_boxes = static_cast<const A*>(problem.gt_boxes);
  a.coding = box_coding_of<A>(problem.weights);
  a.beta = static_cast<A>(problem.smooth_l1_beta);
  a.boxes_aligned = is_aligned(a.anchor_boxes, 16) && is_aligned(a.gt_boxes, 16);
  launch(retinanet_box_kernel<T, K>, dim3(static_cast<unsigned>(blocks)), dim3(kLossThreads), 0, device.stream, a);
}

// The exponents with a kernel of their own, as those of the focal loss alone.
template <class T>
void launch_retinanet_classification_for_gamma(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  switch (gamma_case(problem.gamma)) {
    case Gamma::kZero: return launch_retinanet_classification<T, Gamma::kZero>(problem, device);
    case Gamma::kTwo: return launch_retinanet_classification<T, Gamma::kTwo>(problem, device);
    default: return launch_retinanet_classification<T, Gamma::kAny>(problem, device);
  }
}

template <class T>
void launch_retinanet_box_of(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  switch (problem.box_loss) {
    case BoxLoss::kL1: return launch_retinanet_box<T, BoxLoss::kL1>(problem, device);
    case BoxLoss::kSmoothL1: return launch_retinanet_box<T, BoxLoss::kSmoothL1>(problem, device);
    case BoxLoss::kGeneralized: return launch_retinanet_box<T, BoxLoss::kGeneralized>(problem, device);
    case BoxLoss::kDistance: return launch_retinanet_box<T, BoxLoss::kDistance>(problem, device);
    case BoxLoss::kComplete: return launch_retinanet_box<T, BoxLoss::kComplete>(problem, device);
  }
}

}  // namespace retina_ops
