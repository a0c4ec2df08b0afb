// What the CPU and the CUDA operator of the AP loss share: argument checks and the problem for the kernels.
#pragma once

#include "ap_loss/ap_loss.h"
#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous.
struct ApLossArguments {
  Tensor logits;
  Tensor targets;
  ApLossProblem problem;  // without grad
};

inline ApLossArguments check_ap_loss(const char* op, const Tensor& logits, const Tensor& targets, double delta,
                                     int64_t ignore_index) {
  check_floating(op, "logits", logits);
  check(same_device(logits, targets), op, ": logits and targets must be on one device");
  check(delta >= 1e-280 && delta <= 1e280, op, ": delta must be in [1e-280, 1e280], got ", delta);
  const bool is_labels = targets.scalar_type() == ScalarType::Long;
  if (is_labels) {
    check(logits.dim() >= 1 && has_shape(targets, leading_shape(logits)), op,
          ": class-index targets must have the shape of logits without its last dimension, got logits ",
          shape_string(logits), " and targets ", shape_string(targets));
  } else {
    const ScalarType dtype = targets.scalar_type();
    check(dtype == logits.scalar_type() || (dtype == ScalarType::Float && logits.scalar_type() != ScalarType::Double),
          op,
          ": targets must be int64 class indices or have the dtype of logits (or float32 for half logits), got logits ",
          dtype_name(logits.scalar_type()), " and targets ", dtype_name(dtype));
    check(same_shape(logits, targets), op, ": floating targets must have the shape of logits, got logits ",
          shape_string(logits), " and targets ", shape_string(targets));
  }
  ApLossArguments arguments{torch::stable::contiguous(logits), torch::stable::contiguous(targets), ApLossProblem{}};
  const int64_t last = logits.dim() == 0 ? 1 : logits.size(logits.dim() - 1);
  ApLossProblem& problem = arguments.problem;
  problem.logits = arguments.logits.const_data_ptr();
  problem.dtype = dtype_of(logits);
  problem.classes = last > 0 ? last : 1;
  problem.rows = logits.numel() / problem.classes;
  problem.labels = is_labels ? arguments.targets.const_data_ptr<int64_t>() : nullptr;
  problem.dense = is_labels ? nullptr : arguments.targets.const_data_ptr();
  problem.dense_dtype = is_labels ? problem.dtype : dtype_of(targets);
  problem.ignore_index = ignore_index;
  problem.delta = delta;
  problem.upstream = 1.0;
  return arguments;
}

inline void check_ap_loss_upstream(const char* op, const Tensor& grad_output, const Tensor& logits) {
  check(same_device(logits, grad_output), op, ": logits and grad_output must be on one device");
  check(grad_output.dim() == 0 && is_floating(grad_output.scalar_type()), op,
        ": grad_output must be a floating scalar tensor, got ", shape_string(grad_output), " ",
        dtype_name(grad_output.scalar_type()));
}

}  // namespace retina_ops
