"""Detection operators for PyTorch in C++ and CUDA, and a RetinaNet that uses them. Importing it needs only torch.

``from ... import name as name`` makes a name public: for type checkers, for ``__all__`` and for the documentation.
"""

from retina_ops import _checkout as _checkout  # first: it decides where the other modules come from
from retina_ops._library import build_info as build_info
from retina_ops._version import __version__ as __version__
from retina_ops.ops.anchor_matching import match_anchors as match_anchors
from retina_ops.ops.ap_loss import ap_loss as ap_loss
from retina_ops.ops.box_coding import decode_boxes as decode_boxes
from retina_ops.ops.box_coding import encode_boxes as encode_boxes
from retina_ops.ops.box_iou import box_iou as box_iou
from retina_ops.ops.box_iou import complete_box_iou as complete_box_iou
from retina_ops.ops.box_iou import distance_box_iou as distance_box_iou
from retina_ops.ops.box_iou import generalized_box_iou as generalized_box_iou
from retina_ops.ops.focal_loss import sigmoid_focal_loss as sigmoid_focal_loss
from retina_ops.ops.iou_losses import complete_box_iou_loss as complete_box_iou_loss
from retina_ops.ops.iou_losses import distance_box_iou_loss as distance_box_iou_loss
from retina_ops.ops.iou_losses import generalized_box_iou_loss as generalized_box_iou_loss
from retina_ops.ops.nms import batched_nms as batched_nms
from retina_ops.ops.nms import nms as nms
from retina_ops.ops.nms import nms_padded as nms_padded
from retina_ops.ops.normalization import EmaNormalizer as EmaNormalizer
from retina_ops.ops.postprocess import postprocess as postprocess
from retina_ops.ops.retinanet_loss import retinanet_loss as retinanet_loss
from retina_ops.ops.soft_nms import soft_nms as soft_nms
from retina_ops.patching import patch_torchvision as patch_torchvision
from retina_ops.patching import patch_torchvision_ops as patch_torchvision_ops
from retina_ops.patching import unpatch_torchvision as unpatch_torchvision
from retina_ops.patching import unpatch_torchvision_ops as unpatch_torchvision_ops

__all__ = sorted(["__version__", *(name for name, value in globals().items() if callable(value) and name[0] != "_")])
