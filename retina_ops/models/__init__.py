"""The reference RetinaNet: torchvision's interface, weights and results, on the operators of this package."""

from __future__ import annotations

from ..inference import predict_files
from .anchors import AnchorCache, default_anchor_generator
from .architectures import (
    build_model,
    retinanet_resnet18_fpn,
    retinanet_resnet34_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
    retinanet_resnet101_fpn,
    retinanet_small_fpn,
)
from .config import ModelConfig
from .head import RetinaNetHead
from .loss import retinanet_losses
from .loss_options import LossOptions
from .postprocess import PostprocessOptions, detections_of
from .retinanet import RetinaNet
from .weights import TransferReport, load_model, save_model, transfer_weights

__all__ = [
    "AnchorCache",
    "LossOptions",
    "ModelConfig",
    "PostprocessOptions",
    "RetinaNet",
    "RetinaNetHead",
    "TransferReport",
    "build_model",
    "default_anchor_generator",
    "detections_of",
    "load_model",
    "predict_files",
    "retinanet_losses",
    "retinanet_resnet18_fpn",
    "retinanet_resnet34_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "retinanet_resnet101_fpn",
    "retinanet_small_fpn",
    "save_model",
    "transfer_weights",
]
