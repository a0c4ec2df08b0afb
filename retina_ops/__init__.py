"""Detection operators for PyTorch in C++ and CUDA, and a RetinaNet that uses them. Importing it needs torch alone."""

from retina_ops._library import build_info
from retina_ops._version import __version__
from retina_ops.ops.anchor_matching import match_anchors
from retina_ops.ops.box_coding import decode_boxes, encode_boxes
from retina_ops.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from retina_ops.ops.focal_loss import sigmoid_focal_loss
from retina_ops.ops.iou_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from retina_ops.ops.nms import batched_nms, nms, nms_padded
from retina_ops.ops.normalization import EmaNormalizer
from retina_ops.ops.postprocess import postprocess
from retina_ops.ops.retinanet_loss import retinanet_loss
from retina_ops.ops.soft_nms import soft_nms
from retina_ops.patching import patch_torchvision, unpatch_torchvision

__all__ = [
    "EmaNormalizer",
    "__version__",
    "batched_nms",
    "box_iou",
    "build_info",
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
    "nms_padded",
    "patch_torchvision",
    "postprocess",
    "retinanet_loss",
    "sigmoid_focal_loss",
    "soft_nms",
    "unpatch_torchvision",
]
