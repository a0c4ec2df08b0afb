"""From a `ModelConfig` to the model that it describes."""

from __future__ import annotations

from typing import Any

from . import builders
from .anchors import default_anchor_generator
from .config import ModelConfig
from .head import group_norm
from .retinanet import RetinaNet

ARCHITECTURES = {
    "retinanet_resnet18_fpn": builders.retinanet_resnet18_fpn,
    "retinanet_resnet34_fpn": builders.retinanet_resnet34_fpn,
    "retinanet_resnet50_fpn": builders.retinanet_resnet50_fpn,
    "retinanet_resnet50_fpn_v2": builders.retinanet_resnet50_fpn_v2,
    "retinanet_resnet101_fpn": builders.retinanet_resnet101_fpn,
    "retinanet_small_fpn": builders.retinanet_small_fpn,
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
