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

// Boxes are [..., 4]. The second tensor of boxes may lack leading dimensions of the first.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // The deltas from proposals to reference_boxes, times the weights.
  m.def("encode_boxes(Tensor reference_boxes, Tensor proposals, float wx, float wy, float ww, float wh) -> Tensor");
  // Gradients of reference_boxes and proposals.
  m.def(
      "encode_boxes_backward(Tensor grad, Tensor reference_boxes, Tensor proposals, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor)");
  // The boxes that the deltas rel_codes make of boxes, clipped to the image where image_height >= 0.
  m.def(
      "decode_boxes(Tensor rel_codes, Tensor boxes, float wx, float wy, float ww, float wh, float image_height, "
      "float image_width) -> Tensor");
  // Gradients of rel_codes and boxes.
  m.def(
      "decode_boxes_backward(Tensor grad, Tensor rel_codes, Tensor boxes, float wx, float wy, float ww, float wh, "
      "float image_height, float image_width) -> (Tensor, Tensor)");
}
