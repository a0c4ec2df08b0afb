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

  // box_iou/: [..., N, 4] and [..., M, 4] to [..., N, M], float32 (float64 for float64); kind 0 generalized, 1
  // distance, 2 complete, 3 plain. A gradient that is not asked for is an empty tensor.
  m.def("box_iou(Tensor boxes1, Tensor boxes2, int kind, float eps) -> Tensor");
  m.def(
      "box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, float eps, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor)");

  // iou_losses/: boxes1 and boxes2 [..., 4] of one shape; kind 0 generalized, 1 distance, 2 complete. Losses [...],
  // float32 (float64 for float64).
  m.def("iou_loss(Tensor boxes1, Tensor boxes2, int kind, float eps) -> Tensor");
  // grad_output is one number a pair, or a scalar tensor; a gradient that is not asked for is an empty tensor.
  m.def(
      "iou_loss_backward(Tensor grad_output, Tensor boxes1, Tensor boxes2, int kind, float eps, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor)");
  // Sum or mean (0 for no boxes), and the gradients asked for in the same pass.
  m.def(
      "iou_loss_reduced(Tensor boxes1, Tensor boxes2, int kind, float eps, bool mean, bool for_boxes1, "
      "bool for_boxes2) -> (Tensor, Tensor, Tensor)");

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
  // int32 [B]; matches int64 [B, A], and how many of each image's are foreground, int64 [B].
  m.def(
      "match_anchors(Tensor anchors, Tensor gt_boxes, Tensor gt_counts, Tensor? regions, Tensor? region_counts, "
      "float fg_iou, float bg_iou, bool allow_low_quality, float ignore_iof) -> (Tensor, Tensor)");

  // nms/: boxes [N, 4], scores [N], idxs int64 [N] or none; kept indices by descending score.
  m.def("nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold) -> Tensor");
  // The same padded with -1 to [max_output], and how many were kept.
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, int max_output) -> (Tensor, Tensor)");

  // soft_nms/: the same inputs; by descending decayed score the taken indices, their decayed scores, and the decays
  // that made them of the input scores (float32, float64 where boxes or scores are).
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, bool gaussian, float sigma, "
      "float min_score) -> (Tensor, Tensor, Tensor)");

  // retinanet_loss/: levels [B, N, C] or planar [B, A, C, cells] (common/head_levels.h), C = K and 4; anchors [A, 4];
  // gt_boxes [B, M, 4] and gt_labels int64 [B, M] padded; matches int64 [B, A]; normalizer float64 [B]. Both losses,
  // and the gradients of all levels one after the other (empty tensors unless with_grad).
  m.def(
      "retinanet_loss(Tensor[] cls_logits, Tensor[] bbox_regression, Tensor anchors, Tensor gt_boxes, "
      "Tensor gt_labels, Tensor matches, Tensor normalizer, float alpha, float gamma, int box_loss, "
      "float smooth_l1_beta, float wx, float wy, float ww, float wh, bool with_grad) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "retinanet_loss_backward(Tensor grad_classification, Tensor grad_box, Tensor[] cls_logits, "
      "Tensor[] bbox_regression, Tensor anchors, Tensor gt_boxes, Tensor gt_labels, Tensor matches, "
      "Tensor normalizer, float alpha, float gamma, int box_loss, float smooth_l1_beta, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor)");

  // postprocess/: levels are [B, anchors, C] or [B, anchors of a cell, C, cells]; anchors [anchors, 4] and image_sizes
  // [B, 2] in float32 or float64. Boxes [B, D, 4], scores and labels [B, D], counts [B].
  m.def(
      "postprocess(Tensor[] cls_logits, Tensor[] bbox_regression, Tensor anchors, Tensor image_sizes, "
      "float score_threshold, int topk, float nms_threshold, int detections_per_image, float wx, float wy, float ww, "
      "float wh) -> (Tensor, Tensor, Tensor, Tensor)");
}
