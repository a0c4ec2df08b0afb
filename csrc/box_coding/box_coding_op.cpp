// Box coding for CPU tensors: threads and registration.
#include "box_coding/box_coding_op.h"

#include <torch/csrc/stable/library.h>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

void run_on_cpu(const BoxCodingCall& call) {
  parallel_for(call.n, kBoxesPerThread,
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
