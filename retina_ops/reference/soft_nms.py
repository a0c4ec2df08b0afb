"""Soft non-maximum suppression in plain PyTorch: step by step over the matrix of all IoUs."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.reference.boxes import box_iou

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
    """The definition of :func:`retina_ops.soft_nms`; memory O(N^2). Differentiable in boxes too."""
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    wide = scores.to(dtype)
    iou = box_iou(boxes.to(dtype), boxes.to(dtype))
    if method == "linear":
        factors = torch.where(iou.double() > iou_threshold, 1 - iou, 1.0)
    else:
        factors = torch.exp(-(iou * iou) / max(sigma, torch.finfo(dtype).tiny))
        factors = torch.where(iou.isnan(), 1.0, factors)
    if idxs is not None:
        factors = torch.where(idxs[:, None] == idxs, factors, 1.0)
    decay = torch.ones_like(wide)
    left = wide >= min_score  # never where NaN
    taken = []
    while left.any():
        current = torch.where(left, wide * decay, -1.0)
        first = int((current == current.max()).nonzero()[0])
        taken.append(first)
        left[first] = False
        decay = torch.where(left, decay * factors[first], decay)
        left = left & (wide * decay >= min_score)
    keep = torch.tensor(taken, dtype=torch.int64, device=boxes.device)
    return keep, (wide[keep] * decay[keep]).to(scores.dtype)
