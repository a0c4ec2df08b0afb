// The kernels of the classification loss.
#include "retinanet_loss/retinanet_loss_launch.cuh"

namespace retina_ops {

void launch_retinanet_classification(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  switch (problem.logits.dtype) {
    case Dtype::kFloat32: return launch_retinanet_classification_for_gamma<float>(problem, device);
    case Dtype::kFloat64: return launch_retinanet_classification_for_gamma<double>(problem, device);
    case Dtype::kFloat16: return launch_retinanet_classification_for_gamma<__half>(problem, device);
    case Dtype::kBFloat16: return launch_retinanet_classification_for_gamma<__nv_bfloat16>(problem, device);
  }
}

}  // namespace retina_ops
