"""Backbones with FPN: torchvision's ResNets, and a small one that trains from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ..errors import needs_extra
from .head import group_norm

with needs_extra("models"):
    import torchvision
    from torch import Tensor, nn
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen_batch": FrozenBatchNorm2d,
    "group": group_norm,
}
STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")


def resnet_fpn(
    name: str,
    *,
    norm: str = "batch",
    weights: Any = None,
    trainable_layers: int = 5,
    p6_from: str = "p5",
    channels: int = 256,
    progress: bool = True,
) -> BackboneWithFPN:
    """A ResNet with a feature pyramid P3 to P7.

    Args:
        name: ``"resnet18"``, ``"resnet34"``, ``"resnet50"`` or ``"resnet101"``.
        norm: ``"batch"``, ``"frozen_batch"`` (with fixed statistics) or ``"group"`` (for training from
            scratch with small batches).
        weights: a torchvision weights enum or its name, for the body.
        trainable_layers: number of stages that are trained, counted from the last one, 0 to 5.
        p6_from: P6 is a convolution of ``"p5"`` or of ``"c5"``, the body's last map.
        channels: channels of every level.
        progress: show the download of the weights.
    """
    body = torchvision.models.get_model(name, weights=weights, progress=progress, norm_layer=_norm(norm))
    return _with_fpn(body, body.inplanes, trainable_layers, p6_from, channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with normalisation, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 2, 2, bias=False)
        nn.init.zeros_(cast(Tensor, self.norm2.weight))  # a new block equals its shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class SmallBody(nn.Module):
    """A body of 1.4 million weights at 64 channels.

    A convolution of stride 4 is followed by four stages with 1, 2, 4 and 4 times the width.
    """

    def __init__(self, width: int, norm: Callable[..., nn.Module], blocks: tuple[int, ...] = (1, 1, 1, 1)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
        self.norm1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * min(2**stage, 4)
            layers = [ResidualBlock(inputs, outputs, 1 if stage == 0 else 2, norm)]
            layers += [ResidualBlock(outputs, outputs, 1, norm) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            inputs = outputs
        self.inplanes = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def small_fpn(
    *, norm: str = "group", width: int = 32, trainable_layers: int = 5, channels: int = 64
) -> BackboneWithFPN:
    """A small residual network with a feature pyramid P3 to P7, for training from scratch on a CPU.

    Args:
        norm: as for `resnet_fpn`.
        width: channels of the first stage; later stages have up to four times as many.
        trainable_layers: as for `resnet_fpn`.
        channels: channels of every level.
    """
    body = SmallBody(width, _norm(norm))
    return _with_fpn(body, body.inplanes, trainable_layers, "p5", channels, first=body.inplanes // 2)


def _norm(name: str) -> Callable[..., nn.Module]:
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name]


def _with_fpn(
    body: nn.Module, last: int, trainable_layers: int, p6_from: str, channels: int, first: int | None = None
) -> BackboneWithFPN:
    if p6_from not in ("p5", "c5"):
        raise ValueError(f"p6_from must be p5 or c5, got {p6_from!r}")
    freeze_stages(body, trainable_layers)
    in_channels = [first or last // 4, last // 2 if first is None else last, last]
    # torchvision's P6 takes C5 where its input channels differ from its output channels, else P5.
    extra = LastLevelP6P7(last if p6_from == "c5" else channels, channels)
    extra.use_P5 = p6_from == "p5"
    return BackboneWithFPN(body, {"layer2": "0", "layer3": "1", "layer4": "2"}, in_channels, channels, extra)


def freeze_stages(body: nn.Module, trainable_layers: int) -> None:
    """Freezes all stages of a body except the last ``trainable_layers``; 5 trains the whole body."""
    if not 0 <= trainable_layers <= 5:
        raise ValueError(f"trainable_layers must be 0 to 5, got {trainable_layers}")
    if trainable_layers == 5:
        return
    trained = STAGES[:trainable_layers]
    for name, parameter in body.named_parameters():
        if not name.startswith(trained):
            parameter.requires_grad_(False)
