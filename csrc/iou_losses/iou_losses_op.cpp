// The IoU losses for CPU tensors: threads and registration.
#include "iou_losses/iou_losses_op.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/isa.h"

namespace retina_ops {
namespace {

struct Cpu {
  static void elementwise(const IouLossCall& call) {
    cpu_isa();  // a bad RETINA_OPS_ISA is an error here, not inside a thread
    torch::stable::parallel_for(0, call.n, kIouLossChunk,
                                [&](int64_t begin, int64_t end) { iou_loss_range(call.problem, begin, end); });
  }

  // The chunks' sums are added in order, so that the number of threads changes nothing.
  static void reduced(IouLossCall& call, double scale, Tensor& loss) {
    cpu_isa();
    call.problem.upstream_scalar = &scale;
    const int64_t chunks = (call.n + kIouLossChunk - 1) / kIouLossChunk;
    std::vector<double> sums(static_cast<size_t>(chunks));
    torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        sums[static_cast<size_t>(chunk)] =
            iou_loss_range(call.problem, chunk * kIouLossChunk, std::min((chunk + 1) * kIouLossChunk, call.n));
      }
    });
    double total = 0.0;
    for (const double sum : sums) total += sum;
    if (call.problem.dtype1 == Dtype::kFloat64) {
      *loss.mutable_data_ptr<double>() = total * scale;
    } else {
      *loss.mutable_data_ptr<float>() = static_cast<float>(total * scale);
    }
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
