// The kernels of box_iou/, launched as by their operator.
#include "box_iou/box_iou_launch.cuh"

#include "case.h"

using namespace retina_ops;

// The first image is image `first`: the arrays' pointers are moved back by as much.
void run_box_iou(const Case& c) {
  const int64_t first = c.integer("first"), n = c.integer("n"), m = c.integer("m");
  const Dtype dtype = c.dtype("dtype");
  const int64_t box = bytes_of_box(dtype);
  const int64_t value = dtype == Dtype::kFloat64 ? 8 : 4;
  const BoxIouProblem problem{c.array("boxes1", first * n * box),   c.array("boxes2", first * m * box), dtype, n, m,
                              c.array("iou", first * n * m * value)};
  launch_box_iou(problem, first, first + c.integer("batch"), nullptr);
}
