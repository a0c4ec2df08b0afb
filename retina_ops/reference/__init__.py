"""Every operator in plain PyTorch: the specification, and the baseline of tests and benchmarks."""

from retina_ops.reference.anchor_matching import match_anchors
from retina_ops.reference.boxes import box_iou, decode_boxes, encode_boxes
from retina_ops.reference.focal_loss import sigmoid_focal_loss
from retina_ops.reference.nms import batched_nms, nms
from retina_ops.reference.postprocess import postprocess
from retina_ops.reference.soft_nms import soft_nms

__all__ = [
    "batched_nms",
    "box_iou",
    "decode_boxes",
    "encode_boxes",
    "match_anchors",
    "nms",
    "postprocess",
    "sigmoid_focal_loss",
    "soft_nms",
]
