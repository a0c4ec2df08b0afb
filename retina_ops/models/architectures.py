"""The architectures: a function each with torchvision's signature, and `build_model`, which finds them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import needs_extra
from .anchors import default_anchor_generator
from .backbones import resnet_fpn, small_fpn
from .config import ModelConfig
from .head import RetinaNetHead, group_norm
from .loss import LossOptions
from .retinanet import RetinaNet

with needs_extra("models"):
    from torch import nn
    from torchvision.models import get_weight
    from torchvision.models._api import WeightsEnum
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights
    from torchvision.models.detection._utils import overwrite_eps


def _resnet_retinanet(
    body: str,
    weights: WeightsEnum | str | None,
    progress: bool,
    num_classes: int | None,
    weights_backbone: Any,
    trainable_backbone_layers: int | None,
    norm: str | None,
    options: dict[str, Any],
    *,
    v2: bool = False,
) -> RetinaNet:
    enum = _weights_of(body, v2, weights)
    if enum is not None:
        weights_backbone = None
        pretrained_classes = len(enum.meta["categories"])
        if num_classes not in (None, pretrained_classes):
            raise ValueError(f"num_classes must be {pretrained_classes} with these weights, got {num_classes}")
        num_classes = pretrained_classes
        options.setdefault("categories", [{"id": i, "name": name} for i, name in enumerate(enum.meta["categories"])])
    num_classes = 91 if num_classes is None else num_classes
    is_trained = enum is not None or weights_backbone is not None
    layers = trainable_backbone_layers if trainable_backbone_layers is not None else 3 if is_trained else 5
    if norm is None:
        norm = "frozen_batch" if is_trained and not v2 else "batch"
    backbone = resnet_fpn(
        body,
        norm=norm,
        weights=weights_backbone,
        trainable_layers=layers if is_trained else 5,
        p6_from="c5" if v2 else "p5",
        channels=options.pop("fpn_channels", 256),
        progress=progress,
    )
    anchors = options.pop("anchor_generator", None) or default_anchor_generator()
    per_cell = anchors.num_anchors_per_location()[0]
    head = RetinaNetHead(
        backbone.out_channels,
        per_cell,
        num_classes,
        norm=partial(nn.GroupNorm, 32) if v2 else options.pop("head_norm", None),
        depth=options.pop("head_depth", 4),
    )
    if v2:
        options.setdefault("loss", LossOptions(box_loss="giou"))
    model = RetinaNet(backbone, num_classes, anchor_generator=anchors, head=head, **options)
    if enum is not None:
        model.load_state_dict(enum.get_state_dict(progress=progress, check_hash=True))
        if enum is RetinaNet_ResNet50_FPN_Weights.COCO_V1:
            overwrite_eps(model, 0.0)  # these weights were trained without the epsilon of the batch norm
    return model


def _weights_of(body: str, v2: bool, weights: WeightsEnum | str | None) -> WeightsEnum | None:
    if weights is None:
        return None
    if body != "resnet50":
        raise ValueError(f"there are no published weights of a RetinaNet with {body}: use weights_backbone")
    enum = RetinaNet_ResNet50_FPN_V2_Weights if v2 else RetinaNet_ResNet50_FPN_Weights
    if isinstance(weights, str) and "." in weights:
        weights = get_weight(weights)
    verified: WeightsEnum = enum.verify(weights) if not isinstance(weights, str) else enum[weights]
    return verified


def retinanet_resnet50_fpn(
    *,
    weights: WeightsEnum | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Any = None,
    trainable_backbone_layers: int | None = None,
    norm: str | None = None,
    **kwargs: Any,
) -> RetinaNet:
    """RetinaNet with a ResNet-50 and FPN (Lin et al. 2017), as torchvision's function of the same name.

    Args:
        weights: torchvision's ``RetinaNet_ResNet50_FPN_Weights`` or its name; downloaded on first use.
        progress: show the download.
        num_classes: K without a background class; default 91, or the number that the weights have.
        weights_backbone: weights of the body alone, such as ``"IMAGENET1K_V1"``; default none.
        trainable_backbone_layers: stages of the body that are trained, 0 to 5; default 3 with weights, else 5.
        norm: ``"batch"``, ``"frozen_batch"`` or ``"group"``; default frozen with weights, else batch.
        **kwargs: of `RetinaNet`; also ``fpn_channels`` (256), ``head_depth`` (4).
    """
    return _resnet_retinanet(
        "resnet50", weights, progress, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs
    )


def retinanet_resnet50_fpn_v2(
    *,
    weights: WeightsEnum | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Any = None,
    trainable_backbone_layers: int | None = None,
    norm: str | None = None,
    **kwargs: Any,
) -> RetinaNet:
    """The improved RetinaNet of torchvision: GroupNorm in the subnets, GIoU loss, P6 from C5.

    Zhang et al. 2020, "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
    Selection". The arguments are those of `retinanet_resnet50_fpn`, with ``RetinaNet_ResNet50_FPN_V2_Weights``.
    """
    return _resnet_retinanet(
        "resnet50", weights, progress, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs, v2=True
    )


def _sibling(body: str, depth: int) -> Callable[..., RetinaNet]:
    """`retinanet_resnet50_fpn` with another body, for which no weights of a whole RetinaNet are published."""

    def build(
        *,
        num_classes: int = 91,
        weights_backbone: Any = None,
        trainable_backbone_layers: int | None = None,
        norm: str | None = None,
        **kwargs: Any,
    ) -> RetinaNet:
        return _resnet_retinanet(
            body, None, True, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs
        )

    build.__name__ = build.__qualname__ = f"retinanet_{body}_fpn"
    build.__doc__ = (
        f"RetinaNet with a ResNet-{depth}. The arguments are those of `retinanet_resnet50_fpn`, without ``weights``: "
        "none are published."
    )
    return build


retinanet_resnet18_fpn = _sibling("resnet18", 18)
retinanet_resnet34_fpn = _sibling("resnet34", 34)
retinanet_resnet101_fpn = _sibling("resnet101", 101)


def retinanet_small_fpn(
    *,
    num_classes: int,
    norm: str = "group",
    width: int = 32,
    fpn_channels: int = 64,
    head_depth: int = 2,
    trainable_backbone_layers: int = 5,
    base_sizes: Sequence[float] = (16, 32, 64, 128, 256),
    **kwargs: Any,
) -> RetinaNet:
    """A small RetinaNet that trains from scratch in minutes on a CPU.

    Args:
        num_classes: K without a background class.
        norm: of the backbone, as `retinanet_resnet50_fpn`.
        width: channels of the first stage of the backbone.
        fpn_channels: channels of every level and of the subnets.
        head_depth: convolutions of a subnet before the predicting one.
        trainable_backbone_layers: as `retinanet_resnet50_fpn`.
        base_sizes: side of the smallest anchor of each level, in pixels of the resized image.
        **kwargs: of `RetinaNet`.
    """
    backbone = small_fpn(norm=norm, width=width, trainable_layers=trainable_backbone_layers, channels=fpn_channels)
    anchors = kwargs.pop("anchor_generator", None) or default_anchor_generator(base_sizes)
    per_cell = anchors.num_anchors_per_location()[0]
    head = RetinaNetHead(
        fpn_channels, per_cell, num_classes, norm=kwargs.pop("head_norm", group_norm), depth=head_depth
    )
    return RetinaNet(backbone, num_classes, anchor_generator=anchors, head=head, **kwargs)


ARCHITECTURES: dict[str, Callable[..., RetinaNet]] = {
    build.__name__: build
    for build in (
        retinanet_resnet18_fpn,
        retinanet_resnet34_fpn,
        retinanet_resnet50_fpn,
        retinanet_resnet50_fpn_v2,
        retinanet_resnet101_fpn,
        retinanet_small_fpn,
    )
}


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
