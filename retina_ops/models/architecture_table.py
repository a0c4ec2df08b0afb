"""The table of architectures. The builder functions, `build_model` and `ModelConfig` read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from ..errors import needs_extra
from .head import NormLayer, group_norm

with needs_extra("models"):
    from torch import nn
    from torchvision.models import get_model_weights
    from torchvision.models._api import WeightsEnum
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights


@dataclass(frozen=True)
class Architecture:
    """What tells one RetinaNet from another: the values that its builder function takes where it is given none.

    Attributes:
        body: name of a ResNet in ``torchvision.models``; ``"small"`` for `SmallBody`.
        weights: torchvision's enum of published weights of the whole model; None if there are none.
        norm: norm of the backbone, see `resnet_fpn`.
        pretrained_norm: norm of a backbone with pretrained weights.
        p6_from: see `resnet_fpn`.
        fpn_channels: channels of every level.
        head_depth: convolutions of a subnet before the predicting one.
        head_norm: layer after each of them, called with the channels; None for none.
        is_head_norm_fixed: ``ModelConfig.head_norm`` does not change it.
        box_loss: see `LossOptions`.
        base_sizes: see `default_anchor_generator`.
    """

    body: str
    weights: type[WeightsEnum] | None = None
    norm: str = "batch"
    pretrained_norm: str = "frozen_batch"
    p6_from: str = "p5"
    fpn_channels: int = 256
    head_depth: int = 4
    head_norm: NormLayer | None = None
    is_head_norm_fixed: bool = False
    box_loss: str = "l1"
    base_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)


def backbone_weights(architecture: Architecture) -> list[str]:
    """The names of torchvision's weights of an architecture's body."""
    return [] if architecture.body == "small" else [*get_model_weights(architecture.body).__members__, "DEFAULT"]


ARCHITECTURES = {
    "retinanet_resnet18_fpn": Architecture("resnet18"),
    "retinanet_resnet34_fpn": Architecture("resnet34"),
    "retinanet_resnet50_fpn": Architecture("resnet50", RetinaNet_ResNet50_FPN_Weights),
    "retinanet_resnet50_fpn_v2": Architecture(
        "resnet50",
        RetinaNet_ResNet50_FPN_V2_Weights,
        pretrained_norm="batch",
        p6_from="c5",
        head_norm=partial(nn.GroupNorm, 32),
        is_head_norm_fixed=True,
        box_loss="giou",
    ),
    "retinanet_resnet101_fpn": Architecture("resnet101"),
    "retinanet_small_fpn": Architecture(
        "small",
        norm="group",
        fpn_channels=64,
        head_depth=2,
        head_norm=group_norm,
        base_sizes=(16, 32, 64, 128, 256),
    ),
}

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]  # so that TOML files and the command line refuse other names
