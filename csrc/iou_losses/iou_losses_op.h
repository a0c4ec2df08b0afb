// What the CPU and the CUDA operators of the IoU losses share: argument checks and the problem for the kernels.
#pragma once

#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "iou_losses/iou_losses.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous.
struct IouLossCall {
  Tensor boxes1;
  Tensor boxes2;
  std::vector<int64_t> shape;  // of the losses
  int64_t n;
  IouLossProblem problem;  // without outputs and upstream
};

inline IouLossCall check_iou_loss(const char* op, const Tensor& boxes1, const Tensor& boxes2, int64_t kind,
                                  double eps) {
  check_floating(op, "boxes1", boxes1);
  check_floating(op, "boxes2", boxes2);
  check((boxes1.scalar_type() == ScalarType::Double) == (boxes2.scalar_type() == ScalarType::Double), op,
        ": both or none of boxes1 and boxes2 must be float64, got ", dtype_name(boxes1.scalar_type()), " and ",
        dtype_name(boxes2.scalar_type()));
  check(same_device(boxes1, boxes2), op, ": boxes1 and boxes2 must be on one device");
  const int64_t dims = boxes1.dim();
  check(dims >= 1 && boxes1.size(dims - 1) == 4 && same_shape(boxes1, boxes2), op,
        ": boxes1 and boxes2 must be [..., 4] and of one shape, got ", shape_string(boxes1), " and ",
        shape_string(boxes2));
  check(kind >= 0 && kind <= 2, op, ": kind must be 0 (generalized), 1 (distance) or 2 (complete), got ", kind);
  IouLossCall call{torch::stable::contiguous(boxes1), torch::stable::contiguous(boxes2), leading_shape(boxes1),
                   boxes1.numel() / 4, IouLossProblem{}};
  IouLossProblem& problem = call.problem;
  problem.kind = static_cast<IouLoss>(kind);
  problem.eps = eps;
  problem.boxes1 = call.boxes1.const_data_ptr();
  problem.dtype1 = dtype_of(boxes1);
  problem.boxes2 = call.boxes2.const_data_ptr();
  problem.dtype2 = dtype_of(boxes2);
  return call;
}

// The operators of one backend. Backend::elementwise(call) computes all pairs of a call; Backend::reduced(call, scale,
// loss) does too, and sets the scalar tensor `loss` to `scale` times the sum of the losses.
template <class Backend>
struct IouLossOperators {
  static Tensor loss(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, double eps) {
    IouLossCall call = check_iou_loss("iou_loss", boxes1, boxes2, kind, eps);
    Tensor loss = torch::stable::new_empty(boxes1, call.shape, accumulate_dtype(boxes1));
    call.problem.loss = loss.mutable_data_ptr();
    Backend::elementwise(call);
    return loss;
  }

  static std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& boxes1, const Tensor& boxes2,
                                             int64_t kind, double eps, bool for_boxes1, bool for_boxes2) {
    const char* op = "iou_loss_backward";
    IouLossCall call = check_iou_loss(op, boxes1, boxes2, kind, eps);
    check(same_device(grad_output, boxes1), op, ": grad_output and boxes1 must be on one device");
    const ScalarType dtype = accumulate_dtype(boxes1);
    const bool is_scalar = grad_output.dim() == 0 && is_floating(grad_output.scalar_type());
    check(is_scalar || (has_shape(grad_output, call.shape) && grad_output.scalar_type() == dtype), op,
          ": grad_output must be a scalar tensor or one ", dtype_name(dtype), " per pair of boxes ",
          shape_string(boxes1), ", got ", shape_string(grad_output), " ", dtype_name(grad_output.scalar_type()));
    const Tensor upstream =
        is_scalar ? torch::stable::to(grad_output, ScalarType::Double) : torch::stable::contiguous(grad_output);
    if (is_scalar) {
      call.problem.upstream_scalar = upstream.const_data_ptr<double>();
    } else {
      call.problem.upstream = upstream.const_data_ptr();
    }
    const Gradients grads = new_gradients(call, for_boxes1, for_boxes2);
    if (for_boxes1 || for_boxes2) Backend::elementwise(call);
    return grads;
  }

  static std::tuple<Tensor, Tensor, Tensor> reduced(const Tensor& boxes1, const Tensor& boxes2, int64_t kind,
                                                    double eps, bool mean, bool for_boxes1, bool for_boxes2) {
    IouLossCall call = check_iou_loss("iou_loss_reduced", boxes1, boxes2, kind, eps);
    Tensor loss = torch::stable::new_empty(boxes1, std::vector<int64_t>{}, accumulate_dtype(boxes1));
    const auto [grad1, grad2] = new_gradients(call, for_boxes1, for_boxes2);
    // The mean of no losses is 0, as in torchvision.
    Backend::reduced(call, mean && call.n > 0 ? 1.0 / static_cast<double>(call.n) : 1.0, loss);
    return {loss, grad1, grad2};
  }

 private:
  using Gradients = std::tuple<Tensor, Tensor>;

  static Gradients new_gradients(IouLossCall& call, bool for_boxes1, bool for_boxes2) {
    Tensor grad1 = new_gradient(call.boxes1, for_boxes1);
    Tensor grad2 = new_gradient(call.boxes2, for_boxes2);
    if (for_boxes1) call.problem.grad1 = grad1.mutable_data_ptr();
    if (for_boxes2) call.problem.grad2 = grad2.mutable_data_ptr();
    return {grad1, grad2};
  }
};

}  // namespace retina_ops
