// The RetinaNet loss for CPU tensors: threads, outputs, registration.
#include "retinanet_loss/retinanet_loss_op.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cpu_op.h"
#include "common/huge_pages.h"

namespace retina_ops {
namespace {

// Sets the unused elements between the levels to 0.
void clear_gaps(const HeadLevels& levels, Tensor& gradient) {
  auto* bytes = static_cast<char*>(gradient.mutable_data_ptr());
  const auto size = static_cast<int64_t>(gradient.element_size());
  for (int l = 0; l < levels.count; ++l) {
    memset(bytes + level_end(levels, l) * size, 0, static_cast<size_t>(level_gap(levels, l) * size));
  }
}

RetinanetLosses run(const char* op, RetinanetLossCall& call, bool with_grad) {
  allocate_gradients(call, with_grad);
  const RetinanetLossProblem& problem = call.problem;
  if (with_grad) {
    advise_huge_pages(problem.logits_gradient,
                      static_cast<size_t>(problem.logits.elements) * call.logits_gradient.element_size());
    clear_gaps(problem.logits, call.logits_gradient);
    clear_gaps(problem.deltas, call.deltas_gradient);
  }
  const std::vector<LossUnit> units = loss_units(problem);
  std::vector<UnitSum> sums(units.size());
  parallel_for(static_cast<int64_t>(units.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      sums[static_cast<size_t>(unit)] = run_loss_unit(problem, units[static_cast<size_t>(unit)]);
    }
  });
  const RetinanetLosses losses = add_losses(units, sums);
  check(!losses.has_bad_label, op, ": matches must be under ", problem.gt_capacity, " and gt_labels in [0, ",
        problem.logits.channels, ")");
  return losses;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> retinanet_loss_cpu(
    std::vector<Tensor> cls_logits, std::vector<Tensor> bbox_regression, const Tensor& anchors, const Tensor& gt_boxes,
    const Tensor& gt_labels, const Tensor& matches, const Tensor& normalizer, double alpha, double gamma,
    int64_t box_loss, double smooth_l1_beta, double wx, double wy, double ww, double wh, bool with_grad) {
  const char* op = "retinanet_loss";
  RetinanetLossCall call = check_retinanet_loss(op, cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches,
                                                normalizer, {alpha, gamma, box_loss, smooth_l1_beta, wx, wy, ww, wh});
  const RetinanetLosses losses = run(op, call, with_grad);
  return {new_scalar(call.logits.tensors[0], losses.classification), new_scalar(call.deltas.tensors[0], losses.box),
          call.logits_gradient, call.deltas_gradient};
}

std::tuple<Tensor, Tensor> retinanet_loss_backward_cpu(const Tensor& grad_classification, const Tensor& grad_box,
                                                       std::vector<Tensor> cls_logits,
                                                       std::vector<Tensor> bbox_regression, const Tensor& anchors,
                                                       const Tensor& gt_boxes, const Tensor& gt_labels,
                                                       const Tensor& matches, const Tensor& normalizer, double alpha,
                                                       double gamma, int64_t box_loss, double smooth_l1_beta, double wx,
                                                       double wy, double ww, double wh) {
  const char* op = "retinanet_loss_backward";
  RetinanetLossCall call = check_retinanet_loss(op, cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches,
                                                normalizer, {alpha, gamma, box_loss, smooth_l1_beta, wx, wy, ww, wh});
  check_upstream_scalars(op, grad_classification, grad_box, anchors);
  call.problem.upstream_classification = scalar_value(grad_classification);
  call.problem.upstream_box = scalar_value(grad_box);
  run(op, call, true);
  return {call.logits_gradient, call.deltas_gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("retinanet_loss", TORCH_BOX(&retinanet_loss_cpu));
  m.impl("retinanet_loss_backward", TORCH_BOX(&retinanet_loss_backward_cpu));
}

}  // namespace retina_ops

// cls_logits and bbox_regression hold one tensor per level, [B, N, C] or planar [B, A, C, cells]
// (common/head_levels.h); C is K for logits and 4 for deltas. anchors [A, 4]; gt_boxes [B, M, 4] and gt_labels
// int64 [B, M] are padded; matches int64 [B, A]; normalizer float64 [B].
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The classification loss and the box loss, and the gradients of logits and deltas, each with all levels one after
  // the other (empty tensors unless with_grad).
  m.def(
      "retinanet_loss(Tensor[] cls_logits, Tensor[] bbox_regression, Tensor anchors, Tensor gt_boxes, "
      "Tensor gt_labels, Tensor matches, Tensor normalizer, float alpha, float gamma, int box_loss, "
      "float smooth_l1_beta, float wx, float wy, float ww, float wh, bool with_grad) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // The same gradients, times the upstream gradients of the two losses.
  m.def(
      "retinanet_loss_backward(Tensor grad_classification, Tensor grad_box, Tensor[] cls_logits, "
      "Tensor[] bbox_regression, Tensor anchors, Tensor gt_boxes, Tensor gt_labels, Tensor matches, "
      "Tensor normalizer, float alpha, float gamma, int box_loss, float smooth_l1_beta, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor)");
}
