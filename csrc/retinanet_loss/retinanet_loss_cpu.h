// The RetinaNet loss over plain memory, on the CPU, in units that are independent of each other. No torch.
//
//   std::vector<LossUnit> units = loss_units(problem);
//   for each unit: sums[unit] = run_loss_unit(problem, units[unit]);
//   RetinanetLosses losses = add_losses(units, sums);
#pragma once

#include <vector>

#include "box_coding/box_coding_cpu.h"
#include "common/head_levels.h"
#include "retinanet_loss/retinanet_loss.h"

namespace retina_ops {

// One call of the operator.
struct RetinanetLossProblem {
  HeadLevels logits;         // K values an anchor
  HeadLevels deltas;         // 4 values an anchor
  const void* anchors;       // [A, 4] of the arithmetic type of the deltas: float, or double for float64
  const void* gt_boxes;      // [batch, gt_capacity, 4] of that type
  const int64_t* gt_labels;  // [batch, gt_capacity]
  int64_t gt_capacity;
  const int64_t* matches;    // [batch, A] index of a box, -1 background, -2 ignored
  const double* normalizer;  // [batch] what the sums of each image are divided by
  double alpha;              // weight of positives in [0, 1], 1 - alpha for negatives; negative: no weights
  double gamma;              // >= 0
  BoxLoss box_loss;
  double smooth_l1_beta;           // >= 0, in units of the deltas
  double weights[4];               // of the box coding
  double upstream_classification;  // factors of the two gradients
  double upstream_box;
  void* logits_gradient;  // [logits.elements] of the logits' dtype, or null
  void* deltas_gradient;  // [deltas.elements] of the deltas' dtype, or null
};

// Anchors [begin, end) of a level of an image: of a planar level cells, of anchor `in_cell` of each.
struct LossUnit {
  int level;
  int64_t image;
  bool is_box;      // the box loss, else the classification loss
  int64_t in_cell;  // of planar logits
  int64_t begin;
  int64_t end;
};

struct UnitSum {
  double loss;
  bool has_bad_label;  // a match or a label out of range
};

struct RetinanetLosses {
  double classification;
  double box;
  bool has_bad_label;
};

// Their size depends on the problem alone, so that no sum depends on the threads.
std::vector<LossUnit> loss_units(const RetinanetLossProblem& problem);
UnitSum run_loss_unit(const RetinanetLossProblem& problem, const LossUnit& unit);
RetinanetLosses add_losses(const std::vector<LossUnit>& units, const std::vector<UnitSum>& sums);

// What the kernels need of the problem's box coding.
template <class T>
BoxCoding<T> loss_coding_of(const RetinanetLossProblem& problem) {
  const T infinity = std::numeric_limits<T>::infinity();
  return {static_cast<T>(problem.weights[0]),
          static_cast<T>(problem.weights[1]),
          static_cast<T>(problem.weights[2]),
          static_cast<T>(problem.weights[3]),
          static_cast<T>(kBoxLogLimit),
          -infinity,
          infinity,
          infinity};
}

}  // namespace retina_ops
