// What the CPU and the CUDA entries of box_iou share: argument checks, the output, and the problem they describe.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "box_iou/box_iou_cpu.h"
#include "common/check.h"
#include "common/dispatch.h"

namespace retina_ops {

// The arguments of one call after the checks, contiguous, with the output allocated.
struct BoxIouCall {
  Tensor boxes1;
  Tensor boxes2;
  Tensor iou;
  BoxIouProblem problem;
  int64_t batch;
};

inline BoxIouCall check_box_iou(const Tensor& boxes1, const Tensor& boxes2) {
  const char* op = "box_iou";
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
  BoxIouCall call{torch::stable::contiguous(boxes1), torch::stable::contiguous(boxes2),
                  torch::stable::new_empty(boxes1, shape, accumulate_dtype(boxes1)), BoxIouProblem{}, batch};
  call.problem = BoxIouProblem{call.boxes1.const_data_ptr(), call.boxes2.const_data_ptr(), dtype_of(boxes1), n, m,
                               call.iou.mutable_data_ptr()};
  return call;
}

}  // namespace retina_ops
