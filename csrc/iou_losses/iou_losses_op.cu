// The IoU losses for CUDA tensors: workspace, launches and registration.
#include <torch/csrc/stable/library.h>

#include "common/cuda_op.cuh"
#include "iou_losses/iou_losses_kernels.cuh"
#include "iou_losses/iou_losses_op.h"

namespace retina_ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

struct Cuda {
  static void elementwise(const IouLossCall& call) {
    const DeviceGuard guard(call.boxes1.get_device_index());
    IouLossDevice device{call.problem};
    device.n = call.n;
    device.stream = current_stream(call.boxes1);
    launch_iou_loss(device);
    RETINA_OPS_LAUNCH_CHECK();
  }

  static void reduced(const IouLossCall& call, double scale, Tensor& loss) {
    const DeviceGuard guard(call.boxes1.get_device_index());
    const Tensor partial = torch::stable::new_empty(call.boxes1, {kIouLossMaxBlocks}, ScalarType::Double);
    const Tensor done = torch::stable::new_zeros(call.boxes1, {1}, ScalarType::Int);
    IouLossDevice device{call.problem};
    device.scale = scale;
    device.partial = partial.mutable_data_ptr<double>();
    device.done = reinterpret_cast<unsigned*>(done.mutable_data_ptr<int32_t>());
    device.result = loss.mutable_data_ptr();
    device.n = call.n;
    device.stream = current_stream(call.boxes1);
    launch_iou_loss(device);
    RETINA_OPS_LAUNCH_CHECK();
  }
};

using Operators = IouLossOperators<Cuda>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("iou_loss", TORCH_BOX(&Operators::loss));
  m.impl("iou_loss_backward", TORCH_BOX(&Operators::backward));
  m.impl("iou_loss_reduced", TORCH_BOX(&Operators::reduced));
}

}  // namespace retina_ops
