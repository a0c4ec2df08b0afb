// Table of contents: the schema of every operator. Each room registers its own kernels (CPU here, CUDA in _cuda).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(retina_ops, m) {
  // focal_loss/: targets are int64 class indices of shape inputs.shape[:-1], or soft targets of shape inputs.shape.
  m.def(
      "sigmoid_focal_loss(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index) -> Tensor");
  // grad_output times the derivative of order 1 or 2; grad_output has inputs.shape or is a scalar tensor.
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad_output, Tensor inputs, Tensor targets, Tensor? alpha_per_class, "
      "float alpha, float gamma, int ignore_index, int order) -> Tensor");
  // Sum or mean, and its gradient in the same pass (an empty tensor unless with_grad).
  m.def(
      "sigmoid_focal_loss_reduced(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index, bool mean, bool with_grad) -> (Tensor, Tensor)");
  // grad *= scale, a scalar tensor; nothing is read or written where scale is 1.
  m.def("scale_gradient_(Tensor(a!) grad, Tensor scale) -> ()");
}
