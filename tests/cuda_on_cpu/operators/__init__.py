"""The operators' launches on an emulated device, over tensors of the CPU: one module a room of csrc."""

from .anchor_matching import match_anchors
from .boxes import box_coding, box_iou
from .common import DTYPES, arithmetic, padded_boxes
from .focal_loss import count_labels, focal_loss, focal_loss_reduced, scale_gradient
from .nms import nms
from .postprocess import postprocess

__all__ = [
    "DTYPES",
    "arithmetic",
    "box_coding",
    "box_iou",
    "count_labels",
    "focal_loss",
    "focal_loss_reduced",
    "match_anchors",
    "nms",
    "padded_boxes",
    "postprocess",
    "scale_gradient",
]
