// Box coding for CPU tensors: threads and registration.
#include "box_coding/box_coding_op.h"

#include <torch/csrc/stable/library.h>

#include "common/isa.h"

namespace retina_ops {
namespace {

constexpr int64_t kBoxesPerThread = 4096;  // fewer are not worth a thread

void run_on_cpu(const BoxCodingCall& call) {
  cpu_isa();  // a bad RETINA_OPS_ISA is an error here, not inside a thread
  torch::stable::parallel_for(0, call.n, kBoxesPerThread,
                              [&](int64_t begin, int64_t end) { box_coding_range(call.problem, begin, end); });
}

using Operators = BoxCodingOperators<run_on_cpu>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) {
  m.impl("encode_boxes", TORCH_BOX(&Operators::encode));
  m.impl("encode_boxes_backward", TORCH_BOX(&Operators::encode_backward));
  m.impl("decode_boxes", TORCH_BOX(&Operators::decode));
  m.impl("decode_boxes_backward", TORCH_BOX(&Operators::decode_backward));
}

}  // namespace retina_ops
