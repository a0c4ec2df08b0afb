// The IoU losses for CPU tensors: threads and registration.
#include "iou_losses/iou_losses_op.h"

#include <torch/csrc/stable/library.h>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

struct Cpu {
  static void elementwise(const IouLossCall& call) {
    parallel_for(call.n, kIouLossChunk, [&](int64_t begin, int64_t end) { iou_loss_range(call.problem, begin, end); });
  }

  static void reduced(IouLossCall& call, double scale, Tensor& loss) {
    call.problem.upstream_scalar = &scale;
    const double sum = sum_of_chunks(parallel_for, call.n, kIouLossChunk, [&](int64_t begin, int64_t end) {
      return iou_loss_range(call.problem, begin, end);
    });
    set_scalar(loss, sum * scale);
  }
};

using Operators = IouLossOperators<Cpu>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("iou_loss", TORCH_BOX(&Operators::loss));
  m.impl("iou_loss_backward", TORCH_BOX(&Operators::backward));
  m.impl("iou_loss_reduced", TORCH_BOX(&Operators::reduced));
}

}  // namespace retina_ops

// boxes1 and boxes2 [..., 4] of the same shape; kind: 0 generalized, 1 distance, 2 complete IoU.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The loss of each pair of boxes: [...] in float32; in float64 for float64 boxes.
  m.def("iou_loss(Tensor boxes1, Tensor boxes2, int kind, float eps) -> Tensor");
  // grad_output has the shape of the losses or is a scalar tensor. A gradient that is not asked for is an empty tensor.
  m.def(
      "iou_loss_backward(Tensor grad_output, Tensor boxes1, Tensor boxes2, int kind, float eps, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor)");
  // Sum or mean of the losses (0 where there are no boxes), and in the same pass the gradients that are asked for.
  m.def(
      "iou_loss_reduced(Tensor boxes1, Tensor boxes2, int kind, float eps, bool mean, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor, Tensor)");
}
