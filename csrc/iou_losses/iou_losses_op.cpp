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
