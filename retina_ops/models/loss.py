"""Options of the loss, and the fused loss with these options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import retinanet_loss
from .._deprecated import MATCHING, renamed_fields
from ..errors import needs_extra
from ..ops.retinanet_loss import BOX_LOSSES

with needs_extra("models"):
    import torch
    from torch import Tensor

NORMALIZATIONS = ("image", "batch", "ema")


@renamed_fields(**MATCHING, box_weight="box_loss_weight")
@dataclass(frozen=True)
class LossOptions:
    """Options of the loss.

    Attributes:
        fg_iou_thresh: IoU from which an anchor is foreground.
        bg_iou_thresh: IoU under which it is background; between the two it is ignored.
        alpha: weight of a positive in the focal loss; a negative has 1 - alpha.
        gamma: exponent of the focal loss: larger values reduce the weight of easy anchors further.
        box_loss: one of ``BOX_LOSSES``.
        smooth_l1_beta: where ``smooth_l1`` changes from quadratic to linear, in units of the deltas.
        box_loss_weight: factor of the box loss.
        normalization: ``"image"``: each image's sum over its foreground anchors, the mean over images, as
            torchvision's. ``"batch"``: the sum over all foreground anchors of the batch and of all processes.
            ``"ema"``: the sum over a moving average of the batch's foreground anchors, as detectron2's
            (`retina_ops.EmaNormalizer`; one more tensor in the model's state dict).
        allow_low_quality_matches: also the anchors that overlap a box best are foreground, see
            `retina_ops.match_anchors`.
        min_pos_iou: lowest IoU of such a match.
    """

    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.4
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: str = "l1"
    smooth_l1_beta: float = 1.0
    box_loss_weight: float = 1.0
    normalization: str = "image"
    allow_low_quality_matches: bool = True
    min_pos_iou: float = 0.0

    def __post_init__(self) -> None:
        if self.box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss must be one of {', '.join(BOX_LOSSES)}, got {self.box_loss!r}")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")
        if self.bg_iou_thresh > self.fg_iou_thresh:
            raise ValueError(
                f"bg_iou_thresh must be at most fg_iou_thresh, got {self.bg_iou_thresh} and {self.fg_iou_thresh}"
            )


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
    classification, box_loss = retinanet_loss(
        head_outputs["cls_logits"],
        head_outputs["bbox_regression"],
        anchors,
        boxes,
        [target["labels"] for target in targets],
        fg_iou_thresh=options.fg_iou_thresh,
        bg_iou_thresh=options.bg_iou_thresh,
        allow_low_quality_matches=options.allow_low_quality_matches,
        min_pos_iou=options.min_pos_iou,
        alpha=options.alpha,
        gamma=options.gamma,
        box_loss=options.box_loss,
        smooth_l1_beta=options.smooth_l1_beta,
        bbox_reg_weights=bbox_reg_weights,
        normalization=normalizer if normalizer and options.normalization == "ema" else options.normalization,
        ignore_regions=crowds,
    )
    return {"classification": classification, "bbox_regression": box_loss * options.box_loss_weight}


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
