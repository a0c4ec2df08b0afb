"""The loss of a batch with the options of `LossOptions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import retinanet_loss
from ..errors import needs_extra
from ..ops.normalization import Normalization
from .classification_loss import SEPARATE, separate_losses
from .loss_options import LossOptions

with needs_extra("models"):
    import torch
    from torch import Tensor


def retinanet_losses(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    targets: Sequence[dict[str, Any]],
    options: LossOptions,
    normalizer: Callable[[Tensor], Tensor] | None = None,
    *,
    bbox_reg_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> dict[str, Tensor]:
    """Classification and box loss of a batch.

    Args:
        head_outputs: of `RetinaNetHead`, or in any other form that `retina_ops.retinanet_loss` takes.
        anchors: ``[A, 4]`` of all levels, shared by the images.
        targets: for each image ``boxes`` ``[n, 4]`` and ``labels`` ``[n]`` in 0..K-1; where it has ``iscrowd``
            ``[n]``, crowd boxes are regions to ignore.
        options: see `LossOptions`.
        normalizer: the moving average of the normalization ``"ema"``.
        bbox_reg_weights: factors of the deltas, as for `retina_ops.encode_boxes`.

    Returns:
        ``classification`` and ``bbox_regression``, scalars: float32, float64 for float64 outputs.
    """
    if options.normalization == "ema" and normalizer is None:
        raise ValueError('normalization "ema" needs a normalizer, such as retina_ops.EmaNormalizer')
    boxes, crowds = _split_crowds(targets)
    labels = [target["labels"] for target in targets]
    normalization: Normalization = options.normalization
    if options.normalization == "ema" and normalizer is not None:
        normalization = normalizer
    if options.classification in SEPARATE:
        losses = separate_losses(head_outputs, anchors, boxes, labels, crowds, options, normalization, bbox_reg_weights)
    else:
        losses = retinanet_loss(
            head_outputs["cls_logits"],
            head_outputs["bbox_regression"],
            anchors,
            boxes,
            labels,
            alpha=options.alpha,
            gamma=0.0 if options.classification == "cross_entropy" else options.gamma,
            bbox_reg_weights=bbox_reg_weights,
            normalization=normalization,
            ignore_regions=crowds,
            **options.matching_and_box_loss(),
        )
    return {"classification": losses[0], "bbox_regression": losses[1] * options.box_loss_weight}


def _split_crowds(targets: Sequence[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor] | None]:
    """Object boxes and crowd boxes per image; None for the second where there are no crowds.

    Each list keeps all rows and sets boxes of the other kind to zero, so that they overlap nothing. Removing rows would
    make the host wait for the device and would break a compiled graph.
    """
    boxes = [target["boxes"] for target in targets]
    crowds = [target.get("iscrowd") for target in targets]
    if all(crowd is None for crowd in crowds):
        return boxes, None
    can_read = boxes[0].device.type == "cpu" and not torch.compiler.is_compiling()
    if can_read and not any(crowd is not None and bool((crowd != 0).any()) for crowd in crowds):
        return boxes, None  # matching is faster without regions
    is_crowd = [
        torch.zeros_like(image_boxes[:, 0], dtype=torch.bool) if crowd is None else crowd.to(image_boxes.device) != 0
        for image_boxes, crowd in zip(boxes, crowds, strict=True)
    ]
    objects = [image_boxes.masked_fill(crowd[:, None], 0) for image_boxes, crowd in zip(boxes, is_crowd, strict=True)]
    regions = [image_boxes.masked_fill(~crowd[:, None], 0) for image_boxes, crowd in zip(boxes, is_crowd, strict=True)]
    return objects, regions
