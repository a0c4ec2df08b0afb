"""The RetinaNet loss composed of the single operators: what the fused one is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import retina_ops
from retina_ops.models import LossOptions
from retina_ops.reference.head_outputs import by_anchor

IOU_LOSSES = {
    "giou": retina_ops.generalized_box_iou_loss,
    "diou": retina_ops.distance_box_iou_loss,
    "ciou": retina_ops.complete_box_iou_loss,
}


def composed_losses(
    head_outputs: dict[str, list[Tensor]],
    anchors: Tensor,
    targets: Sequence[dict[str, Any]],
    options: LossOptions,
    normalizer: Any = None,
) -> dict[str, Tensor]:
    """As `retina_ops.models.retinanet_losses`, of targets without crowds."""
    logits, deltas = (
        torch.cat(rows, dim=1) for rows in by_anchor(head_outputs["cls_logits"], head_outputs["bbox_regression"])
    )
    matches = torch.stack(
        retina_ops.match_anchors(
            anchors, [target["boxes"] for target in targets], options.fg_iou_thresh, options.bg_iou_thresh
        )
    )
    foreground = (matches >= 0).sum(dim=1)
    if options.normalization == "image":
        divisor = foreground.clamp(min=1) * len(targets)
    else:
        total = foreground.sum()
        divisor = (total.clamp(min=1) if options.normalization == "batch" else normalizer(foreground)).expand(
            len(targets)
        )
    classification, box_losses = [], []
    for image, target in enumerate(targets):
        match = matches[image]
        is_object = match >= 0
        classes = torch.where(match == -1, logits.shape[-1], -1)
        classes[is_object] = target["labels"][match[is_object]]
        loss = retina_ops.sigmoid_focal_loss(logits[image], classes, options.alpha, options.gamma, "sum")
        classification.append(loss / divisor[image])
        mine, its_anchors = deltas[image][is_object], anchors[is_object]
        wanted = target["boxes"][match[is_object]].to(anchors.dtype)
        if options.box_loss in IOU_LOSSES:
            losses = IOU_LOSSES[options.box_loss](retina_ops.decode_boxes(mine, its_anchors), wanted)
        elif options.box_loss == "smooth_l1":
            codes = retina_ops.encode_boxes(wanted, its_anchors)
            losses = F.smooth_l1_loss(mine, codes, reduction="none", beta=options.smooth_l1_beta)
        else:
            losses = F.l1_loss(mine, retina_ops.encode_boxes(wanted, its_anchors), reduction="none")
        box_losses.append(losses.sum() / divisor[image])
    return {
        "classification": torch.stack(classification).sum(),
        "bbox_regression": torch.stack(box_losses).sum() * options.box_loss_weight,
    }
