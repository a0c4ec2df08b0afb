"""The classification and box subnets, shared by all levels. They are torchvision's, with other depths and norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from ..errors import needs_extra
from ..patching.hooks import has_global_hooks, has_hooks
from ..reference.head_outputs import by_anchor

with needs_extra("models"):
    import torch
    from torch import Tensor, nn
    from torchvision.models.detection import retinanet
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.ops import Conv2dNormActivation

NormLayer = Callable[[int], nn.Module]
Levels = dict[str, list[Tensor]]


def refuse_torchscript(module: nn.Module) -> NoReturn:
    """Raises RuntimeError: what ``torch.jit.script`` asks of a module, as ``__prepare_scriptable__``."""
    raise RuntimeError(
        f"retina_ops.models.{type(module).__name__}: TorchScript is not supported; use torch.compile or torch.export"
    )


class Subnet(nn.Module):
    """`depth` 3x3 convolutions with ReLU, and one that predicts ``outputs`` values for each anchor of a cell.

    The last convolution is called ``cls_logits`` or ``bbox_reg``: torchvision's state-dict names.
    """

    __prepare_scriptable__ = refuse_torchscript

    def __init__(
        self, name: str, channels: int, anchors: int, outputs: int, *, depth: int = 4, norm: NormLayer | None = None
    ) -> None:
        nn.Module.__init__(self)  # not torchvision's, which makes four convolutions
        self.conv = nn.Sequential(*[Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(depth)])
        self.predictor_name = name
        self.add_module(name, nn.Conv2d(channels, anchors * outputs, kernel_size=3, padding=1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.num_anchors = anchors
        self.register_load_state_dict_pre_hook(_rename_old_weights)

    @property
    def predictor(self) -> nn.Conv2d:
        """The last convolution."""
        return cast(nn.Conv2d, getattr(self, self.predictor_name))

    def forward(self, x: list[Tensor], *, raw_maps: bool = False) -> Any:
        """``[B, anchors, outputs]`` of all levels; with ``raw_maps`` a list of ``[B, A * outputs, H, W]``."""
        if raw_maps:
            return [self.predictor(self.conv(level)) for level in x]
        return super().forward(x)


class ClassificationHead(Subnet, retinanet.RetinaNetClassificationHead):  # type: ignore[misc]
    """`Subnet` for the logits of ``num_classes`` classes."""

    def __init__(self, channels: int, anchors: int, num_classes: int, **options: Any) -> None:
        super().__init__("cls_logits", channels, anchors, num_classes, **options)
        self.num_classes = num_classes
        self.BETWEEN_THRESHOLDS = Matcher.BETWEEN_THRESHOLDS


class RegressionHead(Subnet, retinanet.RetinaNetRegressionHead):  # type: ignore[misc]
    """`Subnet` for the box deltas, with the coder and the kind of the loss."""

    def __init__(self, channels: int, anchors: int, **options: Any) -> None:
        super().__init__("bbox_reg", channels, anchors, 4, **options)
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self._loss_type = "l1"


class RetinaNetHead(retinanet.RetinaNetHead):  # type: ignore[misc]
    """Both subnets. State-dict names, attributes and outputs are those of torchvision's head of the same name.

    Args:
        in_channels: channels of the feature maps.
        num_anchors: anchors per cell.
        num_classes: K.
        norm: layer after each convolution, called with the channels; None for none.
        depth: convolutions of a subnet before the predicting one.
        prior: initial score of every anchor and class, Lin et al. 2017, section 4.1.
    """

    __prepare_scriptable__ = refuse_torchscript

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
        nn.Module.__init__(self)  # not torchvision's, which makes subnets of its own
        self.num_classes = num_classes
        self.classification_head = ClassificationHead(in_channels, num_anchors, num_classes, depth=depth, norm=norm)
        self.regression_head = RegressionHead(in_channels, num_anchors, depth=depth, norm=norm)
        nn.init.constant_(cast(Tensor, self.classification_head.predictor.bias), -math.log((1 - prior) / prior))

    def forward(self, x: list[Tensor], *, raw_maps: bool = False) -> dict[str, Any]:
        """The outputs of all levels, as torchvision's head gives them, or those of each level.

        Args:
            x: the feature map of each level.
            raw_maps: leave the outputs as the convolutions wrote them: the fused operators read them without a copy.

        Returns:
            ``cls_logits`` ``[B, anchors, K]`` and ``bbox_regression`` ``[B, anchors, 4]``; with ``raw_maps`` of each
            level ``[B, A * K, H, W]`` and ``[B, A * 4, H, W]``, with A anchors a cell.
        """
        if not raw_maps:
            return cast(dict[str, Any], super().forward(x))
        return {
            "cls_logits": self.classification_head(x, raw_maps=True),
            "bbox_regression": self.regression_head(x, raw_maps=True),
        }


def head_levels(head: nn.Module, features: list[Tensor]) -> Levels:
    """The outputs of any head for each level.

    Args:
        head: `RetinaNetHead`, torchvision's, or another one that returns ``cls_logits`` and ``bbox_regression``.
        features: the feature map of each level.

    Returns:
        Maps ``[B, A * C, H, W]`` of `RetinaNetHead`, and whatever lists another head gives; rows ``[B, anchors, C]``
        where the head gives all levels in one tensor, where its or its subnets' ``forward`` is overridden, and where
        they have hooks, which see what they would see in torchvision's model.
    """
    if isinstance(head, RetinaNetHead):
        subnets = (head.classification_head, head.regression_head)
        if _has_own_forward(head, RetinaNetHead) and all(_has_own_forward(each, Subnet) for each in subnets):
            return head(features, raw_maps=True)  # type: ignore[no-any-return]
    outputs = head(features)
    cells = [level.shape[-2] * level.shape[-1] for level in features]
    levels = {}
    for name in ("cls_logits", "bbox_regression"):
        values = outputs[name]
        if isinstance(values, Tensor):
            per_cell = values.shape[1] // max(1, sum(cells))
            values = list(values.split([count * per_cell for count in cells], dim=1))
        levels[name] = values
    return levels


def by_level(levels: Levels, anchors: Sequence[Tensor]) -> tuple[Levels, list[list[Tensor]]]:
    """Levels of any form as rows, and the anchors of each image split by level, as torchvision post-processes them.

    Args:
        levels: ``cls_logits`` and ``bbox_regression`` of each level.
        anchors: ``[A, 4]`` for each image.

    Returns:
        ``cls_logits`` ``[B, a, K]`` and ``bbox_regression`` ``[B, a, 4]`` of each level; for each image and level the
        anchors ``[a, 4]``.
    """
    logits, deltas = by_anchor(levels["cls_logits"], levels["bbox_regression"])
    counts = [level.shape[1] for level in logits]
    return {"cls_logits": logits, "bbox_regression": deltas}, [list(each.split(counts)) for each in anchors]


def all_levels(levels: Levels) -> dict[str, Tensor]:
    """The rows of all levels in one tensor each, as torchvision's head gives them."""
    return {name: torch.cat(rows, dim=1) for name, rows in by_level(levels, [])[0].items()}


def count_classes(levels: Levels) -> int:
    """K of the logits of any form."""
    return by_level(levels, [])[0]["cls_logits"][0].shape[-1]


def _has_own_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in module.__dict__
        and not has_hooks(module)
        and not has_global_hooks()
    )


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
