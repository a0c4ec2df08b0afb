// Post-processing for CPU tensors: threads and registration.
#include "postprocess/postprocess_op.h"

#include <torch/csrc/stable/library.h>

#include "common/cpu_op.h"

namespace retina_ops {
namespace {

void run_on_cpu(const PostprocessCall& call) { postprocess_images(call.problem, parallel_for); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(retina_ops, CPU, m) { m.impl("postprocess", TORCH_BOX(&postprocess<run_on_cpu>)); }

}  // namespace retina_ops

// cls_logits and bbox_regression hold one tensor per level, [B, anchors, C] or [B, anchors of a cell, C, cells].
// anchors [anchors, 4] and image_sizes [B, 2] are float32 or float64.
STABLE_TORCH_LIBRARY_FRAGMENT(retina_ops, m) {
  // Boxes [B, D, 4], scores [B, D], labels [B, D], the number of detections of each image [B], and the index of each
  // detection's anchor [B, D].
  m.def(
      "postprocess(Tensor[] cls_logits, Tensor[] bbox_regression, Tensor anchors, Tensor image_sizes, "
      "float score_thresh, int topk_candidates, float nms_thresh, int detections_per_img, float wx, float wy, "
      "float ww, float wh) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
