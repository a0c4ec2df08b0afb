// The kernels of the classification loss.
#include "retinanet_loss/retinanet_loss_launch.cuh"

namespace retina_ops {

void launch_retinanet_classification(const RetinanetLossDevice& device) {
  switch (device.logits.dtype) {
    case Dtype::kFloat32: return launch_classification_typed<float>(device);
    case Dtype::kFloat64: return launch_classification_typed<double>(device);
    case Dtype::kFloat16: return launch_classification_typed<__half>(device);
    case Dtype::kBFloat16: return launch_classification_typed<__nv_bfloat16>(device);
  }
}

}  // namespace retina_ops
