// The kernels of iou_losses/, launched as by their operator.
#include "case.h"
#include "iou_losses/iou_losses_launch.cuh"

using namespace retina_ops;

// The first pair is pair `first`: the arrays' pointers are moved back by as much.
void run_iou_loss(const Case& c) {
  const int64_t first = c.integer("first");
  const Dtype dtype1 = c.dtype("dtype1"), dtype2 = c.dtype("dtype2");
  const int64_t value = dtype1 == Dtype::kFloat64 ? 8 : 4;
  IouLossProblem problem{};
  problem.kind = static_cast<IouLoss>(c.integer("kind"));
  problem.eps = c.number("eps");
  problem.boxes1 = c.array("boxes1", first * bytes_of_box(dtype1));
  problem.dtype1 = dtype1;
  problem.boxes2 = c.array("boxes2", first * bytes_of_box(dtype2));
  problem.dtype2 = dtype2;
  problem.loss = c.array("loss", first * value);
  problem.grad1 = c.array("grad1", first * bytes_of_box(dtype1));
  problem.grad2 = c.array("grad2", first * bytes_of_box(dtype2));
  problem.upstream = c.array("upstream", first * value);
  problem.upstream_scalar = c.array<double>("upstream_scalar");
  IouLossDevice device{};
  device.scale = c.number("scale");
  device.partial = c.array<double>("partial");
  device.done = c.array<unsigned>("done");
  device.result = c.array("result");
  device.first = first;
  device.n = first + c.integer("n");
  launch_iou_loss(problem, device);
}
