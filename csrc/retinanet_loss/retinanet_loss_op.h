// What the CPU and the CUDA operators of the RetinaNet loss share: argument checks, outputs and the problem for the
// kernels.
#pragma once

#include <cmath>
#include <vector>

#include "common/head_outputs.h"
#include "retinanet_loss/retinanet_loss_cpu.h"

namespace retina_ops {

// The options of the operators, as in their schemas.
struct RetinanetLossOptions {
  double alpha, gamma;
  int64_t box_loss;
  double smooth_l1_beta, weight_x, weight_y, weight_w, weight_h;
};

// The arguments of a call, checked and contiguous, and its gradients.
struct RetinanetLossCall {
  HeadOutputs logits;
  HeadOutputs deltas;
  Tensor anchors;
  Tensor gt_boxes;
  Tensor gt_labels;
  Tensor matches;
  Tensor normalizer;
  Tensor logits_gradient;
  Tensor deltas_gradient;
  RetinanetLossProblem problem;
};

inline RetinanetLossCall check_retinanet_loss(const char* op, const std::vector<Tensor>& cls_logits,
                                              const std::vector<Tensor>& bbox_regression, const Tensor& anchors,
                                              const Tensor& gt_boxes, const Tensor& gt_labels, const Tensor& matches,
                                              const Tensor& normalizer, const RetinanetLossOptions& options) {
  RetinanetLossCall call{check_head_outputs(op, "cls_logits", cls_logits),
                         check_head_outputs(op, "bbox_regression", bbox_regression),
                         torch::stable::contiguous(anchors),
                         torch::stable::contiguous(gt_boxes),
                         torch::stable::contiguous(gt_labels),
                         torch::stable::contiguous(matches),
                         torch::stable::contiguous(normalizer),
                         Tensor(),
                         Tensor(),
                         RetinanetLossProblem{}};
  check_same_levels(op, call.logits, call.deltas, anchors);
  const HeadLevels& logits = call.logits.levels;
  check(logits.channels >= 1 && logits.channels <= kMostClasses, op, ": cls_logits must have 1 to ", kMostClasses,
        " classes, got ", logits.channels);
  const ScalarType arithmetic = accumulate_dtype(call.deltas.tensors[0]);
  check(anchors.scalar_type() == arithmetic && gt_boxes.scalar_type() == arithmetic, op,
        ": anchors and gt_boxes must be ", dtype_name(arithmetic), " with ",
        dtype_name(call.deltas.tensors[0].scalar_type()), " bbox_regression, got ", dtype_name(anchors.scalar_type()),
        " and ", dtype_name(gt_boxes.scalar_type()));
  check(gt_boxes.dim() == 3 && gt_boxes.size(0) == logits.batch && gt_boxes.size(2) == 4, op, ": gt_boxes must be [",
        logits.batch, ", M, 4], got ", shape_string(gt_boxes));
  check(gt_labels.dim() == 2 && gt_labels.size(0) == logits.batch && gt_labels.size(1) == gt_boxes.size(1) &&
            gt_labels.scalar_type() == ScalarType::Long,
        op, ": gt_labels must be int64 [", logits.batch, ", ", gt_boxes.size(1), "], got ",
        dtype_name(gt_labels.scalar_type()), " ", shape_string(gt_labels));
  check(matches.dim() == 2 && matches.size(0) == logits.batch && matches.size(1) == logits.anchors &&
            matches.scalar_type() == ScalarType::Long,
        op, ": matches must be int64 [", logits.batch, ", ", logits.anchors, "], got ",
        dtype_name(matches.scalar_type()), " ", shape_string(matches));
  check(normalizer.dim() == 1 && normalizer.size(0) == logits.batch && normalizer.scalar_type() == ScalarType::Double,
        op, ": normalizer must be float64 [", logits.batch, "], got ", dtype_name(normalizer.scalar_type()), " ",
        shape_string(normalizer));
  for (const Tensor* tensor : {&gt_boxes, &gt_labels, &matches, &normalizer}) {
    check(same_device(anchors, *tensor), op, ": all inputs must be on one device");
  }
  check(options.gamma >= 0.0, op, ": gamma must be at least 0, got ", options.gamma);
  check(options.smooth_l1_beta >= 0.0, op, ": smooth_l1_beta must be at least 0, got ", options.smooth_l1_beta);
  check(options.box_loss >= 0 && options.box_loss <= static_cast<int64_t>(BoxLoss::kComplete), op,
        ": box_loss must be in [0, 4], got ", options.box_loss);
  for (const double weight : {options.weight_x, options.weight_y, options.weight_w, options.weight_h}) {
    check(std::isfinite(weight) && weight != 0.0, op, ": bbox_reg_weights must be finite and not 0, got ", weight);
  }
  RetinanetLossProblem& problem = call.problem;
  problem.logits = logits;
  problem.deltas = call.deltas.levels;
  problem.anchors = call.anchors.const_data_ptr();
  problem.gt_boxes = call.gt_boxes.const_data_ptr();
  problem.gt_labels = call.gt_labels.const_data_ptr<int64_t>();
  problem.gt_capacity = gt_boxes.size(1);
  problem.matches = call.matches.const_data_ptr<int64_t>();
  problem.normalizer = call.normalizer.const_data_ptr<double>();
  problem.alpha = options.alpha;
  problem.gamma = options.gamma;
  problem.box_loss = static_cast<BoxLoss>(options.box_loss);
  problem.smooth_l1_beta = options.smooth_l1_beta;
  problem.weights[0] = options.weight_x;
  problem.weights[1] = options.weight_y;
  problem.weights[2] = options.weight_w;
  problem.weights[3] = options.weight_h;
  problem.upstream_classification = problem.upstream_box = 1.0;
  return call;
}

inline void check_upstream_scalars(const char* op, const Tensor& grad_classification, const Tensor& grad_box,
                                   const Tensor& anchors) {
  for (const Tensor* grad : {&grad_classification, &grad_box}) {
    check(grad->dim() == 0 && same_device(*grad, anchors), op,
          ": the gradients of the losses must be scalar tensors on the device of the anchors, got ",
          shape_string(*grad));
  }
}

// Allocates the gradients, arrays of all levels in turn (common/head_levels.h). They are empty if they are not wanted.
inline void allocate_gradients(RetinanetLossCall& call, bool is_wanted) {
  const Tensor &logits = call.logits.tensors[0], &deltas = call.deltas.tensors[0];
  call.logits_gradient = torch::stable::new_empty(logits, {is_wanted ? call.problem.logits.elements : 0});
  call.deltas_gradient = torch::stable::new_empty(deltas, {is_wanted ? call.problem.deltas.elements : 0});
  if (!is_wanted) return;
  call.problem.logits_gradient = call.logits_gradient.mutable_data_ptr();
  call.problem.deltas_gradient = call.deltas_gradient.mutable_data_ptr();
}

}  // namespace retina_ops
