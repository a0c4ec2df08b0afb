// Box coding for CUDA tensors: launches and registration.
#include <torch/csrc/stable/library.h>

#include "box_coding/box_coding_kernels.cuh"
#include "box_coding/box_coding_op.h"
#include "common/cuda_op.cuh"

namespace retina_ops {
namespace {

void run_on_cuda(const BoxCodingCall& call) {
  if (call.n == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(call.codes.get_device_index());
  launch_box_coding({call.problem, call.n, {}, current_stream(call.codes)});
  RETINA_OPS_LAUNCH_CHECK();
}

using Operators = BoxCodingOperators<run_on_cuda>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CUDA, m) {
  m.impl("encode_boxes", TORCH_BOX(&Operators::encode));
  m.impl("encode_boxes_backward", TORCH_BOX(&Operators::encode_backward));
  m.impl("decode_boxes", TORCH_BOX(&Operators::decode));
  m.impl("decode_boxes_backward", TORCH_BOX(&Operators::decode_backward));
}

}  // namespace retina_ops
