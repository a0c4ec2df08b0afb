"""The RetinaNet loss from the operators: matching, focal loss, box loss, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import decode_boxes, encode_boxes, match_anchors, sigmoid_focal_loss
from ..data.errors import needs_extra

with needs_extra("models"):
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch import Tensor
    from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

BOX_LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")
NORMALIZATIONS = ("image", "batch")
_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


@dataclass(frozen=True)
class LossOptions:
    """What the loss is made of.

    Attributes:
        fg_iou: IoU from which an anchor is foreground.
        bg_iou: IoU under which it is background; between the two it is ignored.
        alpha: weight of a positive in the focal loss; a negative has 1 - alpha.
        gamma: exponent of the focal loss: how much easy anchors are weighted down.
        box_loss: one of ``BOX_LOSSES``.
        smooth_l1_beta: where ``smooth_l1`` turns from square to linear, in units of the deltas.
        box_weight: factor of the box loss.
        normalization: ``"image"``: each image's sum over its foreground anchors, the mean over images, as
            torchvision's. ``"batch"``: the sum over all foreground anchors of the batch and of all processes.
    """

    fg_iou: float = 0.5
    bg_iou: float = 0.4
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: str = "l1"
    smooth_l1_beta: float = 1.0
    box_weight: float = 1.0
    normalization: str = "image"

    def __post_init__(self) -> None:
        if self.box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss must be one of {', '.join(BOX_LOSSES)}, got {self.box_loss!r}")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")


def retinanet_losses(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    targets: Sequence[dict[str, Any]],
    options: LossOptions,
) -> dict[str, Tensor]:
    """Classification and box loss of a batch.

    Args:
        head_outputs: ``cls_logits`` ``[B, a, K]`` and ``bbox_regression`` ``[B, a, 4]`` of each level.
        anchors: ``[A, 4]`` of all levels, shared by the images.
        targets: for each image ``boxes`` ``[n, 4]`` and ``labels`` ``[n]`` in 0..K-1; where it has ``iscrowd``
            ``[n]``, crowd boxes are regions to ignore.
        options: see `LossOptions`.

    Returns:
        ``classification`` and ``bbox_regression``, float32 scalars.
    """
    logits, regression = head_outputs["cls_logits"], head_outputs["bbox_regression"]
    objects, crowds = zip(*[_split_crowd(target) for target in targets], strict=True)
    matches = torch.stack(
        match_anchors(
            anchors,
            [target["boxes"] for target in objects],
            options.fg_iou,
            options.bg_iou,
            ignore_regions=crowds if any(len(crowd) for crowd in crowds) else None,
        )
    )
    classes = _class_targets(matches, [target["labels"] for target in objects], logits[0].shape[-1])
    foreground = (matches >= 0).sum(dim=1)  # anchors of each image
    level_sizes = [level.shape[1] for level in logits]
    if options.normalization == "batch":
        divisor = _positives_of_all(foreground.sum())
        classification = _classification(logits, classes, level_sizes, options) / divisor
    else:
        weights = 1 / foreground.clamp(min=1) / len(targets)
        classification = torch.stack(
            [
                _classification([level[i] for level in logits], classes[i], level_sizes, options) * weights[i]
                for i in range(len(targets))
            ]
        ).sum()
    image, anchor = torch.where(matches >= 0)
    index = matches[image, anchor]
    offsets = torch.tensor([0, *[len(target["boxes"]) for target in objects]]).cumsum(0)[:-1]
    gt_boxes = torch.cat([target["boxes"] for target in objects])[offsets.to(image.device)[image] + index]
    deltas = torch.cat(regression, dim=1)[image, anchor].float()
    box_losses = _box_losses(deltas, anchors[anchor], gt_boxes.to(anchors.dtype), options)
    box_loss = box_losses.sum() / divisor if options.normalization == "batch" else (box_losses * weights[image]).sum()
    return {"classification": classification, "bbox_regression": box_loss * options.box_weight}


def _split_crowd(target: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """The target without its crowd boxes, and those."""
    crowd = target.get("iscrowd")
    if crowd is None or not bool((crowd > 0).any()):
        return target, target["boxes"][:0]
    keep = crowd == 0
    return {"boxes": target["boxes"][keep], "labels": target["labels"][keep]}, target["boxes"][~keep]


def _class_targets(matches: Tensor, labels: Sequence[Tensor], num_classes: int) -> Tensor:
    """Class index of each anchor ``[B, A]``: K for background, -1 for anchors between the thresholds."""
    classes = torch.where(matches == -1, num_classes, -1)
    for i, image_labels in enumerate(labels):
        if len(image_labels):
            classes[i] = torch.where(matches[i] >= 0, image_labels[matches[i].clamp(min=0)], classes[i])
    return classes


def _classification(
    logits: Sequence[Tensor], classes: Tensor, level_sizes: Sequence[int], options: LossOptions
) -> Tensor:
    """Sum of the focal loss over the levels, which are neither permuted nor concatenated for it."""
    losses = [
        sigmoid_focal_loss(level, target, options.alpha, options.gamma, "sum")
        for level, target in zip(logits, classes.split(list(level_sizes), dim=-1), strict=True)
    ]
    return torch.stack(losses).sum()


def _box_losses(deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, options: LossOptions) -> Tensor:
    """Loss of each foreground anchor, ``[n]``."""
    if options.box_loss in _IOU_LOSSES:
        losses: Tensor = _IOU_LOSSES[options.box_loss](decode_boxes(deltas, anchors), gt_boxes, reduction="none")
        return losses
    wanted = encode_boxes(gt_boxes, anchors)
    if options.box_loss == "smooth_l1":
        return F.smooth_l1_loss(deltas, wanted, reduction="none", beta=options.smooth_l1_beta).sum(dim=1)
    return F.l1_loss(deltas, wanted, reduction="none").sum(dim=1)


def _positives_of_all(positives: Tensor) -> Tensor:
    """Foreground anchors a process, on average over all, at least 1 in all: DDP averages the gradients."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        total = positives.clone()
        dist.all_reduce(total)
        return total.clamp(min=1) / dist.get_world_size()
    return positives.clamp(min=1)
