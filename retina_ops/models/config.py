"""`ModelConfig`: plain values from which `build_model` builds a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from ..settings import Range, check_settings, from_plain, to_plain
from .anchors import DEFAULT_SCALES
from .architecture_table import ARCHITECTURES, ArchitectureName, backbone_weights
from .head import group_norm
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
    min_size: Annotated[int, Range(1, 16384)] = 800
    max_size: Annotated[int, Range(1, 16384)] = 1333
    norm: str = ""
    weights_backbone: str = ""
    trainable_backbone_layers: Annotated[int, Range(0, 5)] = 5
    fpn_channels: Annotated[int, Range(1, 8192)] = 256
    head_depth: Annotated[int, Range(0, 64)] = 4
    head_norm: bool = False
    base_sizes: tuple[Annotated[float, Range(1, 16384)], ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[Annotated[float, Range(0.001, 1000)], ...] = (0.5, 1.0, 2.0)
    anchor_scales: tuple[Annotated[float, Range(0.001, 1000)], ...] = DEFAULT_SCALES
    prior: Annotated[float, Range(1e-9, 1 - 1e-9)] = 0.01
    loss: LossOptions = field(default_factory=LossOptions)
    score_thresh: Annotated[float, Range(0, 1)] = 0.05
    nms_thresh: Annotated[float, Range(0, 1)] = 0.5
    detections_per_img: Annotated[int, Range(1, 10**6)] = 300
    topk_candidates: Annotated[int, Range(1, 10**7)] = 1000

    def check(self) -> None:
        """Raises ValueError for settings that no model can have: a wrong type, a number out of range."""
        check_settings(self)

    def check_combination(self) -> None:
        """Raises ValueError for settings that do not fit together."""
        architecture = ARCHITECTURES[self.architecture]
        if self.max_size < self.min_size:
            raise ValueError(f"max_size must be at least min_size, {self.min_size}, got {self.max_size}")
        if self.norm not in ("", "batch", "frozen_batch", "group"):
            raise ValueError(f"norm must be batch, frozen_batch, group or empty, got {self.norm!r}")
        if len(self.base_sizes) != 5:
            raise ValueError(f"base_sizes must be 5 numbers, one for each level P3 to P7, got {len(self.base_sizes)}")
        for name in ("aspect_ratios", "anchor_scales"):
            if not getattr(self, name):
                raise ValueError(f"{name} must have at least one number")
        if self.weights_backbone and self.weights_backbone not in backbone_weights(architecture):
            known = ", ".join(backbone_weights(architecture)) or "none"
            raise ValueError(
                f"weights_backbone must be of {self.architecture} ({known}), got {self.weights_backbone!r}"
            )
        own_norm = group_norm if self.head_norm else None
        norm = architecture.head_norm if architecture.is_head_norm_fixed else own_norm
        if norm is not None:
            try:
                norm(self.fpn_channels)
            except ValueError as error:
                raise ValueError(
                    f"fpn_channels must fit the GroupNorm of the head, got {self.fpn_channels} ({error})"
                ) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; raises ValueError for a setting that is unknown, of another type or range."""
        return from_plain(cls, values)
