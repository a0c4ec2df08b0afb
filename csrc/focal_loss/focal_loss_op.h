// What the CPU and the CUDA operators of the focal loss share: argument checks and the problem for the kernels.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/dispatch.h"
#include "focal_loss/focal_loss_cpu.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous.
struct FocalArguments {
  Tensor inputs;
  Tensor targets;
  std::optional<Tensor> alpha_per_class;
  int64_t classes;  // length of a row, at least 1
  int64_t rows;
  bool is_labels;
  FocalProblem problem;  // without outputs and upstream
};

inline FocalArguments check_sigmoid_focal_loss(const char* op, const Tensor& inputs, const Tensor& targets,
                                               const std::optional<Tensor>& alpha_per_class, double alpha, double gamma,
                                               int64_t ignore_index) {
  check_floating(op, "inputs", inputs);
  check(same_device(inputs, targets), op, ": inputs and targets must be on one device");
  check(gamma >= 0.0, op, ": gamma must be at least 0, got ", gamma);
  const bool is_labels = targets.scalar_type() == ScalarType::Long;
  if (is_labels) {
    check(inputs.dim() >= 1 && has_shape(targets, leading_shape(inputs)), op,
          ": class-index targets must have the shape of inputs without its last dimension, got inputs ",
          shape_string(inputs), " and targets ", shape_string(targets));
  } else {
    const ScalarType dtype = targets.scalar_type();
    check(dtype == inputs.scalar_type() || (dtype == ScalarType::Float && inputs.scalar_type() != ScalarType::Double),
          op,
          ": targets must be int64 class indices or have the dtype of inputs (or float32 for half inputs), got inputs ",
          dtype_name(inputs.scalar_type()), " and targets ", dtype_name(dtype));
    check(same_shape(inputs, targets), op, ": floating targets must have the shape of inputs, got inputs ",
          shape_string(inputs), " and targets ", shape_string(targets));
  }
  const int64_t last = inputs.dim() == 0 ? 1 : inputs.size(inputs.dim() - 1);
  if (alpha_per_class.has_value()) {
    check(same_device(inputs, *alpha_per_class), op, ": inputs and alpha must be on one device");
    check(alpha_per_class->scalar_type() == accumulate_dtype(inputs), op, ": alpha must be ",
          dtype_name(accumulate_dtype(inputs)), ", got ", dtype_name(alpha_per_class->scalar_type()));
    check(alpha_per_class->dim() == 1 && inputs.dim() >= 1 && alpha_per_class->size(0) == last, op,
          ": alpha must be one number or have one value per class, [", last, "], got ", shape_string(*alpha_per_class));
  }
  FocalArguments arguments{torch::stable::contiguous(inputs),
                           torch::stable::contiguous(targets),
                           std::nullopt,
                           1,
                           0,
                           is_labels,
                           FocalProblem{}};
  if (alpha_per_class.has_value()) {
    arguments.alpha_per_class = torch::stable::contiguous(*alpha_per_class);
  }
  arguments.classes = last > 0 ? last : 1;
  arguments.rows = inputs.numel() / arguments.classes;
  FocalProblem& problem = arguments.problem;
  problem.logits = arguments.inputs.const_data_ptr();
  problem.dtype = dtype_of(inputs);
  problem.classes = arguments.classes;
  problem.labels = is_labels ? arguments.targets.const_data_ptr<int64_t>() : nullptr;
  problem.soft_targets = is_labels ? nullptr : arguments.targets.const_data_ptr();
  problem.soft_dtype = is_labels ? problem.dtype : dtype_of(targets);
  problem.ignore_index = ignore_index;
  problem.alpha_per_class = arguments.alpha_per_class ? arguments.alpha_per_class->const_data_ptr() : nullptr;
  problem.alpha = alpha;
  problem.gamma = gamma;
  problem.upstream_scalar = 1.0;
  return arguments;
}

inline void check_order(const char* op, int64_t order) {
  check(order == 1 || order == 2, op, ": order must be 1 or 2, got ", order);
}

// grad_output of a backward: a scalar tensor, or one of the shape and dtype of inputs.
inline void check_upstream(const char* op, const Tensor& grad_output, const Tensor& inputs) {
  check(same_device(inputs, grad_output), op, ": inputs and grad_output must be on one device");
  check(grad_output.dim() == 0 ? is_floating(grad_output.scalar_type())
                               : same_shape(grad_output, inputs) && grad_output.scalar_type() == inputs.scalar_type(),
        op, ": grad_output must be a scalar tensor or have the shape and dtype of inputs, ", shape_string(inputs), " ",
        dtype_name(inputs.scalar_type()), ", got ", shape_string(grad_output), " ",
        dtype_name(grad_output.scalar_type()));
}

inline void check_scale_gradient(const Tensor& grad, const Tensor& scale) {
  const char* op = "scale_gradient_";
  check(scale.numel() == 1, op, ": scale must have one element, got ", shape_string(scale));
  check(same_device(grad, scale), op, ": grad and scale must be on one device");
  check(grad.is_contiguous(), op, ": grad must be contiguous");
  check_floating(op, "grad", grad);
}

}  // namespace retina_ops
