// The kernels for class-index targets.
#include "focal_loss/focal_loss_launch.cuh"

namespace retina_ops {

void launch_focal_loss_labels(const FocalDevice& device) {
  switch (device.dtype) {
    case Dtype::kFloat32: return launch_focal_loss_typed<float, int64_t>(device);
    case Dtype::kFloat64: return launch_focal_loss_typed<double, int64_t>(device);
    case Dtype::kFloat16: return launch_focal_loss_typed<__half, int64_t>(device);
    case Dtype::kBFloat16: return launch_focal_loss_typed<__nv_bfloat16, int64_t>(device);
  }
}

}  // namespace retina_ops
