// box_iou and its gradient for CUDA tensors: launches and registration.
#include <torch/csrc/stable/library.h>

#include "box_iou/box_iou_grad_kernels.cuh"
#include "box_iou/box_iou_launch.cuh"
#include "box_iou/box_iou_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

struct Cuda {
  static constexpr int64_t kGradRows = kIouGradRows;
  static constexpr int64_t kGradColumns = kIouThreads;

  static void forward(const BoxIouCall& call) {
    const DeviceGuard guard(call.boxes1.get_device_index());
    launch_box_iou({call.problem, call.batch, {}, current_stream(call.boxes1)});
    RETINA_OPS_LAUNCH_CHECK();
  }

  static void backward(const BoxIouCall& call, const BoxIouGradProblem& problem, void* grad1, void* grad2) {
    const DeviceGuard guard(call.boxes1.get_device_index());
    launch_box_iou_grad({problem, grad1, grad2, {}, current_stream(call.boxes1)});
    RETINA_OPS_LAUNCH_CHECK();
  }
};

using Operators = BoxIouOperators<Cuda>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("box_iou", TORCH_BOX(&Operators::forward));
  m.impl("box_iou_backward", TORCH_BOX(&Operators::backward));
}

}  // namespace retina_ops
