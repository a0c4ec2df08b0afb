// The kernels of the box loss.
#include "retinanet_loss/retinanet_loss_launch.cuh"

namespace retina_ops {

void launch_retinanet_box(const RetinanetLossDevice& device) {
  switch (device.deltas.dtype) {
    case Dtype::kFloat32: return launch_box_typed<float>(device);
    case Dtype::kFloat64: return launch_box_typed<double>(device);
    case Dtype::kFloat16: return launch_box_typed<__half>(device);
    case Dtype::kBFloat16: return launch_box_typed<__nv_bfloat16>(device);
  }
}

}  // namespace retina_ops
