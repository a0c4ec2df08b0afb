// The kernels of box_iou/, launched as by their operator.
#include "box_iou/box_iou_launch.cuh"

#include "case.h"

using namespace retina_ops;

namespace {

// The first image is image `first`: the arrays' pointers are moved back by as much.
BoxIouProblem problem_of(const Case& c) {
  const int64_t first = c.integer("first"), n = c.integer("n"), m = c.integer("m");
  const Dtype dtype = c.dtype("dtype");
  const int64_t box = bytes_of_box(dtype);
  const int64_t value = dtype == Dtype::kFloat64 ? 8 : 4;
  return {c.array("boxes1", first * n * box),    c.array("boxes2", first * m * box),      dtype,          n, m,
          c.array("iou", first * n * m * value), static_cast<IouKind>(c.integer("kind")), c.number("eps")};
}

}  // namespace

void run_box_iou(const Case& c) {
  const int64_t first = c.integer("first");
  launch_box_iou(problem_of(c), first, first + c.integer("batch"), nullptr);
}

// Sums are moved back too, which is right where there is one tile of rows and one of columns.
void run_box_iou_grad(const Case& c) {
  const BoxIouProblem forward = problem_of(c);
  const int64_t first = c.integer("first"), rows = first * forward.n, columns = first * forward.m;
  const int64_t value = forward.dtype == Dtype::kFloat64 ? 8 : 4, box = bytes_of_box(forward.dtype);
  const BoxIouGradProblem problem{forward, c.array("grad", rows * forward.m * value), first + c.integer("batch"),
                                  c.array<double>("row_sums", rows * 32), c.array<double>("column_sums", columns * 32)};
  launch_box_iou_grad(problem, first, c.array("grad1", rows * box), c.array("grad2", columns * box), nullptr);
}
