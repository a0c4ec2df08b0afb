"""The classification and box subnets, shared by all levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from ..errors import needs_extra

with needs_extra("models"):
    from torch import Tensor, nn
    from torchvision.ops import Conv2dNormActivation

NormLayer = Callable[[int], nn.Module]


class Subnet(nn.Module):
    """`depth` 3x3 convolutions with ReLU, and one that predicts ``outputs`` values for each anchor of a cell.

    The last convolution is called ``cls_logits`` or ``bbox_reg``: torchvision's state-dict names.
    """

    def __init__(
        self, name: str, channels: int, anchors: int, outputs: int, *, depth: int = 4, norm: NormLayer | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(*[Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(depth)])
        self.predictor_name = name
        self.add_module(name, nn.Conv2d(channels, anchors * outputs, kernel_size=3, padding=1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.register_load_state_dict_pre_hook(_rename_old_weights)

    @property
    def predictor(self) -> nn.Conv2d:
        """The last convolution."""
        return cast(nn.Conv2d, getattr(self, self.predictor_name))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Values of each level, ``[B, anchors * outputs, H, W]``, in the memory format of the last convolution."""
        return [self.predictor(self.conv(level)) for level in features]


class RetinaNetHead(nn.Module):
    """Both subnets. State-dict names as in torchvision's head of the same name.

    Unlike torchvision's head it returns the maps of each level, which the fused loss and post-processing read without a
    copy. `retina_ops.reference.head_outputs.by_anchor` converts them to ``[B, anchors, K]`` and ``[B, anchors, 4]``.

    Args:
        in_channels: channels of the feature maps.
        num_anchors: anchors per cell.
        num_classes: K.
        norm: layer after each convolution, called with the channels; None for none.
        depth: convolutions of a subnet before the predicting one.
        prior: initial score of every anchor and class, Lin et al. 2017, section 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        norm: NormLayer | None = None,
        *,
        depth: int = 4,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classification_head = Subnet("cls_logits", in_channels, num_anchors, num_classes, depth=depth, norm=norm)
        self.regression_head = Subnet("bbox_reg", in_channels, num_anchors, 4, depth=depth, norm=norm)
        nn.init.constant_(cast(Tensor, self.classification_head.predictor.bias), -math.log((1 - prior) / prior))

    def forward(self, features: list[Tensor]) -> dict[str, list[Tensor]]:
        """Of each level the logits, ``cls_logits`` ``[B, A * K, H, W]`` with A anchors a cell, and the box deltas,
        ``bbox_regression`` ``[B, A * 4, H, W]``."""
        return {"cls_logits": self.classification_head(features), "bbox_regression": self.regression_head(features)}


def _rename_old_weights(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """torchvision's first weights have ``conv.0, conv.2, ...`` where there is ``conv.0.0, conv.1.0, ...`` now."""
    if f"{prefix}conv.0.weight" not in state_dict:
        return
    for layer in range(4):
        for kind in ("weight", "bias"):
            old = f"{prefix}conv.{2 * layer}.{kind}"
            if old in state_dict:
                state_dict[f"{prefix}conv.{layer}.0.{kind}"] = state_dict.pop(old)


def group_norm(channels: int) -> nn.Module:
    """GroupNorm with 32 groups; below 256 channels with 16 channels per group."""
    return nn.GroupNorm(min(32, max(1, channels // 16)) if channels < 256 else 32, channels)
