// The kernels with class-index targets.
#include "focal_loss/focal_loss_launch.cuh"

namespace retina_ops {

void launch_focal_loss_labels(const FocalProblem& problem, const FocalDevice& device, bool reduced) {
  switch (problem.dtype) {
    case Dtype::kFloat32: return launch_for_gamma<float, int64_t>(problem, device, reduced);
    case Dtype::kFloat64: return launch_for_gamma<double, int64_t>(problem, device, reduced);
    case Dtype::kFloat16: return launch_for_gamma<__half, int64_t>(problem, device, reduced);
    case Dtype::kBFloat16: return launch_for_gamma<__nv_bfloat16, int64_t>(problem, device, reduced);
  }
}

}  // namespace retina_ops
