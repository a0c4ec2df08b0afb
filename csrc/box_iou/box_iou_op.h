// What the CPU and the CUDA operators of box_iou share: argument checks, outputs and the problems for the kernels.
#pragma once

#include <tuple>
#include <vector>

#include "box_iou/box_iou.h"
#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The arguments of a call, checked and contiguous.
struct BoxIouCall {
  Tensor boxes1;
  Tensor boxes2;
  std::vector<int64_t> shape;  // [..., n, m]
  int64_t batch;
  BoxIouProblem problem;
};

// The call, without outputs.
inline BoxIouCall check_box_iou(const char* op, const Tensor& boxes1, const Tensor& boxes2, int64_t kind, double eps) {
  check_floating(op, "boxes1", boxes1);
  check(boxes1.scalar_type() == boxes2.scalar_type(), op, ": boxes1 and boxes2 must have one dtype, got ",
        dtype_name(boxes1.scalar_type()), " and ", dtype_name(boxes2.scalar_type()));
  check(same_device(boxes1, boxes2), op, ": boxes1 and boxes2 must be on one device");
  const int64_t dims = boxes1.dim();
  bool fits = dims >= 2 && boxes2.dim() == dims && boxes1.size(dims - 1) == 4 && boxes2.size(dims - 1) == 4;
  std::vector<int64_t> shape;
  int64_t batch = 1;
  for (int64_t dim = 0; fits && dim < dims - 2; ++dim) {
    fits = boxes1.size(dim) == boxes2.size(dim);
    shape.push_back(boxes1.size(dim));
    batch *= boxes1.size(dim);
  }
  check(fits, op, ": boxes1 must be [..., N, 4] and boxes2 [..., M, 4], got ", shape_string(boxes1), " and ",
        shape_string(boxes2));
  const int64_t n = boxes1.size(dims - 2);
  const int64_t m = boxes2.size(dims - 2);
  shape.push_back(n);
  shape.push_back(m);
  check(kind >= 0 && kind <= 3, op, ": kind must be 0 (generalized), 1 (distance), 2 (complete) or 3 (plain), got ",
        kind);
  BoxIouCall call{torch::stable::contiguous(boxes1), torch::stable::contiguous(boxes2), shape, batch, BoxIouProblem{}};
  call.problem = BoxIouProblem{call.boxes1.const_data_ptr(),
                               call.boxes2.const_data_ptr(),
                               dtype_of(boxes1),
                               n,
                               m,
                               nullptr,
                               static_cast<IouKind>(kind),
                               eps};
  return call;
}

// The operators of one backend. Backend::forward(call) computes the output; Backend::backward(call, problem, grad1,
// grad2) computes the gradients, with the workspace of `problem`. A gradient that is not wanted is null.
template <class Backend>
struct BoxIouOperators {
  static Tensor forward(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, double eps) {
    BoxIouCall call = check_box_iou("box_iou", boxes1, boxes2, kind, eps);
    Tensor iou = torch::stable::new_empty(boxes1, call.shape, accumulate_dtype(boxes1));
    call.problem.iou = iou.mutable_data_ptr();
    if (iou.numel() > 0) Backend::forward(call);
    return iou;
  }

  static std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                             int64_t kind, double eps, bool for_boxes1, bool for_boxes2) {
    const char* op = "box_iou_backward";
    const BoxIouCall call = check_box_iou(op, boxes1, boxes2, kind, eps);
    const ScalarType dtype = accumulate_dtype(boxes1);
    check(has_shape(grad, call.shape) && grad.scalar_type() == dtype && same_device(grad, boxes1), op,
          ": grad must be ", dtype_name(dtype), " [..., N, M] on the boxes' device, got ", shape_string(grad), " ",
          dtype_name(grad.scalar_type()), " for boxes ", shape_string(boxes1), " and ", shape_string(boxes2));
    const Tensor upstream = torch::stable::contiguous(grad);
    BoxIouGradProblem problem{call.problem, upstream.const_data_ptr(), call.batch, nullptr, nullptr};
    Tensor grad1 = new_gradient(call.boxes1, for_boxes1), grad2 = new_gradient(call.boxes2, for_boxes2);
    Tensor row_sums = new_sums(call.boxes1, for_boxes1, Backend::kGradColumns, call.problem.m);
    Tensor column_sums = new_sums(call.boxes2, for_boxes2, Backend::kGradRows, call.problem.n);
    if (for_boxes1) problem.row_sums = row_sums.mutable_data_ptr<double>();
    if (for_boxes2) problem.column_sums = column_sums.mutable_data_ptr<double>();
    Backend::backward(call, problem, for_boxes1 ? grad1.mutable_data_ptr() : nullptr,
                      for_boxes2 ? grad2.mutable_data_ptr() : nullptr);
    return {grad1, grad2};
  }

 private:
  // Workspace [tiles, boxes, 4]: for each box, sums over the `other_boxes`, which are cut into tiles of `tile` boxes.
  static Tensor new_sums(const Tensor& boxes, bool is_wanted, int64_t tile, int64_t other_boxes) {
    const int64_t tiles = is_wanted ? (other_boxes + tile - 1) / tile : 0;
    return torch::stable::new_empty(boxes, {tiles * boxes.numel()}, ScalarType::Double);
  }
};

}  // namespace retina_ops
