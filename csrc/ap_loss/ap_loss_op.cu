// ap_loss for CUDA tensors: workspace, sort, launches, registration.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "ap_loss/ap_loss_launch.cuh"
#include "ap_loss/ap_loss_op.h"
#include "common/cuda_op.cuh"
#include "common/sort.cuh"

namespace retina_ops {
namespace {

// The loss; writes upstream times the update into `grad`, if it is given.
Tensor run(const ApLossArguments& arguments, Tensor* grad, const double* upstream) {
  const Tensor& logits = arguments.logits;
  ApLossDevice device{arguments.problem};
  if (device.labels == nullptr) {
    device.rows *= device.classes;
    device.classes = 1;
  }
  const int64_t slots = device.rows;
  const ScalarType arithmetic = accumulate_dtype(logits);
  Tensor result = torch::stable::new_zeros(logits, {}, arithmetic);
  if (slots == 0) return result;
  const Tensor state = torch::stable::new_zeros(logits, {2}, ScalarType::Long);
  const Tensor values = torch::stable::new_empty(logits, {slots}, arithmetic);
  // 14 words per slot and 4 more, and 8 numbers per slot and 3 more.
  const Tensor words = torch::stable::new_empty(logits, {14 * slots + 4}, ScalarType::Long);
  const Tensor doubles = torch::stable::new_empty(logits, {4 * slots}, ScalarType::Double);
  const Tensor numbers = torch::stable::new_empty(logits, {8 * slots + 3}, arithmetic);
  int64_t* word = words.mutable_data_ptr<int64_t>();
  double* number = doubles.mutable_data_ptr<double>();
  device.grad = grad != nullptr ? grad->mutable_data_ptr() : nullptr;
  device.values = values.mutable_data_ptr();
  device.positives = reinterpret_cast<uint64_t*>(state.mutable_data_ptr<int64_t>());
  device.has_nan = device.positives + 1;
  device.of_negatives = reinterpret_cast<uint64_t*>(word);
  device.of_positives = device.of_negatives + 4 * slots + 2;
  device.units = device.of_positives + 4 * slots + 2;
  device.owners = word + 10 * slots + 4;
  device.begins = device.owners + 2 * slots;
  device.ends = device.begins + slots;
  device.slopes = number;
  device.errors = number + 2 * slots;
  device.weights = number + 3 * slots;
  device.breakpoints = numbers.mutable_data_ptr();
  device.lines = static_cast<char*>(device.breakpoints) + 2 * slots * (arithmetic == ScalarType::Double ? 8 : 4);
  device.upstream_scalar = upstream;
  device.result = result.mutable_data_ptr();
  device.stream = current_stream(logits);
  launch_ap_loss_gather(device);
  RETINA_OPS_LAUNCH_CHECK();
  const Tensor order = stable_argsort(values, false);
  device.order = order.const_data_ptr<int64_t>();
  launch_ap_loss(device);
  RETINA_OPS_LAUNCH_CHECK();
  return result;
}

std::tuple<Tensor, Tensor> ap_loss_cuda(const Tensor& logits, const Tensor& targets, double delta, int64_t ignore_index,
                                        bool with_grad) {
  const ApLossArguments arguments = check_ap_loss("ap_loss", logits, targets, delta, ignore_index);
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  Tensor grad = new_gradient(arguments.logits, with_grad);
  Tensor loss = run(arguments, with_grad ? &grad : nullptr, nullptr);
  return {loss, grad};
}

Tensor ap_loss_backward_cuda(const Tensor& grad_output, const Tensor& logits, const Tensor& targets, double delta,
                             int64_t ignore_index) {
  const char* op = "ap_loss_backward";
  const ApLossArguments arguments = check_ap_loss(op, logits, targets, delta, ignore_index);
  check_ap_loss_upstream(op, grad_output, logits);
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor upstream = torch::stable::to(grad_output, ScalarType::Double);
  Tensor grad = new_gradient(arguments.logits, true);
  run(arguments, &grad, upstream.const_data_ptr<double>());
  return grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("ap_loss", TORCH_BOX(&ap_loss_cuda));
  m.impl("ap_loss_backward", TORCH_BOX(&ap_loss_backward_cuda));
}

}  // namespace retina_ops
