"""Every operator in plain PyTorch: the specification, and the baseline of tests and benchmarks.

`make format` generates this file: it exports what the modules of the folder list in ``__all__``.
"""

from retina_ops.reference.anchor_matching import match_anchors
from retina_ops.reference.ap_loss import ap_loss
from retina_ops.reference.box_coding import decode_boxes, encode_boxes
from retina_ops.reference.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from retina_ops.reference.focal_loss import sigmoid_focal_loss
from retina_ops.reference.iou_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from retina_ops.reference.nms import batched_nms, nms
from retina_ops.reference.postprocess import postprocess
from retina_ops.reference.retinanet_loss import retinanet_loss
from retina_ops.reference.soft_nms import soft_nms

__all__ = [
    "ap_loss",
    "batched_nms",
    "box_iou",
    "complete_box_iou",
    "complete_box_iou_loss",
    "decode_boxes",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "match_anchors",
    "nms",
    "postprocess",
    "retinanet_loss",
    "sigmoid_focal_loss",
    "soft_nms",
]
