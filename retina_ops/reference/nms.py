"""Non-maximum suppression in plain PyTorch: greedy, from the matrix of all IoUs."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_ops.reference.box_iou import box_iou

__all__ = ["batched_nms", "nms"]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The definition of :func:`retina_ops.nms`; needs O(N^2) memory."""
    return batched_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """The definition of :func:`retina_ops.batched_nms`; needs O(N^2) memory."""
    order = scores.float().nan_to_num(-torch.inf).argsort(descending=True, stable=True)
    if scores.dtype == torch.float64:
        order = scores.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
    order = order[~scores[order].isnan()]
    boxes, idxs = boxes[order], idxs[order]
    suppresses = (box_iou(boxes, boxes).double() > iou_threshold) & (idxs[:, None] == idxs[None])
    is_alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for i in range(len(order)):
        if is_alive[i]:
            kept.append(i)
            is_alive &= ~suppresses[i]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]
