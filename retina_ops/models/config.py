"""`ModelConfig`: everything needed to build a model again, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..settings import from_plain, to_plain
from . import builders
from .anchors import default_anchor_generator
from .head import group_norm
from .loss import LossOptions
from .retinanet import RetinaNet

ARCHITECTURES = {
    "retinanet_resnet18_fpn": builders.retinanet_resnet18_fpn,
    "retinanet_resnet34_fpn": builders.retinanet_resnet34_fpn,
    "retinanet_resnet50_fpn": builders.retinanet_resnet50_fpn,
    "retinanet_resnet50_fpn_v2": builders.retinanet_resnet50_fpn_v2,
    "retinanet_resnet101_fpn": builders.retinanet_resnet101_fpn,
    "retinanet_small_fpn": builders.retinanet_small_fpn,
}


@dataclass
class ModelConfig:
    """A RetinaNet in plain values, as `config.json` and TOML files hold it.

    Attributes:
        architecture: one of retinanet_resnet18_fpn, _resnet34_fpn, _resnet50_fpn, _resnet50_fpn_v2, _resnet101_fpn,
            retinanet_small_fpn.
        min_size: shorter side that images are scaled to, in pixels.
        max_size: longest side that this may give.
        norm: of the backbone: batch, frozen_batch or group; empty: the architecture's default.
        weights_backbone: torchvision's name of pretrained weights of the body, such as IMAGENET1K_V1; empty: none.
        trainable_backbone_layers: stages of the body that are trained, 0 to 5, from the last one back.
        fpn_channels: channels of every level.
        head_depth: convolutions of a subnet before its last.
        head_norm: GroupNorm in the subnets.
        base_sizes: side of the smallest anchor of each level P3 to P7, in pixels of the scaled image.
        aspect_ratios: height over width of the anchors.
        loss: see `LossOptions`.
        score_thresh: scores at most this are dropped.
        nms_thresh: IoU above which a detection suppresses another of its class.
        detections_per_img: at most so many an image.
        topk_candidates: at most so many a level before NMS.
    """

    architecture: str = "retinanet_resnet50_fpn"
    min_size: int = 800
    max_size: int = 1333
    norm: str = ""
    weights_backbone: str = ""
    trainable_backbone_layers: int = 5
    fpn_channels: int = 256
    head_depth: int = 4
    head_norm: bool = False
    base_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    loss: LossOptions = field(default_factory=LossOptions)
    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 300
    topk_candidates: int = 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; raises ValueError for a setting that is unknown or of another type."""
        return from_plain(cls, values)


def build_model(config: ModelConfig, categories: list[dict[str, Any]], *, pretrained: bool = True) -> RetinaNet:
    """The model that a configuration describes.

    Args:
        config: see `ModelConfig`.
        categories: ``{"id": int, "name": str}`` for each label.
        pretrained: load ``weights_backbone``; False where weights are loaded afterwards.

    Raises:
        ValueError: an unknown architecture, norm or loss.
    """
    if config.architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {config.architecture!r}")
    options: dict[str, Any] = {
        "num_classes": len(categories),
        "categories": categories,
        "min_size": config.min_size,
        "max_size": config.max_size,
        "loss": config.loss,
        "score_thresh": config.score_thresh,
        "nms_thresh": config.nms_thresh,
        "detections_per_img": config.detections_per_img,
        "topk_candidates": config.topk_candidates,
        "anchor_generator": default_anchor_generator(config.base_sizes, aspect_ratios=config.aspect_ratios),
        "trainable_backbone_layers": config.trainable_backbone_layers,
        "fpn_channels": config.fpn_channels,
        "head_depth": config.head_depth,
    }
    if config.norm:
        options["norm"] = config.norm
    if config.architecture == "retinanet_small_fpn":
        options["head_norm"] = group_norm if config.head_norm else None
    else:
        options["weights_backbone"] = config.weights_backbone if config.weights_backbone and pretrained else None
        if config.architecture != "retinanet_resnet50_fpn_v2":
            options["head_norm"] = group_norm if config.head_norm else None
    model = ARCHITECTURES[config.architecture](**options)
    model.config = config
    return model
