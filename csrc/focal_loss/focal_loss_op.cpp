// sigmoid_focal_loss for CPU tensors: checks, allocation, threads, registration.
#include "focal_loss/focal_loss_op.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "common/cpu_op.h"
#include "common/huge_pages.h"

namespace retina_ops {
namespace {

void check_label(const char* op, const FocalProblem& problem, int64_t bad_row) {
  check(bad_row < 0, op, ": class-index targets must be in [0, ", problem.classes, "] (", problem.classes,
        " = background) or ignore_index ", problem.ignore_index, ", got ", bad_row < 0 ? 0 : problem.labels[bad_row],
        " at row ", bad_row);
}

// Computes all chunks, after a check of their labels, and returns the sum of the losses.
double run_chunks(const char* op, const FocalArguments& arguments, int64_t elements) {
  const FocalProblem& problem = arguments.problem;
  if (elements == 0) check_label(op, problem, first_bad_label(problem, 0, arguments.targets.numel()));
  std::vector<int64_t> bad_rows(static_cast<size_t>((elements + kFocalChunk - 1) / kFocalChunk));  // [chunks]
  const double sum = sum_of_chunks(parallel_for, elements, kFocalChunk, [&](int64_t begin, int64_t end) {
    bad_rows[static_cast<size_t>(begin / kFocalChunk)] =
        first_bad_label(problem, begin / problem.classes, (end - 1) / problem.classes + 1);
    return focal_loss_range(problem, begin, end);
  });
  for (const int64_t bad_row : bad_rows) check_label(op, problem, bad_row);
  return sum;
}

// An output of the shape and dtype of the inputs, on huge pages if it is large.
Tensor new_output(const FocalArguments& arguments) {
  Tensor output = torch::stable::new_empty(arguments.inputs, arguments.inputs.sizes());
  advise_huge_pages(output.mutable_data_ptr(), static_cast<size_t>(output.numel()) * output.element_size());
  return output;
}

Tensor sigmoid_focal_loss_cpu(const Tensor& inputs, const Tensor& targets, std::optional<Tensor> alpha_per_class,
                              double alpha, double gamma, int64_t ignore_index) {
  const char* op = "sigmoid_focal_loss";
  FocalArguments arguments = check_sigmoid_focal_loss(op, inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  Tensor loss = new_output(arguments);
  arguments.problem.loss_out = loss.mutable_data_ptr();
  run_chunks(op, arguments, loss.numel());
  return loss;
}

Tensor sigmoid_focal_loss_backward_cpu(const Tensor& grad_output, const Tensor& inputs, const Tensor& targets,
                                       std::optional<Tensor> alpha_per_class, double alpha, double gamma,
                                       int64_t ignore_index, int64_t order) {
  const char* op = "sigmoid_focal_loss_backward";
  FocalArguments arguments = check_sigmoid_focal_loss(op, inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  check_order(op, order);
  check_upstream(op, grad_output, inputs);
  const Tensor upstream = torch::stable::contiguous(grad_output);
  if (grad_output.dim() == 0) {
    arguments.problem.upstream_scalar = scalar_value(upstream);
  } else {
    arguments.problem.upstream = upstream.const_data_ptr();
  }
  Tensor grad = new_output(arguments);
  arguments.problem.order = static_cast<int>(order);
  arguments.problem.grad_out = grad.mutable_data_ptr();
  run_chunks(op, arguments, grad.numel());
  return grad;
}

std::tuple<Tensor, Tensor> sigmoid_focal_loss_reduced_cpu(const Tensor& inputs, const Tensor& targets,
                                                          std::optional<Tensor> alpha_per_class, double alpha,
                                                          double gamma, int64_t ignore_index, bool mean,
                                                          bool with_grad) {
  const char* op = "sigmoid_focal_loss_reduced";
  FocalArguments arguments = check_sigmoid_focal_loss(op, inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  FocalProblem& problem = arguments.problem;
  const int64_t elements = arguments.inputs.numel();
  double divisor = 1.0;
  if (mean) {
    int64_t counted = elements;
    for (int64_t row = 0; arguments.is_labels && row < arguments.rows; ++row) {
      counted -= problem.labels[row] == ignore_index ? problem.classes : 0;
    }
    divisor = static_cast<double>(counted);
  }
  Tensor grad = with_grad ? new_output(arguments) : torch::stable::new_empty(arguments.inputs, {0});
  if (with_grad) {
    problem.order = 1;
    problem.grad_out = grad.mutable_data_ptr();
    problem.upstream_scalar = 1.0 / divisor;
  }
  const double loss = run_chunks(op, arguments, elements) / divisor;
  return {new_scalar(arguments.inputs, loss), grad};
}

void scale_gradient_cpu(Tensor grad, const Tensor& scale) {
  check_scale_gradient(grad, scale);
  const double factor = scalar_value(scale);
  if (factor == 1.0) {
    return;
  }
  void* data = grad.mutable_data_ptr();
  const Dtype dtype = dtype_of(grad);
  const int64_t elements = grad.numel();
  parallel_for(elements, kFocalChunk,
               [&](int64_t begin, int64_t end) { scale_range(data, dtype, factor, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss_cpu));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward_cpu));
  m.impl("sigmoid_focal_loss_reduced", TORCH_BOX(&sigmoid_focal_loss_reduced_cpu));
  m.impl("scale_gradient_", TORCH_BOX(&scale_gradient_cpu));
}

}  // namespace retina_ops

// targets are int64 class indices of shape inputs.shape[:-1], or soft targets of shape inputs.shape.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The loss of each element.
  m.def(
      "sigmoid_focal_loss(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index) -> Tensor");
  // grad_output times the derivative of order 1 or 2; grad_output has inputs.shape or is a scalar tensor.
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad_output, Tensor inputs, Tensor targets, Tensor? alpha_per_class, "
      "float alpha, float gamma, int ignore_index, int order) -> Tensor");
  // Sum or mean of the loss, and its gradient in the same pass (an empty tensor unless with_grad).
  m.def(
      "sigmoid_focal_loss_reduced(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index, bool mean, bool with_grad) -> (Tensor, Tensor)");
  // Multiplies grad in place by scale, a scalar tensor. Reads and writes nothing where scale is 1.
  m.def("scale_gradient_(Tensor(a!) grad, Tensor scale) -> ()");
}
