"""The operators' launches on an emulated device, over tensors of the CPU: one module a room of csrc."""

from .anchor_matching import match_anchors
from .boxes import KINDS, box_coding, box_iou, box_iou_backward
from .common import DTYPES, arithmetic, padded_boxes
from .focal_loss import count_labels, focal_loss, focal_loss_reduced, scale_gradient
from .iou_losses import IOU_LOSSES, iou_loss, iou_loss_reduced
from .nms import nms
from .postprocess import postprocess
from .retinanet_loss import retinanet_loss
from .soft_nms import soft_nms

__all__ = [
    "DTYPES",
    "IOU_LOSSES",
    "KINDS",
    "arithmetic",
    "box_coding",
    "box_iou",
    "box_iou_backward",
    "count_labels",
    "focal_loss",
    "focal_loss_reduced",
    "iou_loss",
    "iou_loss_reduced",
    "match_anchors",
    "nms",
    "padded_boxes",
    "postprocess",
    "retinanet_loss",
    "scale_gradient",
    "soft_nms",
]
