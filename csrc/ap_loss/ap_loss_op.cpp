// ap_loss for CPU tensors: checks, allocation, threads, registration.
#include "ap_loss/ap_loss_op.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "ap_loss/ap_loss_cpu.h"
#include "common/cpu_op.h"
#include "common/huge_pages.h"

namespace retina_ops {
namespace {

ApLossArguments check_on_cpu(const char* op, const Tensor& logits, const Tensor& targets, double delta,
                             int64_t ignore_index) {
  ApLossArguments arguments = check_ap_loss(op, logits, targets, delta, ignore_index);
  const ApLossProblem& problem = arguments.problem;
  // Without classes the only label is 0, the background.
  const int64_t bad_row = ap_loss_bad_row(problem);
  check(bad_row < 0, op, ": class-index targets must be in [0, ", problem.classes, "] (", problem.classes,
        " = background) or ignore_index ", problem.ignore_index, ", got ", bad_row < 0 ? 0 : problem.labels[bad_row],
        " at row ", bad_row);
  return arguments;
}

// The update, written by a call that also returns the loss.
double run(ApLossArguments& arguments, Tensor& grad) {
  arguments.problem.grad = grad.mutable_data_ptr();
  advise_huge_pages(arguments.problem.grad, static_cast<size_t>(grad.numel()) * grad.element_size());
  return ap_loss_of(arguments.problem, parallel_for);
}

std::tuple<Tensor, Tensor> ap_loss_cpu(const Tensor& logits, const Tensor& targets, double delta, int64_t ignore_index,
                                       bool with_grad) {
  cpu_isa();  // an invalid RETINA_OPS_ISA raises also where there is no logit
  ApLossArguments arguments = check_on_cpu("ap_loss", logits, targets, delta, ignore_index);
  Tensor grad = new_gradient(arguments.logits, with_grad);
  const double loss = with_grad ? run(arguments, grad) : ap_loss_of(arguments.problem, parallel_for);
  return {new_scalar(arguments.logits, loss), grad};
}

Tensor ap_loss_backward_cpu(const Tensor& grad_output, const Tensor& logits, const Tensor& targets, double delta,
                            int64_t ignore_index) {
  const char* op = "ap_loss_backward";
  ApLossArguments arguments = check_on_cpu(op, logits, targets, delta, ignore_index);
  check_ap_loss_upstream(op, grad_output, logits);
  arguments.problem.upstream = scalar_value(grad_output);
  Tensor grad = new_gradient(arguments.logits, true);
  run(arguments, grad);
  return grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("ap_loss", TORCH_BOX(&ap_loss_cpu));
  m.impl("ap_loss_backward", TORCH_BOX(&ap_loss_backward_cpu));
}

}  // namespace retina_ops

// targets are int64 class indices of shape logits.shape[:-1], or dense of shape logits.shape: above 0 positive, 0
// negative, below 0 ignored.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The loss, a scalar, and its update in the same call (an empty tensor unless with_grad).
  m.def("ap_loss(Tensor logits, Tensor targets, float delta, int ignore_index, bool with_grad) -> (Tensor, Tensor)");
  // grad_output, a scalar tensor, times the update.
  m.def("ap_loss_backward(Tensor grad_output, Tensor logits, Tensor targets, float delta, int ignore_index) -> Tensor");
}
