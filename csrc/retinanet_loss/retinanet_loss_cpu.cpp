// The RetinaNet loss on the CPU. Lower bound for float32: 8 bytes per logit, read and gradient written; the arithmetic
// of the focal loss takes longer. The rest is small: reading the matches once per loss, and a few hundred boxes.
// Nothing is permuted, concatenated or made one-hot: a unit takes a part of a level in place and computes the class
// targets of that part.
#include "retinanet_loss/retinanet_loss_cpu.h"

#include <algorithm>

#include "common/box_block.h"
#include "focal_loss/focal_loss_cpu.h"

namespace retina_ops {
namespace {

constexpr int64_t kElementsPerUnit = 16384;  // logits per unit, for levels by anchor
constexpr int64_t kCellsPerUnit = 4096;      // for planar levels: 16 kB of each plane in float32

void* shifted(void* base, Dtype dtype, int64_t elements) {
  return base == nullptr ? nullptr : static_cast<char*>(base) + elements * dtype_size(dtype);
}

// Sets the class targets of the unit's anchors. Returns false if a match or label is out of range.
bool set_targets(const RetinanetLossProblem& problem, const LossUnit& unit, std::vector<int64_t>& targets) {
  const HeadLevel& level = problem.logits.level[unit.level];
  const int64_t* matches = problem.matches + unit.image * problem.logits.anchors + level.first_anchor;
  const int64_t* labels = problem.gt_labels + unit.image * problem.gt_capacity;
  bool all_in_range = true;
  for (int64_t i = unit.begin; i < unit.end; ++i) {
    const int64_t match = matches[i * level.per_cell + unit.in_cell];
    const int64_t target = class_target(match, labels, problem.gt_capacity, problem.logits.channels);
    all_in_range = all_in_range && target != kBadLabel;
    targets[static_cast<size_t>(i - unit.begin)] = target == kBadLabel ? kIgnoredAnchor : target;
  }
  return all_in_range;
}

UnitSum classification_sum(const RetinanetLossProblem& problem, const LossUnit& unit) {
  const HeadLevel& level = problem.logits.level[unit.level];
  std::vector<int64_t> targets(static_cast<size_t>(unit.end - unit.begin));
  const bool all_in_range = set_targets(problem, unit, targets);
  const double divisor = problem.normalizer[unit.image];
  FocalProblem focal{};
  focal.logits = level.values;
  focal.dtype = problem.logits.dtype;
  focal.classes = problem.logits.channels;
  focal.labels = targets.data();
  focal.ignore_index = kIgnoredAnchor;
  focal.alpha = problem.alpha;
  focal.gamma = problem.gamma;
  focal.grad_out = shifted(problem.logits_gradient, focal.dtype, level.start);
  focal.order = focal.grad_out != nullptr ? 1 : 0;
  focal.upstream_scalar = problem.upstream_classification / divisor;
  double sum = 0.0;
  if (level.is_planar) {
    const int64_t plane = (unit.image * level.per_cell + unit.in_cell) * focal.classes;
    sum =
        focal_loss_planes(focal, {plane * level.cells + unit.begin, level.cells, unit.end - unit.begin, focal.labels});
  } else {
    const int64_t first = (unit.image * level.cells + unit.begin) * focal.classes;
    focal.logits = static_cast<const char*>(level.values) + first * dtype_size(focal.dtype);
    focal.grad_out = shifted(focal.grad_out, focal.dtype, first);
    sum = focal_loss_range(focal, 0, (unit.end - unit.begin) * focal.classes);
  }
  return {sum / divisor, !all_in_range};
}

template <BoxLoss K, class T>
UnitSum box_sum(const RetinanetLossProblem& problem, const LossUnit& unit) {
  const HeadLevel& level = problem.deltas.level[unit.level];
  const BoxCoding<T> coding = box_coding_of<T>(problem.weights);
  const double divisor = problem.normalizer[unit.image];
  const T factor = static_cast<T>(problem.upstream_box / divisor);
  const Dtype dtype = problem.deltas.dtype;
  const int64_t* matches = problem.matches + unit.image * problem.deltas.anchors + level.first_anchor;
  void* gradient = shifted(problem.deltas_gradient, dtype, level.start);
  if (gradient != nullptr) {
    const int64_t image_deltas = 4 * level.anchors();
    memset(shifted(gradient, dtype, unit.image * image_deltas), 0,
           static_cast<size_t>(image_deltas * dtype_size(dtype)));
  }
  UnitSum sum{0.0, false};
  for (int64_t anchor = 0; anchor < level.anchors(); ++anchor) {
    const int64_t match = matches[anchor];
    if (match < 0) continue;
    if (match >= problem.gt_capacity) {
      sum.has_bad_label = true;
      continue;
    }
    int64_t index[4];
    alignas(64) T d[4];
    for (int c = 0; c < 4; ++c) {
      index[c] = level.index(unit.image, anchor, c, 4);
      load_block<1>(level.values, dtype, index[c], d + c, 1);
    }
    const Box<T> anchor_box = load_box<T>(problem.anchors, kDtypeOf<T>, level.first_anchor + anchor);
    const Box<T> gt_box = load_box<T>(problem.gt_boxes, kDtypeOf<T>, unit.image * problem.gt_capacity + match);
    const BoxLossTerms<T> terms = box_loss<K, T, PlainMath>(coding, static_cast<T>(problem.smooth_l1_beta),
                                                            {d[0], d[1], d[2], d[3]}, anchor_box, gt_box);
    sum.loss += static_cast<double>(terms.loss);
    if (gradient == nullptr) continue;
    const T for_deltas[4] = {terms.gradient.dx * factor, terms.gradient.dy * factor, terms.gradient.dw * factor,
                             terms.gradient.dh * factor};
    for (int c = 0; c < 4; ++c) store_block<1>(gradient, dtype, index[c], for_deltas + c, 1);
  }
  sum.loss /= divisor;
  return sum;
}

template <class T>
UnitSum box_sum(const RetinanetLossProblem& problem, const LossUnit& unit) {
  switch (problem.box_loss) {
    case BoxLoss::kL1: return box_sum<BoxLoss::kL1, T>(problem, unit);
    case BoxLoss::kSmoothL1: return box_sum<BoxLoss::kSmoothL1, T>(problem, unit);
    case BoxLoss::kGeneralized: return box_sum<BoxLoss::kGeneralized, T>(problem, unit);
    case BoxLoss::kDistance: return box_sum<BoxLoss::kDistance, T>(problem, unit);
    default: return box_sum<BoxLoss::kComplete, T>(problem, unit);
  }
}

}  // namespace

std::vector<LossUnit> loss_units(const RetinanetLossProblem& problem) {
  std::vector<LossUnit> units;
  const int64_t rows = std::max<int64_t>(1, kElementsPerUnit / std::max<int64_t>(1, problem.logits.channels));
  for (int l = 0; l < problem.logits.count; ++l) {
    const HeadLevel& level = problem.logits.level[l];
    const int64_t step = level.is_planar ? kCellsPerUnit : rows;
    for (int64_t image = 0; image < problem.logits.batch; ++image) {
      for (int64_t in_cell = 0; in_cell < level.per_cell; ++in_cell) {
        for (int64_t begin = 0; begin < level.cells; begin += step) {
          units.push_back({l, image, false, in_cell, begin, std::min(begin + step, level.cells)});
        }
      }
      units.push_back({l, image, true, 0, 0, level.anchors()});
    }
  }
  return units;
}

UnitSum run_loss_unit(const RetinanetLossProblem& problem, const LossUnit& unit) {
  if (!unit.is_box) return classification_sum(problem, unit);
  return problem.deltas.dtype == Dtype::kFloat64 ? box_sum<double>(problem, unit) : box_sum<float>(problem, unit);
}

RetinanetLosses add_losses(const std::vector<LossUnit>& units, const std::vector<UnitSum>& sums) {
  RetinanetLosses losses{0.0, 0.0, false};
  for (size_t i = 0; i < units.size(); ++i) {
    (units[i].is_box ? losses.box : losses.classification) += sums[i].loss;
    losses.has_bad_label = losses.has_bad_label || sums[i].has_bad_label;
  }
  return losses;
}

}  // namespace retina_ops
