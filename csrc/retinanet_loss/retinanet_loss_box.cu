// The kernels of the box loss.
#include "retinanet_loss/retinanet_loss_launch.cuh"

namespace retina_ops {

void launch_retinanet_box(const RetinanetLossProblem& problem, const RetinanetLossDevice& device) {
  switch (problem.deltas.dtype) {
    case Dtype::kFloat32: return launch_retinanet_box_of<float>(problem, device);
    case Dtype::kFloat64: return launch_retinanet_box_of<double>(problem, device);
    case Dtype::kFloat16: return launch_retinanet_box_of<__half>(problem, device);
    case Dtype::kBFloat16: return launch_retinanet_box_of<__nv_bfloat16>(problem, device);
  }
}

}  // namespace retina_ops
