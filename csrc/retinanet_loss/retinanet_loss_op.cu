// The RetinaNet loss for CUDA tensors: workspace, launches, registration.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cuda_op.cuh"
#include "retinanet_loss/retinanet_loss_launch.cuh"
#include "retinanet_loss/retinanet_loss_op.h"

namespace retina_ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

// Both launches. `device` has the outputs and factors of the call; its workspace is allocated here.
void run(const RetinanetLossCall& call, RetinanetLossDevice device) {
  const Tensor partial = torch::stable::new_empty(call.anchors, {2, kLossPartials}, ScalarType::Double);
  const Tensor done = torch::stable::new_zeros(call.anchors, {2}, ScalarType::Int);
  device.partial = partial.mutable_data_ptr<double>();
  device.done = reinterpret_cast<unsigned*>(done.mutable_data_ptr<int32_t>());
  device.stream = current_stream(call.anchors);
  launch_retinanet_loss(device);
  RETINA_OPS_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> retinanet_loss_cuda(
    std::vector<Tensor> cls_logits, std::vector<Tensor> bbox_regression, const Tensor& anchors, const Tensor& gt_boxes,
    const Tensor& gt_labels, const Tensor& matches, const Tensor& normalizer, double alpha, double gamma,
    int64_t box_loss, double smooth_l1_beta, double wx, double wy, double ww, double wh, bool with_grad) {
  const DeviceGuard guard(anchors.get_device_index());
  RetinanetLossCall call =
      check_retinanet_loss("retinanet_loss", cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches,
                           normalizer, {alpha, gamma, box_loss, smooth_l1_beta, wx, wy, ww, wh});
  allocate_gradients(call, with_grad);
  const Tensor &logits = call.logits.tensors[0], &deltas = call.deltas.tensors[0];
  Tensor classification = torch::stable::new_empty(logits, {}, accumulate_dtype(logits));
  Tensor box = torch::stable::new_empty(deltas, {}, accumulate_dtype(deltas));
  RetinanetLossDevice device{call.problem};
  device.classification = classification.mutable_data_ptr();
  device.box = box.mutable_data_ptr();
  run(call, device);
  return {classification, box, call.logits_gradient, call.deltas_gradient};
}

std::tuple<Tensor, Tensor> retinanet_loss_backward_cuda(const Tensor& grad_classification, const Tensor& grad_box,
                                                        std::vector<Tensor> cls_logits,
                                                        std::vector<Tensor> bbox_regression, const Tensor& anchors,
                                                        const Tensor& gt_boxes, const Tensor& gt_labels,
                                                        const Tensor& matches, const Tensor& normalizer, double alpha,
                                                        double gamma, int64_t box_loss, double smooth_l1_beta,
                                                        double wx, double wy, double ww, double wh) {
  const char* op = "retinanet_loss_backward";
  const DeviceGuard guard(anchors.get_device_index());
  RetinanetLossCall call = check_retinanet_loss(op, cls_logits, bbox_regression, anchors, gt_boxes, gt_labels, matches,
                                                normalizer, {alpha, gamma, box_loss, smooth_l1_beta, wx, wy, ww, wh});
  check_upstream_scalars(op, grad_classification, grad_box, anchors);
  allocate_gradients(call, true);
  const Tensor for_classification = torch::stable::to(grad_classification, ScalarType::Double);
  const Tensor for_box = torch::stable::to(grad_box, ScalarType::Double);
  RetinanetLossDevice device{call.problem};
  device.classification_factor = for_classification.const_data_ptr<double>();
  device.box_factor = for_box.const_data_ptr<double>();
  run(call, device);
  return {call.logits_gradient, call.deltas_gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("retinanet_loss", TORCH_BOX(&retinanet_loss_cuda));
  m.impl("retinanet_loss_backward", TORCH_BOX(&retinanet_loss_backward_cuda));
}

}  // namespace retina_ops
