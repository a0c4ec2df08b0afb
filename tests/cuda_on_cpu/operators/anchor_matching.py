"""The launches of anchor_matching/ on an emulated device, over tensors of the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..device import Array, Device
from .common import DTYPES, padded_boxes


def match_anchors(
    device: Device,
    anchors: Tensor,
    gt_boxes: list[Tensor],
    fg_iou: float = 0.5,
    bg_iou: float = 0.4,
    allow_low_quality: bool = True,
    *,
    regions: list[Tensor] | None = None,
    ignore_iof: float = 0.5,
    offset: int = 0,
    first: int = 0,
    surplus: int = 0,
) -> tuple[Tensor, Tensor]:
    """Matches [batch, A] and foreground anchors [batch] of a batch whose images share the anchors [A, 4], or have their
    own [batch, A, 4]. first: index of the first image. surplus: added to the counts, which is then wrong of them."""
    batch, own = len(gt_boxes), anchors.dim() == 3
    padded, counts = padded_boxes(gt_boxes, anchors.dtype)
    matches = torch.empty(batch, anchors.shape[-2], dtype=torch.int64)
    foreground = torch.zeros(batch, dtype=torch.int64)
    best = torch.zeros(batch * padded.shape[1], dtype=torch.int64 if anchors.dtype == torch.float64 else torch.int32)
    padded_regions, region_counts = padded_boxes(regions, anchors.dtype) if regions is not None else (None, None)
    scalars = {
        "dtype": DTYPES[anchors.dtype],
        "anchors_per_image": own,
        "first": first,
        "batch": batch,
        "anchor_count": anchors.shape[-2],
        "gt_capacity": padded.shape[1],
        "region_capacity": 0 if padded_regions is None else padded_regions.shape[1],
        "fg_iou": fg_iou,
        "bg_iou": bg_iou,
        "ignore_iof": ignore_iof,
        "allow_low_quality": allow_low_quality,
    }
    arrays = {
        "anchors": Array(anchors, offset=offset),
        "gt_boxes": padded,
        "gt_counts": counts + surplus,
        "regions": padded_regions,
        "region_counts": None if region_counts is None else region_counts + surplus,
        "best": best,
        "matches": Array(matches, False),
        "foreground": foreground,
    }
    device.run("match_anchors", scalars, arrays)
    return matches, foreground
