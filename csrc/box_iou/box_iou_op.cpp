// box_iou for CPU tensors: threads and registration.
#include "box_iou/box_iou_op.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int64_t kPairsPerThread = 32768;  // fewer are not worth a thread

Tensor box_iou_cpu(const Tensor& boxes1, const Tensor& boxes2) {
  const BoxIouCall call = check_box_iou(boxes1, boxes2);
  cpu_isa();  // a bad RETINA_OPS_ISA is an error here, not inside a thread
  if (call.problem.m == 0) return call.iou;
  const int64_t rows_per_thread = std::max<int64_t>(1, kPairsPerThread / call.problem.m);
  torch::stable::parallel_for(0, call.batch * call.problem.n, rows_per_thread,
                              [&](int64_t begin, int64_t end) { box_iou_range(call.problem, begin, end); });
  return call.iou;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("box_iou", TORCH_BOX(&box_iou_cpu)); }

}  // namespace retina_ops
