// The kernels with soft targets, which are of the logits' dtype, or float32 beside half logits.
#include "focal_loss/focal_loss_launch.cuh"

namespace retina_ops {
namespace {

template <class Half>
void launch_half(const FocalProblem& problem, const FocalDevice& device, bool reduced) {
  if (problem.soft_dtype == Dtype::kFloat32) {
    launch_for_gamma<Half, float>(problem, device, reduced);
  } else {
    launch_for_gamma<Half, Half>(problem, device, reduced);
  }
}

}  // namespace

void launch_focal_loss_soft(const FocalProblem& problem, const FocalDevice& device, bool reduced) {
  switch (problem.dtype) {
    case Dtype::kFloat32: return launch_for_gamma<float, float>(problem, device, reduced);
    case Dtype::kFloat64: return launch_for_gamma<double, double>(problem, device, reduced);
    case Dtype::kFloat16: return launch_half<__half>(problem, device, reduced);
    case Dtype::kBFloat16: return launch_half<__nv_bfloat16>(problem, device, reduced);
  }
}

}  // namespace retina_ops
