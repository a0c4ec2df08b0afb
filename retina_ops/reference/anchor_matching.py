"""Anchor matching in plain PyTorch, of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops._deprecated import MATCHING, renamed_arguments
from retina_ops.reference._box_terms import widen
from retina_ops.reference.box_iou import box_iou

__all__ = ["match_anchors"]


@renamed_arguments(**MATCHING)
def match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
    allow_low_quality_matches: bool = True,
    *,
    ignore_regions: Tensor | None = None,
    ignore_iof: float = 0.5,
    min_pos_iou: float = 0.0,
) -> Tensor:
    """The definition of :func:`retina_ops.match_anchors` for one image; needs O(anchors x boxes) memory."""
    matches = match_matrix(
        box_iou(gt_boxes, anchors), fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches, min_pos_iou
    )
    if ignore_regions is not None and len(ignore_regions) > 0 and len(anchors) > 0:
        anchors, regions = widen(anchors), widen(ignore_regions)
        low = torch.max(anchors[:, None, :2], regions[None, :, :2])
        high = torch.min(anchors[:, None, 2:], regions[None, :, 2:])
        intersection = (high - low).clamp(min=0).prod(dim=-1)
        area = (anchors[:, 2:] - anchors[:, :2]).prod(dim=-1)
        covered = (intersection / area[:, None] >= anchors.new_tensor(ignore_iof)).any(dim=1)
        matches = torch.where(covered & (matches < 0), -2, matches)
    return matches


def match_matrix(
    iou: Tensor,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    allow_low_quality_matches: bool,
    min_pos_iou: float,
) -> Tensor:
    """The match of each anchor from the matrix of IoUs ``[M, A]``, as :func:`retina_ops.match_anchors` returns it."""
    if iou.numel() == 0:
        return torch.full((iou.shape[1],), -1, device=iou.device)
    iou = torch.where(iou.isnan(), -torch.inf, iou)  # boxes without area do not overlap: 0 / 0
    best = iou.max(dim=0).values
    # max does not promise the lowest index among equal values; argmax of the first True does.
    index = (iou == best).to(torch.uint8).argmax(dim=0)
    matches = torch.where(best < best.new_tensor(bg_iou_thresh), -1, -2)
    matches = torch.where(best >= best.new_tensor(fg_iou_thresh), index, matches)
    if allow_low_quality_matches:
        highest = iou.max(dim=1, keepdim=True).values
        has_matches = (highest > 0) & (highest >= highest.new_tensor(min_pos_iou))
        attains = ((iou == highest) & has_matches).any(dim=0)
        matches = torch.where(attains, index, matches)
    return matches
