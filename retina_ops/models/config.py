"""`ModelConfig`: plain values from which `build_model` builds a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from ..settings import Range, from_plain, to_plain
from .anchors import DEFAULT_SCALES
from .architecture_table import ArchitectureName
from .loss_options import LossOptions


@dataclass
class ModelConfig:
    """A RetinaNet in plain values, as `config.json` and TOML files hold it.

    Attributes:
        architecture: name of the builder function in `retina_ops.models`.
        min_size: shorter side that images are scaled to, in pixels.
        max_size: longest side that this may give.
        norm: of the backbone: batch, frozen_batch or group; empty: the architecture's default.
        weights_backbone: torchvision's name of pretrained weights of the body, such as IMAGENET1K_V1; empty: none.
        trainable_backbone_layers: stages of the body that are trained, 0 to 5, from the last one back.
        fpn_channels: channels of every level.
        head_depth: convolutions of a subnet before the predicting one.
        head_norm: GroupNorm in the subnets.
        base_sizes: side of the smallest anchor of each level P3 to P7, in pixels of the scaled image.
        aspect_ratios: height over width of the anchors.
        anchor_scales: factors of the base sizes: a cell has an anchor for each scale and aspect ratio.
        prior: score of every anchor and class before training, Lin et al. 2017, section 4.1.
        loss: see `LossOptions`.
        score_thresh: detections with this score or a lower one are dropped.
        nms_thresh: IoU above which a detection suppresses another of its class.
        detections_per_img: largest number of detections per image.
        topk_candidates: largest number of candidates per level before NMS.
    """

    architecture: ArchitectureName = "retinanet_resnet50_fpn"
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
    anchor_scales: tuple[Annotated[float, Range(1e-3)], ...] = DEFAULT_SCALES
    prior: Annotated[float, Range(1e-9, 1 - 1e-9)] = 0.01
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
