// The problem that a call of the RetinaNet loss describes, and its solution on the CPU, in independent units of work.
// No torch.
//
//   std::vector<LossUnit> units = loss_units(problem);
//   for each unit: sums[unit] = run_loss_unit(problem, units[unit]);
//   RetinanetLosses losses = add_losses(units, sums);
#pragma once

#include <vector>

#include "common/head_levels.h"
#include "retinanet_loss/retinanet_loss.h"

namespace retina_ops {

// One call of an operator. All arrays are contiguous.
struct RetinanetLossProblem {
  HeadLevels logits;         // K values per anchor
  HeadLevels deltas;         // 4 values per anchor
  const void* anchors;       // [A, 4] of the type of the box arithmetic: float, or double for float64 deltas
  const void* gt_boxes;      // [batch, gt_capacity, 4] of that type
  const int64_t* gt_labels;  // [batch, gt_capacity]
  int64_t gt_capacity;
  const int64_t* matches;    // [batch, A] index of a box; -1: background, -2: ignored
  const double* normalizer;  // [batch] divisor of the sums of each image
  double alpha;              // weight of positives in [0, 1], 1 - alpha is that of negatives; negative: no weights
  double gamma;              // >= 0
  BoxLoss box_loss;
  double smooth_l1_beta;           // >= 0, in units of the deltas
  double weights[4];               // of the box coding
  double upstream_classification;  // upstream gradients of the two losses
  double upstream_box;
  void* logits_gradient;  // [logits.elements] of the logits' dtype, or null
  void* deltas_gradient;  // [deltas.elements] of the deltas' dtype, or null
};

// A unit of work: one of the losses, for anchors [begin, end) of a level of an image. The classification loss of a
// planar level counts cells instead, and takes anchor number `in_cell` of each.
struct LossUnit {
  int level;
  int64_t image;
  bool is_box;      // box loss or classification loss
  int64_t in_cell;  // 0 unless planar
  int64_t begin;
  int64_t end;
};

struct UnitSum {
  double loss;
  bool has_bad_label;  // a match or a label is out of range
};

struct RetinanetLosses {
  double classification;
  double box;
  bool has_bad_label;
};

// The units of a problem. They do not depend on the number of threads, so neither do the sums.
std::vector<LossUnit> loss_units(const RetinanetLossProblem& problem);
UnitSum run_loss_unit(const RetinanetLossProblem& problem, const LossUnit& unit);
RetinanetLosses add_losses(const std::vector<LossUnit>& units, const std::vector<UnitSum>& sums);

}  // namespace retina_ops
