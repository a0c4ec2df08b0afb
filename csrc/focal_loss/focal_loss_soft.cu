// The kernels for soft targets, which have the dtype of the logits, or float32 beside half logits.
#include "focal_loss/focal_loss_launch.cuh"

namespace retina_ops {
namespace {

template <class Half>
void launch_half(const FocalDevice& device) {
  if (device.soft_dtype == Dtype::kFloat32) {
    launch_focal_loss_typed<Half, float>(device);
  } else {
    launch_focal_loss_typed<Half, Half>(device);
  }
}

}  // namespace

void launch_focal_loss_soft(const FocalDevice& device) {
  switch (device.dtype) {
    case Dtype::kFloat32: return launch_focal_loss_typed<float, float>(device);
    case Dtype::kFloat64: return launch_focal_loss_typed<double, double>(device);
    case Dtype::kFloat16: return launch_half<__half>(device);
    case Dtype::kBFloat16: return launch_half<__nv_bfloat16>(device);
  }
}

}  // namespace retina_ops
