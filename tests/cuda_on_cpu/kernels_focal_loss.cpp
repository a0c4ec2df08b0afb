// The kernels of focal_loss/, launched as by focal_loss_op.cu.
#include "case.h"
#include "focal_loss/focal_loss_launch.cuh"

using namespace retina_ops;

namespace {

size_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

}  // namespace

// The first logit is element `first`: the arrays' pointers are moved back by as much.
void run_focal_loss(const Case& c) {
  const Dtype dtype = c.dtype("dtype"), soft_dtype = c.dtype("soft_dtype");
  const int64_t first = c.integer("first"), classes = c.integer("classes");
  const int64_t shift = first * static_cast<int64_t>(bytes_of(dtype));
  FocalProblem problem{};
  problem.logits = c.array("logits", shift);
  problem.dtype = dtype;
  problem.classes = classes;
  problem.labels = c.array<int64_t>("labels", first / classes * 8);
  problem.soft_targets = c.array("soft_targets", first * static_cast<int64_t>(bytes_of(soft_dtype)));
  problem.soft_dtype = soft_dtype;
  problem.ignore_index = c.integer("ignore_index");
  problem.alpha_per_class = c.array("alpha_per_class");
  problem.alpha = c.number("alpha");
  problem.gamma = c.number("gamma");
  problem.order = static_cast<int>(c.integer("order"));
  problem.loss_out = c.array("value", shift);
  problem.grad_out = c.array("derivative", shift);
  problem.upstream = c.array("upstream", shift);
  FocalDevice device{};
  device.upstream_scalar = c.array<double>("upstream_scalar");
  device.counted = c.array<int64_t>("counted");
  device.partial = c.array<double>("partial");
  device.done = c.array<unsigned>("done");
  device.result = c.array("result");
  device.first = first;
  device.most_blocks = c.integer("most_blocks");
  device.n = first + c.integer("n");
  const bool reduced = c.flag("reduced");
  if (problem.labels != nullptr) {
    launch_focal_loss_labels(problem, device, reduced);
  } else {
    launch_focal_loss_soft(problem, device, reduced);
  }
}

void run_focal_loss_count(const Case& c) {
  const int64_t first = c.integer("first");
  launch_focal_count(c.array<int64_t>("labels", first * 8), first, first + c.integer("rows"), c.integer("classes"),
                     c.integer("ignore_index"), c.array<int64_t>("counts"), nullptr);
}

void run_scale_gradient(const Case& c) {
  const Dtype dtype = c.dtype("dtype");
  const int64_t first = c.integer("first");
  launch_scale_gradient(c.array("grad", first * static_cast<int64_t>(bytes_of(dtype))), dtype, c.array<double>("scale"),
                        first, first + c.integer("n"), nullptr, c.integer("most_blocks"));
}
