"""The RetinaNet loss in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from retina_ops._deprecated import BOX_CODER, MATCHING, renamed_arguments
from retina_ops.reference.anchor_matching import match_anchors
from retina_ops.reference.box_coding import Weights, decode_boxes, encode_boxes
from retina_ops.reference.focal_loss import sigmoid_focal_loss
from retina_ops.reference.head_outputs import by_anchor
from retina_ops.reference.iou_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

__all__ = ["retinanet_loss"]

_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


@renamed_arguments(**MATCHING, **BOX_CODER)
def retinanet_loss(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    *,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: str = "l1",
    smooth_l1_beta: float = 1.0,
    bbox_reg_weights: Weights = (1, 1, 1, 1),
    normalization: str | Callable[[Tensor], Tensor] = "image",
    ignore_regions: Sequence[Tensor] | None = None,
    ignore_iof: float = 0.5,
    min_pos_iou: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`retina_ops.retinanet_loss` for one process; computes in the dtype of the outputs."""
    regions = [None] * len(gt_boxes) if ignore_regions is None else ignore_regions
    matches = torch.stack(
        [
            match_anchors(
                anchors,
                boxes,
                fg_iou_thresh,
                bg_iou_thresh,
                allow_low_quality_matches,
                ignore_regions=image_regions,
                ignore_iof=ignore_iof,
                min_pos_iou=min_pos_iou,
            )
            for boxes, image_regions in zip(gt_boxes, regions, strict=True)
        ]
    )
    foreground = (matches >= 0).sum(dim=1)
    if callable(normalization):
        divisor = normalization(foreground)
    elif normalization == "image":
        divisor = foreground.clamp(min=1) * len(foreground)
    else:
        divisor = foreground.sum().clamp(min=1)
    return matched_loss(
        *by_anchor(cls_logits, bbox_regression), anchors, matches, gt_boxes, gt_labels, divisor.expand(len(foreground)),
        alpha=alpha, gamma=gamma, box_loss=box_loss, smooth_l1_beta=smooth_l1_beta, bbox_reg_weights=bbox_reg_weights,
    )  # fmt: skip


def matched_loss(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Tensor,
    matches: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    divisor: Tensor,
    *,
    alpha: float,
    gamma: float,
    box_loss: str,
    smooth_l1_beta: float,
    bbox_reg_weights: Weights,
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of anchors with known matches.

    Args:
        cls_logits, bbox_regression: levels ``[B, n, K]`` and ``[B, n, 4]``, N anchors in all.
        anchors: ``[N, 4]``.
        matches: ``[B, N]``, as of :func:`retina_ops.match_anchors`.
        gt_boxes, gt_labels: of each image.
        divisor: ``[B]``: each image's sums are divided by this.
        alpha, gamma, box_loss, smooth_l1_beta, bbox_reg_weights: as for :func:`retina_ops.retinanet_loss`.
    """
    logits, deltas = torch.cat(list(cls_logits), dim=1), torch.cat(list(bbox_regression), dim=1)
    wide = torch.promote_types(torch.promote_types(deltas.dtype, torch.float32), anchors.dtype)
    classification, regression = [], []
    for image, (boxes, labels) in enumerate(zip(gt_boxes, gt_labels, strict=True)):
        match = matches[image]
        classes = torch.where(match == -1, logits.shape[-1], -1)
        is_object = match >= 0
        classes[is_object] = labels[match[is_object]].to(classes.dtype)
        loss = sigmoid_focal_loss(logits[image], classes, alpha, gamma, "sum")
        classification.append(loss / divisor[image])
        codes, proposals = deltas[image][is_object].to(wide), anchors[is_object].to(wide)
        wanted = boxes[match[is_object]].to(wide)
        if box_loss in _IOU_LOSSES:
            losses = _IOU_LOSSES[box_loss](decode_boxes(codes, proposals, bbox_reg_weights), wanted)
        elif box_loss == "smooth_l1":
            targets = encode_boxes(wanted, proposals, bbox_reg_weights)
            losses = F.smooth_l1_loss(codes, targets, reduction="none", beta=smooth_l1_beta)
        else:
            losses = F.l1_loss(codes, encode_boxes(wanted, proposals, bbox_reg_weights), reduction="none")
        regression.append(losses.sum() / divisor[image])
    return torch.stack(classification).sum(), torch.stack(regression).sum()
