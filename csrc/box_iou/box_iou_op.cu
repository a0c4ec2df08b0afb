// box_iou for CUDA tensors: launches and registration.
#include <torch/csrc/stable/library.h>

#include "box_iou/box_iou_launch.cuh"
#include "box_iou/box_iou_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

Tensor box_iou_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  const torch::stable::accelerator::DeviceGuard guard(boxes1.get_device_index());
  const BoxIouCall call = check_box_iou(boxes1, boxes2);
  if (call.iou.numel() == 0) return call.iou;
  launch_box_iou(call.problem, 0, call.batch, current_stream(boxes1));
  RETINA_OPS_LAUNCH_CHECK();
  return call.iou;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) { m.impl("box_iou", TORCH_BOX(&box_iou_cuda)); }

}  // namespace retina_ops
