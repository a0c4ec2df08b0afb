// sigmoid_focal_loss for CUDA tensors: checks, allocation, launches, registration.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/cuda_op.cuh"
#include "focal_loss/focal_loss_launch.cuh"
#include "focal_loss/focal_loss_op.h"

namespace retina_ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

// The call that the arguments describe; outputs and workspace are the caller's.
FocalDevice device_of(const FocalArguments& arguments) {
  FocalDevice device{arguments.problem};
  device.n = arguments.inputs.numel();
  device.stream = current_stream(arguments.inputs);
  return device;
}

void run(const FocalDevice& device) {
  launch_focal_loss(device);
  RETINA_OPS_LAUNCH_CHECK();
}

// [2] int64 on the device: elements of rows that are not ignored, and rows with a label out of range.
Tensor count_labels(const FocalArguments& arguments, cudaStream_t stream) {
  Tensor counts = torch::stable::new_zeros(arguments.inputs, {2}, ScalarType::Long);
  FocalCount count{};
  count.labels = arguments.problem.labels;
  count.rows = arguments.targets.numel();
  count.classes = arguments.inputs.size(arguments.inputs.dim() - 1);
  count.ignore_index = arguments.problem.ignore_index;
  count.counts = counts.mutable_data_ptr<int64_t>();
  count.stream = stream;
  launch_focal_count(count);
  RETINA_OPS_LAUNCH_CHECK();
  return counts;
}

FocalArguments check_on_cuda(const char* op, const Tensor& inputs, const Tensor& targets,
                             const std::optional<Tensor>& alpha_per_class, double alpha, double gamma,
                             int64_t ignore_index) {
  FocalArguments arguments = check_sigmoid_focal_loss(op, inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  if (arguments.is_labels && debug_checks()) {
    int64_t counts[2] = {0, 0};
    const cudaStream_t stream = current_stream(inputs);
    const Tensor on_device = count_labels(arguments, stream);
    STD_CUDA_CHECK(cudaMemcpyAsync(counts, on_device.const_data_ptr(), sizeof(counts), cudaMemcpyDeviceToHost, stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(stream));
    check(counts[1] == 0, op, ": ", counts[1], " class-index targets are neither in [0, ", arguments.classes,
          "] nor ignore_index ", ignore_index);
  }
  return arguments;
}

Tensor sigmoid_focal_loss_cuda(const Tensor& inputs, const Tensor& targets, std::optional<Tensor> alpha_per_class,
                               double alpha, double gamma, int64_t ignore_index) {
  const DeviceGuard guard(inputs.get_device_index());
  const FocalArguments arguments =
      check_on_cuda("sigmoid_focal_loss", inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  Tensor loss = torch::stable::new_empty(arguments.inputs, arguments.inputs.sizes());
  FocalDevice device = device_of(arguments);
  device.loss_out = loss.mutable_data_ptr();
  run(device);
  return loss;
}

Tensor sigmoid_focal_loss_backward_cuda(const Tensor& grad_output, const Tensor& inputs, const Tensor& targets,
                                        std::optional<Tensor> alpha_per_class, double alpha, double gamma,
                                        int64_t ignore_index, int64_t order) {
  const char* op = "sigmoid_focal_loss_backward";
  const DeviceGuard guard(inputs.get_device_index());
  const FocalArguments arguments = check_on_cuda(op, inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  check_order(op, order);
  check_upstream(op, grad_output, inputs);
  FocalDevice device = device_of(arguments);
  const bool is_scalar = grad_output.dim() == 0;
  const Tensor upstream =
      is_scalar ? torch::stable::to(grad_output, ScalarType::Double) : torch::stable::contiguous(grad_output);
  if (is_scalar) {
    device.upstream_factor = upstream.const_data_ptr<double>();
  } else {
    device.upstream = upstream.const_data_ptr();
  }
  Tensor grad = torch::stable::new_empty(arguments.inputs, arguments.inputs.sizes());
  device.order = static_cast<int>(order);
  device.grad_out = grad.mutable_data_ptr();
  run(device);
  return grad;
}

std::tuple<Tensor, Tensor> sigmoid_focal_loss_reduced_cuda(const Tensor& inputs, const Tensor& targets,
                                                           std::optional<Tensor> alpha_per_class, double alpha,
                                                           double gamma, int64_t ignore_index, bool mean,
                                                           bool with_grad) {
  const DeviceGuard guard(inputs.get_device_index());
  const FocalArguments arguments =
      check_on_cuda("sigmoid_focal_loss_reduced", inputs, targets, alpha_per_class, alpha, gamma, ignore_index);
  FocalDevice device = device_of(arguments);
  Tensor counts;
  if (mean) {
    counts = arguments.is_labels ? count_labels(arguments, device.stream)
                                 : torch::stable::full({1}, static_cast<double>(device.n), ScalarType::Long,
                                                       std::nullopt, arguments.inputs.device());
    device.counted = counts.const_data_ptr<int64_t>();
  }
  const Tensor partial = torch::stable::new_empty(arguments.inputs, {kFocalMaxBlocks}, ScalarType::Double);
  const Tensor done = torch::stable::new_zeros(arguments.inputs, {1}, ScalarType::Int);
  Tensor loss = torch::stable::new_empty(arguments.inputs, {}, accumulate_dtype(inputs));
  Tensor grad = with_grad ? torch::stable::new_empty(arguments.inputs, arguments.inputs.sizes())
                          : torch::stable::new_empty(arguments.inputs, {0});
  device.partial = partial.mutable_data_ptr<double>();
  device.done = reinterpret_cast<unsigned*>(done.mutable_data_ptr<int32_t>());
  device.result = loss.mutable_data_ptr();
  device.grad_out = with_grad ? grad.mutable_data_ptr() : nullptr;
  run(device);
  return {loss, grad};
}

void scale_gradient_cuda(Tensor grad, const Tensor& scale) {
  check_scale_gradient(grad, scale);
  const DeviceGuard guard(grad.get_device_index());
  if (grad.numel() == 0) return;
  const Tensor factor = torch::stable::to(scale, ScalarType::Double);
  launch_scale_gradient({grad.mutable_data_ptr(),
                         dtype_of(grad),
                         factor.const_data_ptr<double>(),
                         grad.numel(),
                         {},
                         current_stream(grad)});
  RETINA_OPS_LAUNCH_CHECK();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss_cuda));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward_cuda));
  m.impl("sigmoid_focal_loss_reduced", TORCH_BOX(&sigmoid_focal_loss_reduced_cuda));
  m.impl("scale_gradient_", TORCH_BOX(&scale_gradient_cuda));
}

}  // namespace retina_ops
