"""Builder functions with torchvision's signatures, one per architecture, and `build_model` for a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import needs_extra
from .anchors import default_anchor_generator
from .architecture_table import ARCHITECTURES, Architecture
from .backbones import resnet_fpn, small_fpn
from .config import ModelConfig
from .head import RetinaNetHead, group_norm
from .loss_options import LossOptions
from .retinanet import RetinaNet

with needs_extra("models"):
    from torchvision.models import get_weight
    from torchvision.models._api import WeightsEnum
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import BackboneWithFPN


def _resnet_retinanet(
    name: str,
    weights: WeightsEnum | str | None,
    progress: bool,
    num_classes: int | None,
    weights_backbone: Any,
    trainable_backbone_layers: int | None,
    norm: str | None,
    options: dict[str, Any],
) -> RetinaNet:
    """The architecture of a name, with the arguments of its builder function."""
    architecture = ARCHITECTURES[name]
    enum = _weights_of(name, weights)
    if enum is not None:
        weights_backbone = None
        pretrained_classes = len(enum.meta["categories"])
        if num_classes not in (None, pretrained_classes):
            raise ValueError(f"num_classes must be {pretrained_classes} with these weights, got {num_classes}")
        num_classes = pretrained_classes
        named = [{"id": label, "name": category} for label, category in enumerate(enum.meta["categories"])]
        options.setdefault("categories", named)
    num_classes = 91 if num_classes is None else num_classes
    is_trained = enum is not None or weights_backbone is not None
    layers = 3 if trainable_backbone_layers is None else trainable_backbone_layers
    backbone = resnet_fpn(
        architecture.body,
        norm=norm or (architecture.pretrained_norm if is_trained else architecture.norm),
        weights=weights_backbone,
        trainable_layers=layers if is_trained else 5,
        p6_from=architecture.p6_from,
        channels=options.pop("fpn_channels", architecture.fpn_channels),
        progress=progress,
    )
    model = _with_head(architecture, backbone, num_classes, options)
    if enum is not None:
        model.load_state_dict(enum.get_state_dict(progress=progress, check_hash=True))
        if enum is RetinaNet_ResNet50_FPN_Weights.COCO_V1:
            overwrite_eps(model, 0.0)  # these weights were trained without the epsilon of the batch norm
    return model


def _with_head(
    architecture: Architecture, backbone: BackboneWithFPN, num_classes: int, options: dict[str, Any]
) -> RetinaNet:
    """The model of a backbone. `options` are arguments of `RetinaNet`, and those of its anchors and its head."""
    anchors = options.pop("anchor_generator", None) or default_anchor_generator(architecture.base_sizes)
    head = RetinaNetHead(
        backbone.out_channels,
        anchors.num_anchors_per_location()[0],
        num_classes,
        norm=options.pop("head_norm", architecture.head_norm),
        depth=options.pop("head_depth", architecture.head_depth),
        prior=options.pop("prior", 0.01),
    )
    if options.get("loss") is None:
        thresholds = {name: options[name] for name in ("fg_iou_thresh", "bg_iou_thresh") if name in options}
        options["loss"] = LossOptions(**thresholds, box_loss=architecture.box_loss)
    return RetinaNet(backbone, num_classes, anchor_generator=anchors, head=head, **options)


def _weights_of(name: str, weights: WeightsEnum | str | None) -> WeightsEnum | None:
    if weights is None:
        return None
    enum = ARCHITECTURES[name].weights
    if enum is None:
        raise ValueError(f"no weights of {name} are published: use weights_backbone")
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
        **kwargs: of `RetinaNet`; also ``fpn_channels`` (256), ``head_depth`` (4) and ``head_norm`` (a function of the
            channels; none), and ``prior`` (0.01), the score of every anchor before training.
    """
    name = "retinanet_resnet50_fpn"
    return _resnet_retinanet(
        name, weights, progress, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs
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
    name = "retinanet_resnet50_fpn_v2"
    return _resnet_retinanet(
        name, weights, progress, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs
    )


def _without_weights(name: str) -> Callable[..., RetinaNet]:
    """`retinanet_resnet50_fpn` with another body."""

    def build(
        *,
        weights: None = None,
        progress: bool = True,
        num_classes: int | None = None,
        weights_backbone: Any = None,
        trainable_backbone_layers: int | None = None,
        norm: str | None = None,
        **kwargs: Any,
    ) -> RetinaNet:
        return _resnet_retinanet(
            name, weights, progress, num_classes, weights_backbone, trainable_backbone_layers, norm, kwargs
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"RetinaNet with a {ARCHITECTURES[name].body.replace('resnet', 'ResNet-')} and FPN. "
        "The arguments are those of `retinanet_resnet50_fpn`;\n``weights`` must be None, because none are published."
    )
    return build


retinanet_resnet18_fpn = _without_weights("retinanet_resnet18_fpn")
retinanet_resnet34_fpn = _without_weights("retinanet_resnet34_fpn")
retinanet_resnet101_fpn = _without_weights("retinanet_resnet101_fpn")


def retinanet_small_fpn(
    *,
    num_classes: int,
    norm: str | None = None,
    width: int = 32,
    fpn_channels: int | None = None,
    trainable_backbone_layers: int = 5,
    base_sizes: Sequence[float] | None = None,
    **kwargs: Any,
) -> RetinaNet:
    """A small RetinaNet that trains from scratch in minutes on a CPU.

    Args:
        num_classes: K without a background class.
        norm: as for `retinanet_resnet50_fpn`; default group.
        width: channels of the first stage of the backbone.
        fpn_channels: channels of every level and of the subnets; default 64.
        trainable_backbone_layers: as for `retinanet_resnet50_fpn`.
        base_sizes: side of the smallest anchor of each level, in pixels of the resized image; default 16 to 256.
        **kwargs: of `RetinaNet`; also ``head_depth`` (2) and ``head_norm`` (a function of the channels; GroupNorm).
    """
    architecture = ARCHITECTURES["retinanet_small_fpn"]
    backbone = small_fpn(
        norm=norm or architecture.norm,
        width=width,
        trainable_layers=trainable_backbone_layers,
        channels=fpn_channels or architecture.fpn_channels,
    )
    if base_sizes is not None and not kwargs.get("anchor_generator"):
        kwargs["anchor_generator"] = default_anchor_generator(base_sizes)
    return _with_head(architecture, backbone, num_classes, kwargs)


BUILDERS: dict[str, Callable[..., RetinaNet]] = {name: globals()[name] for name in ARCHITECTURES}


def build_model(config: ModelConfig, categories: list[dict[str, Any]], *, pretrained: bool = True) -> RetinaNet:
    """The model that a configuration describes.

    Args:
        config: see `ModelConfig`.
        categories: ``{"id": int, "name": str}`` for each label.
        pretrained: load ``weights_backbone``; False where weights are loaded afterwards.

    Raises:
        ValueError: an unknown architecture, norm or loss, or a number out of range.
    """
    config.check()
    architecture = ARCHITECTURES[config.architecture]
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
        "anchor_generator": default_anchor_generator(config.base_sizes, config.anchor_scales, config.aspect_ratios),
        "trainable_backbone_layers": config.trainable_backbone_layers,
        "fpn_channels": config.fpn_channels,
        "head_depth": config.head_depth,
        "prior": config.prior,
        "norm": config.norm or None,
    }
    if architecture.body != "small":
        options["weights_backbone"] = config.weights_backbone if config.weights_backbone and pretrained else None
    if not architecture.is_head_norm_fixed:
        options["head_norm"] = group_norm if config.head_norm else None
    model = BUILDERS[config.architecture](**options)
    model.config = config
    return model
