"""Soft non-maximum suppression in plain PyTorch: one box per step, from the matrix of all IoUs."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.reference.box_iou import box_iou

__all__ = ["soft_nms"]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    method: str = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
    *,
    idxs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`retina_ops.soft_nms`; needs O(N^2) memory. Boxes may have gradients, too."""
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    wide = scores.to(dtype)
    iou = box_iou(boxes.to(dtype), boxes.to(dtype))
    if method == "linear":
        factors = torch.where(iou.double() > iou_threshold, 1 - iou, 1.0)
    elif method == "naive":
        factors = torch.where(iou.double() > iou_threshold, 0.0, 1.0).to(dtype)
    else:
        factors = torch.exp(-(iou * iou) / max(sigma, torch.finfo(dtype).tiny))
        factors = torch.where(iou.isnan(), 1.0, factors)
    if idxs is not None:
        factors = torch.where(idxs[:, None] == idxs, factors, 1.0)
    decay = torch.ones_like(wide)
    remaining = wide >= min_score  # False for NaN
    taken = []
    while remaining.any():
        current = torch.where(remaining, wide * decay, -1.0)
        first = int((current == current.max()).nonzero()[0])
        taken.append(first)
        remaining[first] = False
        decay = torch.where(remaining, decay * factors[first], decay)
        remaining = remaining & (wide * decay >= min_score)
        if method == "naive":
            remaining = remaining & (decay > 0)
    keep = torch.tensor(taken, dtype=torch.int64, device=boxes.device)
    return keep, (wide[keep] * decay[keep]).to(scores.dtype)
