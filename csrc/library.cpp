// Table of contents: the schema of every operator. Each room registers its own kernels (CPU here, CUDA in _cuda).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(retina_ops, m) {
  // focal_loss/: targets are int64 class indices of shape inputs.shape[:-1], or soft targets of shape inputs.shape.
  m.def(
      "sigmoid_focal_loss(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index) -> Tensor");
  // grad_output times the derivative of order 1 or 2; grad_output has inputs.shape or is a scalar tensor.
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad_output, Tensor inputs, Tensor targets, Tensor? alpha_per_class, "
      "float alpha, float gamma, int ignore_index, int order) -> Tensor");
  // Sum or mean, and its gradient in the same pass (an empty tensor unless with_grad).
  m.def(
      "sigmoid_focal_loss_reduced(Tensor inputs, Tensor targets, Tensor? alpha_per_class, float alpha, float gamma, "
      "int ignore_index, bool mean, bool with_grad) -> (Tensor, Tensor)");
  // grad *= scale, a scalar tensor; nothing is read or written where scale is 1.
  m.def("scale_gradient_(Tensor(a!) grad, Tensor scale) -> ()");

  // box_iou/: [..., N, 4] and [..., M, 4] to [..., N, M], float32 (float64 for float64).
  m.def("box_iou(Tensor boxes1, Tensor boxes2) -> Tensor");

  // box_coding/: boxes are [..., 4]; those of the second argument may lack leading dimensions of the first's.
  m.def("encode_boxes(Tensor reference_boxes, Tensor proposals, float wx, float wy, float ww, float wh) -> Tensor");
  m.def(
      "encode_boxes_backward(Tensor grad, Tensor reference_boxes, Tensor proposals, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor)");
  // Clipped to the image where image_height >= 0.
  m.def(
      "decode_boxes(Tensor rel_codes, Tensor boxes, float wx, float wy, float ww, float wh, float image_height, "
      "float image_width) -> Tensor");
  m.def(
      "decode_boxes_backward(Tensor grad, Tensor rel_codes, Tensor boxes, float wx, float wy, float ww, float wh, "
      "float image_height, float image_width) -> (Tensor, Tensor)");

  // anchor_matching/: anchors [A, 4] or [B, A, 4], gt_boxes [B, M, 4] and regions [B, R, 4] padded, their counts
  // int32 [B]; matches int64 [B, A].
  m.def(
      "match_anchors(Tensor anchors, Tensor gt_boxes, Tensor gt_counts, Tensor? regions, Tensor? region_counts, "
      "float fg_iou, float bg_iou, bool allow_low_quality, float ignore_iof) -> Tensor");

  // nms/: boxes [N, 4], scores [N], idxs int64 [N] or none; kept indices by descending score.
  m.def("nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold) -> Tensor");
  // The same padded with -1 to [max_output], and how many were kept.
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, int max_output) -> (Tensor, Tensor)");

  // postprocess/: levels are [B, anchors, C] or [B, anchors of a cell, C, cells]; anchors [anchors, 4] and image_sizes
  // [B, 2] in float32 or float64. Boxes [B, D, 4], scores and labels [B, D], counts [B].
  m.def(
      "postprocess(Tensor[] cls_logits, Tensor[] bbox_regression, Tensor anchors, Tensor image_sizes, "
      "float score_threshold, int topk, float nms_threshold, int detections_per_image, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor, Tensor, Tensor)");
}
